"""Answers in a form: what share of them validates, and how much later their first token comes.

The embedded model behind the whole program, once on each engine. At temperature 1.5 it says what it would
never say, so that it is the grammar and not the model that keeps the form.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import jsonschema

from tools.bench.figures import rounded
from tools.bench.servers import ROOT, free_port
from tools.bench.show import Show

ENGINES = {"transformers": "embedded", "llama-server": "embedded-gguf"}
ANSWERS = 200
FIRST_TOKENS = 40
CHOICES = 4
READY_S = 300.0

_WORD = {"type": "string", "maxLength": 12}


def _object(optional: int = 0, **properties: Any) -> dict[str, Any]:
    required = list(properties)[: len(properties) - optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


_ADDRESS = _object(1, street=_WORD, city=_WORD, zip={"type": "string", "minLength": 5, "maxLength": 5})
# Eleven fields on two levels, with every kind of value: what people send.
USUAL = _object(
    2,
    name={"type": "string", "minLength": 1, "maxLength": 24, "description": "Given name and family name."},
    age={"type": "integer", "minimum": 0, "maximum": 150},
    kind={"enum": ["friend", "family", "colleague", "other"]},
    tags={"type": "array", "items": _WORD, "maxItems": 4},
    address=_ADDRESS,
    member={"type": "boolean"},
    since={"type": "string", "format": "date"},
    note={"anyOf": [_WORD, {"type": "null"}]},
)
SCHEMAS = (
    USUAL,
    {"type": "array", "items": _WORD, "minItems": 2, "maxItems": 5},
    _object(value={"type": "integer", "minimum": -40, "maximum": 120}, unit={"enum": ["C", "F", "K"]}),
    {
        "anyOf": [
            _object(text=_WORD),
            _object(codes={"type": "array", "items": {"type": "integer"}, "maxItems": 3}),
        ]
    },
    {"type": "object", "additionalProperties": {"type": "boolean"}},
)


def measure(quick: bool, show: Show) -> list[dict[str, Any]]:
    """One row for each engine."""
    rows = []
    for engine, profile in ENGINES.items():
        show(f"answers in a form, {engine}")
        with _running(profile) as url:
            rows.append({"engine": engine, **_share(url, quick), **_first_tokens(url, quick)})
    return rows


def _share(url: str, quick: bool) -> dict[str, Any]:
    """How many answers came to their end by themselves, and how many of these validate."""
    complete, valid, asked = 0, 0, 20 if quick else ANSWERS
    for seed, schema in zip(range(asked // CHOICES), itertools.cycle(SCHEMAS), strict=False):
        body = _asking(schema, temperature=1.5, seed=seed, n=CHOICES, max_tokens=400)
        with _post(url, body) as answer:
            choices = json.load(answer)["choices"]
        ended = [c["message"]["content"] for c in choices if c["finish_reason"] == "stop"]
        complete += len(ended)
        valid += sum(_validates(text, schema) for text in ended)
    return {"asked": asked, "complete": complete, "valid": valid}


def _first_tokens(url: str, quick: bool) -> dict[str, float]:
    """Milliseconds to the first token, free and held in turns; the held one's schema is new, then known."""
    free, new, known = [], [], []
    for index in range(4 if quick else FIRST_TOKENS):
        schema = {**USUAL, "description": f"Person number {index}."}
        free.append(_first_token_ms(url, _asking(None)))
        new.append(_first_token_ms(url, _asking(schema)))
        known.append(_first_token_ms(url, _asking(schema)))
    medians = {"free": free, "new": new, "known": known}
    return {f"{name}_ms": rounded(statistics.median(found)) for name, found in medians.items()}


def _asking(schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "Tell me about a person."}], "temperature": 0, **more}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return body


def _first_token_ms(url: str, body: dict[str, Any]) -> float:
    began = time.perf_counter()
    with _post(url, {**body, "max_tokens": 8, "stream": True}) as answer:
        for line in answer:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return 1000 * (time.perf_counter() - began)
    raise RuntimeError("a stream without a token")


def _validates(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def _post(url: str, body: dict[str, Any]) -> Any:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=300)


@contextlib.contextmanager
def _running(profile: str) -> Iterator[str]:
    """The address of the program, ready with that profile."""
    port = free_port()
    command = [sys.executable, "server.py", "--profile", profile, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "LLM_PROFILE_NAME": profile})
    url = f"http://127.0.0.1:{port}"
    try:
        _until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"{url} was not ready within {READY_S:g} s")
