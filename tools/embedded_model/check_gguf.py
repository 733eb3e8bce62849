"""Ask a real llama-server the held-out questions.

`python -m tools.embedded_model.check_gguf SERVER`
Compares its token ids with the tokenizer's and prints the share of right greedy answers.
"""

import argparse
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.embedded import GGUF_Q4_0, GGUF_Q8_0, MODEL_DIR
from tools.embedded_model.evaluate import load_tokenizer, prompt_of
from tools.embedded_model.text import held_out

PORT = 18431
STARTS_WITHIN_S = 30


def call(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to the server, JSON in and out."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - always http
        found: dict[str, Any] = json.load(response)
    return found


def _wait_until_ready() -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            call("/health")
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


@contextmanager
def serving(server: Path, model: Path) -> Iterator[None]:
    """A llama-server with this model, for as long as this lasts."""
    command = [
        str(server),
        "-m",
        str(model),
        "--port",
        str(PORT),
        "-t",
        "1",
        "-c",
        "2048",
        "-np",
        "1",
    ]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_ready()
        yield
    finally:
        child.terminate()
        child.wait()


def different_ids(texts: list[str]) -> list[str]:
    """The texts that the server splits in another way."""
    tokenizer = load_tokenizer(MODEL_DIR)
    body = {"add_special": True, "parse_special": True}
    return [
        t for t in texts if call("/tokenize", {"content": t, **body})["tokens"] != tokenizer.encode(t).ids
    ]


def share_right() -> float:
    """The share of held-out questions that the server answers exactly right."""
    right = 0
    for question in held_out():
        body = {
            "prompt": prompt_of(question),
            "temperature": 0,
            "n_predict": 420,
            "cache_prompt": False,
        }
        said = str(call("/completion", body)["content"]).strip()
        right += said == question.answer.strip()
    return right / len(held_out())


def main() -> None:
    """Check both GGUF files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", type=Path, help="path of llama-server")
    parser.add_argument("models", type=Path, nargs="*", default=[GGUF_Q8_0, GGUF_Q4_0])
    options = parser.parse_args()
    texts = [prompt_of(q) for q in held_out(100)] + [q.answer for q in held_out(100)]
    texts += ["naïve 日本 🚀", " x  y\n\n z", "12345", "it's DON'T", "<tool_call>é</tool_call>"]
    for model in options.models:
        with serving(options.server, model):
            print(f"{model.name}: {len(different_ids(texts))} of {len(texts)} texts split otherwise")
            print(f"{model.name}: {share_right():.1%} right")


if __name__ == "__main__":
    main()
