"""One question to the OpenAI routes, and its answer in one form, whichever form it came in."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sidecar.embedded import MODEL_DIR
from tests.e2e.program import Program

CAPITAL = "What is the capital of France?"
PARIS = "The capital of France is Paris."
STORY = "Tell me a story about a fox."
# Both ends of an answer forbidden: it goes on until something else ends it.
ENDLESS = {"logit_bias": {"0": -100, "2": -100}}
# As long as a context: of these, both engines have places for 16.
LONG = {"prompt": "Tell me a story.", "max_tokens": 2040, **ENDLESS}


def said_by(user: str) -> list[dict[str, str]]:
    """A conversation of one turn."""
    return [{"role": "user", "content": user}]


def ids(text: str) -> list[int]:
    """The tokens of the text, control tokens included: both engines have the same vocabulary."""
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json")).encode(text).ids)


@dataclass(frozen=True)
class Score:
    """One log probability, with the likeliest alternatives."""

    token: str
    logprob: float
    top: dict[str, float]
    raw: bytes


@dataclass
class Choice:
    """One choice, put together."""

    text: str = ""
    reason: str | None = None
    scores: list[Score] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)


@dataclass
class Answer:
    """`done` says whether a stream ended with `[DONE]`; `error` is the event in its place."""

    choices: list[Choice]
    usage: dict[str, Any]
    done: bool = True
    error: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """Of the only choice."""
        (one,) = self.choices
        return one.text

    @property
    def reason(self) -> str | None:
        """Of the only choice."""
        (one,) = self.choices
        return one.reason

    @property
    def scores(self) -> list[Score]:
        """Of the only choice."""
        (one,) = self.choices
        return one.scores

    @property
    def texts(self) -> list[str]:
        """Of all choices."""
        return [choice.text for choice in self.choices]

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt and of all choices."""
        return self.usage["prompt_tokens"], self.usage["completion_tokens"]

    @property
    def cached(self) -> int:
        """Tokens of the prompt that were not computed."""
        return int(self.usage["prompt_tokens_details"]["cached_tokens"])


class Refused(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(f"{status}: {error}")
        self.status, self.error = status, error


class Door:
    """`ask` with `messages` is a chat, with `prompt` a completion."""

    def __init__(self, server: Program) -> None:
        self.server = server

    def ask(self, streamed: bool = False, **body: Any) -> Answer:
        """The whole answer. Raises Refused."""
        if not streamed:
            return _whole(json.load(self._open(body)))
        return _together(self.events(**body), int(body.get("n", 1)))

    def greedy(self, streamed: bool = False, **body: Any) -> Answer:
        """The same at temperature 0."""
        return self.ask(streamed, temperature=0, **body)

    def events(self, **body: Any) -> Iterator[dict[str, Any] | None]:
        """The events of a stream as they come; None for `[DONE]`. Raises Refused."""
        with self._open({**body, "stream": True, "stream_options": {"include_usage": True}}) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    yield None if line[6:].strip() == b"[DONE]" else json.loads(line[6:])

    def _open(self, body: dict[str, Any]) -> Any:
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        request = urllib.request.Request(
            self.server.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            return urllib.request.urlopen(request, timeout=160)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, json.load(error)["error"]) from None


def _whole(body: dict[str, Any]) -> Answer:
    answer = Answer([Choice() for _ in body["choices"]], body["usage"])
    for choice in body["choices"]:
        _add(answer.choices[choice["index"]], choice, choice.get("message", choice))
    return answer


def _together(events: Iterator[dict[str, Any] | None], n: int) -> Answer:
    answer = Answer([Choice() for _ in range(n)], {}, done=False)
    for event in events:
        assert not answer.done, "something came behind [DONE]"
        if event is None:
            answer.done = True
        elif "error" in event:
            answer.error = event["error"]
        else:
            answer.usage = event.get("usage") or answer.usage
            for choice in event["choices"]:
                _add(answer.choices[choice["index"]], choice, choice.get("delta", choice))
    return answer


def _add(to: Choice, choice: dict[str, Any], said: dict[str, Any]) -> None:
    assert to.reason is None, "a choice goes on behind its end"
    piece = said.get("content") or said.get("text") or ""
    to.text += piece
    to.pieces += [piece] if piece else []
    to.reason = choice["finish_reason"]
    to.scores += _scores(choice.get("logprobs") or {})


def _scores(found: dict[str, Any]) -> list[Score]:
    """Of either dialect; the older one has no bytes."""
    if "content" in found:
        return [
            Score(
                s["token"],
                s["logprob"],
                {t["token"]: t["logprob"] for t in s["top_logprobs"]},
                bytes(s["bytes"]),
            )
            for s in found["content"]
        ]
    columns = (found.get(name, []) for name in ("tokens", "token_logprobs", "top_logprobs"))
    return [Score(token, score, top, b"") for token, score, top in zip(*columns, strict=True)]
