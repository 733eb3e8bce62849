"""The checks that cases name, and what every refusal has to be. Each raises AssertionError."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import Tokenizer

from sidecar.embedded import MODEL_DIR
from tests.corpus.bench import Bench
from tests.corpus.cases import Case
from tests.corpus.wire import Answer

ENVELOPE_BYTES = 8192
ECHO_CHARS = 24
INSIDES = ("Traceback", "/usr/", "/app/", "site-packages", " at 0x", "pydantic.dev", 'File "', ".py")


@dataclass(frozen=True)
class Seen:
    """One case, what was sent, and what came back."""

    case: Case
    request: bytes
    answer: Answer
    bench: Bench


def verify(seen: Seen) -> None:
    """The status, the form of a refusal or of a stream, and every check that the case names."""
    case, answer = seen.case, seen.answer
    assert answer.status in case.expected, (
        f"{answer.status} instead of {case.expected}: {answer.body[:300]!r}"
    )
    if answer.status >= 400:
        _is_a_good_refusal(seen)
    elif answer.headers.get_content_type() == "text/event-stream":
        _is_complete(answer)
    for check in case.checks:
        name, _, argument = check.partition(":")
        CHECKS[name](seen, argument)


def _is_a_good_refusal(seen: Seen) -> None:
    answer = seen.answer
    message = answer.error["message"]
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.body) <= ENVELOPE_BYTES
    for words in INSIDES:
        assert words not in message, message
    _does_not_echo(answer.body, seen.request)


def _does_not_echo(body: bytes, request: bytes) -> None:
    """No stretch of the request's body in the answer; ours are short, so that all of them can be tried."""
    sent = request.partition(b"\r\n\r\n")[2][: 64 * 1024]
    for at in range(len(body) - ECHO_CHARS):
        assert body[at : at + ECHO_CHARS] not in sent, body


def _is_complete(answer: Answer) -> None:
    assert answer.events, answer.body
    assert answer.events[-1] == "[DONE]", answer.events[-1]
    assert not any('"error"' in event[:10] for event in answer.events)


# --- what cases name ---------------------------------------------------------------------------------


def _no_redirect(seen: Seen, _: str) -> None:
    assert not 300 <= seen.answer.status < 400
    assert "location" not in seen.answer.headers


def _allow(seen: Seen, method: str) -> None:
    assert method in re.split(r",\s*", seen.answer.headers["allow"])


def _no_acao(seen: Seen, _: str) -> None:
    assert not [name for name in seen.answer.headers if name.lower().startswith("access-control-")]


def _no_outbound(seen: Seen, _: str) -> None:
    assert seen.bench.tripwire.visits == 0


def _engine_pid_unchanged(seen: Seen, _: str) -> None:
    seen.bench.server(seen.case).assert_same_engine()


def _literal(seen: Seen, literal: str) -> None:
    """What the user wrote came to the model as written: it has exactly as many tokens."""
    (message,) = seen.case.body["messages"]
    assert literal in message["content"]
    _tokens_are_those_of_the_text(seen, message["content"])


def _no_special_tokens(seen: Seen, _: str) -> None:
    """A control token is one token; the text that spells it is several."""
    (message,) = seen.case.body["messages"]
    found = _tokens_are_those_of_the_text(seen, message["content"])
    assert found > len(_tokenizer().encode(message["content"], add_special_tokens=False).ids)


def _tokens_are_those_of_the_text(seen: Seen, text: str) -> int:
    """Its share of the prompt's tokens. One more or less: where it meets the template, letters may merge."""
    frame = seen.bench.prompt_tokens_of("hi") - len(_pieces("hi"))
    found = _prompt_tokens(seen.answer) - frame
    assert abs(found - len(_pieces(text))) <= 1, (found, len(_pieces(text)))
    return found


def _prompt_tokens(answer: Answer) -> int:
    texts = [e for e in answer.events if '"usage":{' in e][-1:] or [answer.body.decode()]
    return int(json.loads(texts[0])["usage"]["prompt_tokens"])


@cache
def _tokenizer() -> Any:
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


def _pieces(text: str) -> list[int]:
    """The tokens of text in which nothing is a control token: cut behind the first character of each."""
    names = [token.content for token in _tokenizer().get_added_tokens_decoder().values()]
    spelled = "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names)
    parts = re.split(spelled, text)
    return [i for part in parts for i in _tokenizer().encode(part, add_special_tokens=False).ids]


def _request_id(seen: Seen, longest: str) -> None:
    assert 0 < len(seen.answer.headers["x-request-id"]) <= int(longest)


def _not_reflected(seen: Seen, _: str) -> None:
    answer = seen.answer.body.lower() + str(seen.answer.headers).lower().encode()
    for words in (b"<script", b"%3cscript", b"verbose"):
        assert words not in answer


def _child_never_sees(seen: Seen, _: str) -> None:
    """Refused, so nothing was sent on; that nothing of a body is sent as it came is test_forwarded's."""
    assert seen.answer.status == 400


def _answered_before_body(seen: Seen, _: str) -> None:
    assert seen.request.endswith(b"\r\n\r\n")
    assert seen.answer.seconds < 2


def _code(seen: Seen, code: str) -> None:
    assert seen.answer.error["code"] == code


def _param(seen: Seen, param: str) -> None:
    assert seen.answer.error["param"] == param


def _closed(seen: Seen, _: str) -> None:
    assert seen.answer.closed


def _no_chunk_sizes(seen: Seen, _: str) -> None:
    assert "transfer-encoding" not in seen.answer.headers
    assert seen.answer.body.startswith(b"data: ")
    assert not re.search(rb"^[0-9a-fA-F]+\r$", seen.answer.body, re.MULTILINE)


def _no_forged_line(seen: Seen, _: str) -> None:
    printed = seen.bench.server(seen.case).program.printed()
    assert "X-Injected" in printed, "the request is not logged"
    assert not [line for line in re.split(r"[\r\n]", printed) if line.startswith("X-Injected")]


def _answer_within(seen: Seen, seconds: str) -> None:
    assert seen.answer.status != 0
    assert seen.answer.seconds <= float(seconds)


def _closed_within(seen: Seen, seconds: str) -> None:
    assert seen.answer.closed
    assert seen.answer.seconds <= float(seconds)


def _www_authenticate(seen: Seen, _: str) -> None:
    assert seen.answer.headers["www-authenticate"] == "Bearer"


def _small(seen: Seen, _: str) -> None:
    assert len(seen.answer.body) <= ENVELOPE_BYTES


CHECKS: dict[str, Callable[[Seen, str], None]] = {
    "no_redirect": _no_redirect,
    "no_outbound": _no_outbound,
    "engine_pid_unchanged": _engine_pid_unchanged,
    "allow": _allow,
    "no_acao": _no_acao,
    "no_special_tokens_from_user_text": _no_special_tokens,
    "prompt_contains_literal": _literal,
    "x_request_id_len_le_128": lambda seen, _: _request_id(seen, "128"),
    "not_reflected": _not_reflected,
    "child_never_sees_raw_body": _child_never_sees,
    "answered_before_body": _answered_before_body,
    "code": _code,
    "connection_closed": _closed,
    "no_chunk_sizes_in_body": _no_chunk_sizes,
    "no_forged_log_line": _no_forged_line,
    "answer_within": _answer_within,
    "closed_within": _closed_within,
    "www_authenticate": _www_authenticate,
    "param": _param,
    "error_body_le_8k": _small,
}
