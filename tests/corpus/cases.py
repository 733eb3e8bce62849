"""The corpus as values: what is sent to the last byte, and what may come back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).with_name("bad_inputs.jsonl")
NO_ANSWER = 0


@dataclass(frozen=True)
class Case:
    """One line of the corpus. `parts` is the body, or the whole request where `wire` says so."""

    name: str
    method: str
    path: str
    headers: Mapping[str, str]
    parts: Any
    wire: bool
    body: Any
    expected: tuple[int, ...]
    why: str
    checks: tuple[str, ...] = ()
    setup: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slow(self) -> bool:
        """Whether its answer is a deadline of the server's."""
        return any(check.startswith(("answer_within", "closed_within")) for check in self.checks)

    @property
    def can_stream(self) -> bool:
        """Whether `stream: true` can be added: a body of /v1 that says nothing about it."""
        return (
            self.path.startswith("/v1/")
            and isinstance(self.body, dict)
            and self.body.get("stream") is None
            and "stream_options" not in self.body
        )

    def streamed(self) -> Case:
        """The same with `stream: true`, and the token counts that the checks read."""
        more = {"stream": True, "stream_options": {"include_usage": True}}
        return replace(self, name=f"{self.name} (streamed)", body={**self.body, **more})

    def request(self, values: Mapping[str, str]) -> bytes:
        """The bytes to send; `values` are the placeholders'."""
        sub = _substitution(values)
        if self.wire:
            raw = expand(self.parts, sub)
            length = len(raw.partition(b"\r\n\r\n")[2])
            return raw.replace(b"${CL}", str(length).encode())
        body = expand(self.parts, sub) if self.body is None else _compact(self.body, sub)
        given = {name.lower() for name in self.headers}
        head = [f"{self.method} {self.path} HTTP/1.1"]
        if "host" not in given:
            head.append(f"Host: {values['HOST']}")
        head += [f"{name}: {value}" for name, value in self.headers.items()]
        if body or self.method in ("POST", "PUT"):
            head.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*head, "", ""]).encode() + body


def load() -> list[Case]:
    """Every case, with what was decided since."""
    return [_case(json.loads(line)) for line in CORPUS.read_text().splitlines()]


def expand(parts: Any, sub: Callable[[str], str]) -> bytes:
    """A text, or parts: a text, bytes as base64, or a text repeated."""
    return b"".join(_part(part, sub) for part in ([parts] if isinstance(parts, str) else parts))


def _part(part: Any, sub: Callable[[str], str]) -> bytes:
    if isinstance(part, str):
        return sub(part).encode()
    if "b64" in part:
        return base64.b64decode(part["b64"])
    return sub(part["repeat"]).encode() * int(part["n"])


def _compact(body: Any, sub: Callable[[str], str]) -> bytes:
    return sub(json.dumps(body, separators=(",", ":"))).encode()


def _substitution(values: Mapping[str, str]) -> Callable[[str], str]:
    def sub(text: str) -> str:
        for name, value in values.items():
            text = text.replace("${" + name + "}", value)
        return text

    return sub


def _case(line: dict[str, Any]) -> Case:
    checks = line.get("check", ())
    name = line["name"]
    return Case(
        name=name,
        method=line["method"],
        path=line["path"],
        headers=line.get("headers") or {},
        parts=line.get("wire") or line.get("raw_body") or "",
        wire="wire" in line,
        body=line.get("body"),
        expected=tuple(line["expect_status"]),
        why=line["why"],
        checks=(checks,) if isinstance(checks, str) else tuple(checks),
        setup=line.get("setup") or {},
    )
