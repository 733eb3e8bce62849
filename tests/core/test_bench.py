"""The benchmark's pure parts: quantiles, events out of bytes, reports and what two of them say."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.bench.events import BROKEN, Answer, refusal
from sidecar.bench.figures import MIXED, SCHEMA, checked, compare, differences, report, spread
from sidecar.bench.load import refused
from sidecar.bench.outcome import Load, Outcome, Wanted
from sidecar.errors import ConfigError
from sidecar.quantiles import quantile

WANTED = Wanted("http://s", requests=4, concurrency=2, max_tokens=9)
values = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


# --- quantiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "is_"), [(0.0, 1), (0.1, 1), (0.5, 5), (0.51, 6), (0.9, 9), (0.95, 10), (1.0, 10)]
)
def test_a_quantile_is_the_nearest_rank(share: float, is_: int) -> None:
    assert quantile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == is_


@given(values, st.floats(0, 1))
def test_a_quantile_was_measured_and_so_many_are_at_most_it(found: list[float], share: float) -> None:
    middle = quantile(found, share)
    assert middle in found
    assert sum(value <= middle for value in found) >= share * len(found) - 1e-6
    assert sum(value < middle for value in found) <= share * len(found)


@given(values)
def test_quantiles_never_fall(found: list[float]) -> None:
    assert all(a <= b for a, b in pairwise(quantile(found, step / 20) for step in range(21)))


@pytest.mark.parametrize(("found", "share"), [([], 0.5), ([1.0], 1.1), ([1.0], -0.1), ([1.0], float("nan"))])
def test_there_is_no_quantile_of_nothing(found: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        quantile(found, share)


# --- events -------------------------------------------------------------------------------------


def chunk(**delta: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}
STREAM = [
    chunk(role="assistant", content=""), chunk(content="Paris"), chunk(content=" is"),
    chunk(reasoning_content="so"), chunk(tool_calls=[{"index": 0}]), chunk(), USAGE,
]  # fmt: skip


def wire(*events: Any, line: str = "\n") -> bytes:
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"data: {text}{line}{line}" for text in texts).encode()


@pytest.mark.parametrize("line", ["\n", "\r\n"])
@given(cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_however_the_bytes_are_cut_the_events_are_the_same(line: str, cuts: list[int]) -> None:
    data = b": ping" + line.encode() * 2 + b"event: x" + line.encode() + wire(*STREAM, "[DONE]", line=line)
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    answer = Answer()
    assert sum(answer.feed(data[a:b]) for a, b in pairwise(places)) == 4
    assert (answer.done, answer.tokens, answer.error) == (True, 7, None)


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ({"error": {"message": "gone", "code": "engine_crashed"}}, "engine_crashed", "gone"),
        ({"error": {"message": "gone", "type": "server_error", "code": None}}, "server_error", "gone"),
        ({"error": "no more"}, "error", "no more"),
        ("{half", BROKEN, None),
        ({"choices": "none"}, BROKEN, None),
    ],
)
def test_a_stream_that_goes_wrong_says_how(event: Any, kind: str, message: str | None) -> None:
    answer = Answer()
    assert answer.feed(wire(STREAM[1], event, STREAM[2])) == 2
    assert answer.error is not None
    assert answer.error[0] == kind
    assert message in (None, answer.error[1])
    assert not answer.done


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (429, {"error": {"message": "full", "code": "queue_full"}}, "429 queue_full", "full"),
        (503, {"error": {"message": "Loading model", "code": 503}}, "503", "Loading model"),
        (404, {"detail": "Not Found"}, "404", "Not Found"),
        (502, "<html>", "502", "<html>"),
    ],
)
def test_a_refusal_is_its_status_and_its_code(status: int, body: Any, kind: str, message: str) -> None:
    said = body if isinstance(body, str) else json.dumps(body)
    found = refused(status, said.encode())
    assert (found[0], message in found[1]) == (kind, True)


@given(st.none() | st.text() | st.dictionaries(st.sampled_from(["code", "type", "message"]), st.integers()))
def test_whatever_an_error_is_it_has_a_kind_and_a_message(error: Any) -> None:
    kind, message = refusal(error)
    assert kind
    assert isinstance(message, str)


# --- reports ------------------------------------------------------------------------------------


def done(first_s: float, gap_s: float, tokens: int | None, events: int = 4) -> Outcome:
    at = [first_s + index * gap_s for index in range(events)]
    return Outcome(tokens=tokens, end_s=at[-1] + 0.01, events_at_s=at)


def made(*outcomes: Outcome, seconds: float = 2.0) -> dict[str, Any]:
    return report(WANTED, "m", Load(outcomes, seconds, 0.25, None))


def test_a_report_counts_what_is_complete_and_names_what_is_not() -> None:
    lost = Outcome(error=BROKEN, message="first", end_s=9, events_at_s=[8, 9])
    found = made(done(0.1, 0.02, 8), done(0.3, 0.02, 8), lost, Outcome(error=BROKEN, message="second"))
    assert (found["succeeded"], found["failed"], found["tokens"], found["tokens_per_s"]) == (2, 2, 16, 8.0)
    assert found["errors"] == {BROKEN: {"count": 2, "first": "first"}}
    assert found["first_token_s"]["p50"] == 0.1
    assert found["first_token_s"]["max"] == 0.3
    assert found["inter_token_s"]["p99"] == pytest.approx(0.02)
    assert found["end_to_end_s"]["max"] == pytest.approx(0.37)


@pytest.mark.parametrize(
    ("tokens", "counted_by", "sum_"),
    [((8, 8), "usage", 16), ((None, None), "events", 8), ((8, None), MIXED, 12), ((), None, 0)],
)
def test_tokens_are_those_of_usage_else_one_for_each_event(
    tokens: tuple[int | None, ...], counted_by: str | None, sum_: int
) -> None:
    found = made(*(done(0.1, 0.02, count) for count in tokens))
    assert (found["tokens_counted_by"], found["tokens"]) == (counted_by, sum_)


def test_what_was_not_measured_is_null_and_not_zero() -> None:
    found = made(Outcome(error="429 queue_full"))
    assert found["first_token_s"] is found["inter_token_s"] is found["end_to_end_s"] is None
    assert spread([]) is None


def test_the_form_of_a_report_is_kept() -> None:
    """Whoever reads reports by program reads these names; another form gets another SCHEMA."""
    assert SCHEMA == 1
    assert list(made(done(0.1, 0.02, 8))) == [
        "schema", "url", "model", "requests", "concurrency", "max_tokens", "seconds", "succeeded", "failed",
        "errors", "tokens", "tokens_counted_by", "events", "tokens_per_s", "requests_per_s", "first_token_s",
        "inter_token_s", "end_to_end_s", "peak_vram_bytes", "client_cpu_s",
    ]  # fmt: skip
    assert list(made(done(0.1, 0.02, 8))["first_token_s"]) == ["p50", "p90", "p95", "p99", "mean", "max"]


def test_the_second_of_two_reports_is_so_many_times_faster_or_slower() -> None:
    slow, fast = made(done(0.4, 0.04, 8)), made(done(0.1, 0.02, 8), seconds=1.0)
    faster, slower = compare(slow, fast), compare(fast, slow)
    assert (faster["tokens/s"]["ratio"], faster["tokens/s"]["b_is"]) == (2.0, "2.00 times faster")
    assert faster["first token, p50"]["b_is"] == "4.00 times faster"
    assert slower["first token, p50"]["b_is"] == "4.00 times slower"
    assert slower["between tokens, p95"]["b_is"] == "2.00 times slower"
    assert {row["b_is"] for row in compare(fast, fast).values()} == {"the same"}
    assert "peak VRAM" not in faster


def test_peak_vram_is_smaller_rather_than_faster() -> None:
    a, b = made(done(0.1, 0.02, 8)), made(done(0.1, 0.02, 8))
    found = compare(a | {"peak_vram_bytes": 3e9}, b | {"peak_vram_bytes": 1e9})
    assert found["peak VRAM"]["b_is"] == "3.00 times smaller"


def test_loads_that_were_not_alike_are_said_to_be() -> None:
    a, b = made(done(0.1, 0.02, 8)), made(done(0.1, 0.02, None), Outcome(error="silent"))
    assert differences(a, a) == []
    assert differences(a, b | {"model": "other"}) == [
        "model: m and other", "tokens_counted_by: usage and events", "of B's 4 requests 1 failed",
    ]  # fmt: skip


@pytest.mark.parametrize("found", [[], {}, {"schema": 2}, {"schema": 1}, "text", None])
def test_another_file_is_no_report(found: Any) -> None:
    with pytest.raises(ConfigError, match=r"a\.json is no report of this benchmark"):
        checked(found, "a.json")
