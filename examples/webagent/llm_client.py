"""WebAgent's client for `provider: self`: its YAML and its variables, over the official `openai` client.

    python examples/webagent/llm_client.py examples/webagent/dev.yaml "What is the capital of France?"

The keys, and which of them are the server's, are in the README beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import yaml

# The server answers 408 by itself at the end of the time; a client that gave up first would not see that.
GRACE_SECONDS = 5.0
LONGEST_SECONDS = 300
PROVIDER, URL = "WEBAGENT_LLM_PROVIDER", "SELF_HOSTED_LLM_URL"
# Keys of the YAML that are nothing to a client, and what says the same to the server.
SERVERS = {"model_path": "MODEL_PATH or --model_path"}


class BadConfig(ValueError):
    """A key or a value that can not be used, in one line."""


@dataclass(frozen=True, slots=True)
class LLMConfig:
    """The keys under `llm:` that a client uses."""

    provider: str = "self"
    temperature: float = 0.7
    timeout_seconds: float = 60
    max_tokens: int = 4096
    retry_attempts: int = 3
    batch_size: int = 10
    self_hosted_url: str = "http://localhost:8080"


@dataclass(frozen=True, slots=True)
class Answer:
    """The text, and who gave it: `self`, or a hosted provider in the server's place (its FALLBACK=1)."""

    text: str
    served_by: str


def load(path: Path, environ: Mapping[str, str]) -> LLMConfig:
    """The file's `llm:`, with the two variables over it. Raises BadConfig that names the key."""
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = read.get("llm") if isinstance(read, dict) else None
    if not isinstance(found, dict):
        raise BadConfig(f"{path}: there is no `llm:` with keys below it")
    for variable, key in ((PROVIDER, "provider"), (URL, "self_hosted_url")):
        if environ.get(variable, "").strip():
            found[key] = environ[variable].strip()
    return _config(found)


def _config(found: Mapping[str, Any]) -> LLMConfig:
    known = [field.name for field in fields(LLMConfig)]
    for key, value in found.items():
        if key in SERVERS:
            raise BadConfig(
                f"llm.{key} is the server's: start it with {SERVERS[key]}, and leave the key out here"
            )
        if key not in known:
            raise BadConfig(f"llm.{key} is not known; known are {', '.join(known)}")
        usable, accepted = _RULES[key]
        if isinstance(value, bool) or not usable(value):
            raise BadConfig(f"llm.{key}: {value!r} can not be used; accepted: {accepted}")
    return LLMConfig(**found)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and low <= value <= high


def _is_url(value: Any) -> bool:
    return (
        isinstance(value, str)
        and urlsplit(value).scheme in ("http", "https")
        and bool(urlsplit(value).netloc)
    )


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "provider": (
        lambda value: value == "self",
        "self; hosted providers are asked by the server, where that is set to (FALLBACK=1)",
    ),
    "temperature": (_number(0, 2), "a number from 0 to 2"),
    "timeout_seconds": (_number(0.1, LONGEST_SECONDS), f"seconds, up to {LONGEST_SECONDS}"),
    "max_tokens": (_whole(1, 10_000_000), "a number of tokens, 1 or more"),
    "retry_attempts": (_whole(0, 20), "a number from 0 to 20"),
    "batch_size": (_whole(1, 256), "a number from 1 to 256"),
    "self_hosted_url": (_is_url, "an address such as http://localhost:8080"),
}


class SelfHostedLLM:
    """Asks the server. Errors are the `openai` package's own."""

    def __init__(self, config: LLMConfig, api_key: str | None = None) -> None:
        """`api_key` is the server's API_KEY, where it has one."""
        self._config = config
        self._client = openai.OpenAI(
            base_url=config.self_hosted_url.rstrip("/") + "/v1",
            api_key=api_key or "none",
            timeout=config.timeout_seconds + GRACE_SECONDS,
            max_retries=config.retry_attempts,  # what the server says must not be repeated is not
        )

    def ask(self, question: str, system: str | None = None) -> Answer:
        """The answer to one question."""
        messages: list[Any] = [] if system is None else [{"role": "system", "content": system}]
        raw = self._client.chat.completions.with_raw_response.create(
            model="self",
            messages=[*messages, {"role": "user", "content": question}],
            temperature=self._config.temperature,
            max_tokens=self._config.max_tokens,
            # No model by name: the one that the server holds.
            extra_body={"model": None, "timeout": self._config.timeout_seconds},
        )
        return Answer(raw.parse().choices[0].message.content or "", raw.headers.get("x-served-by", "self"))

    def ask_all(self, questions: Sequence[str]) -> list[Answer]:
        """The answers in the order of the questions, `batch_size` of them asked at once."""
        with ThreadPoolExecutor(self._config.batch_size) as pool:
            return list(pool.map(self.ask, questions))


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 64
    try:
        llm = SelfHostedLLM(load(Path(sys.argv[1]), os.environ), os.environ.get("API_KEY"))
    except BadConfig as error:
        print(error, file=sys.stderr)
        return 78
    for answer in llm.ask_all(sys.argv[2:]):
        print(f"[{answer.served_by}] {answer.text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
