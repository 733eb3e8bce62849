"""What of a soak needs no server: the mix, the slope, the verdict, the report."""

from __future__ import annotations

import io
import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from sidecar.soak import figures
from sidecar.soak.mix import ANSWER_IDS, LEAST_CONTEXT, SHAPES, ask, asks
from sidecar.soak.report import Report, Sizes, Tally, as_json, finished
from sidecar.soak.report_text import show
from sidecar.soak.slope import Slope, theil_sen, thinned, verdict, warmed_up
from tests.typed import typed

CONTEXTS = st.integers(LEAST_CONTEXT, 4096)


@given(st.integers(0, 99), st.integers(0, 10_000), CONTEXTS)
def test_no_request_of_the_mix_is_longer_than_the_context(seed: int, index: int, context: int) -> None:
    one = ask(seed, index, context)
    assert 0 < len(one.prompt) < context
    assert 0 < one.max_tokens < context
    assert one.reserved_tokens <= context
    assert one == ask(seed, index, context)


@given(st.integers(0, 99), st.integers(64, 2048))
@settings(max_examples=5)
def test_the_mix_is_as_bad_as_it_should_be(seed: int, context: int) -> None:
    found = list(islice(asks(seed, context), 20 * len(SHAPES)))
    reserved = [one.reserved_tokens for one in found]
    assert sum(tokens == context for tokens in reserved) == 20 * 6
    assert max(len(one.prompt) for one in found) >= context * 7 // 8
    assert max(one.max_tokens for one in found) >= context * 7 // 8
    assert {one.streamed for one in found} == {True, False}
    assert 0 < sum(one.leaves_at is not None for one in found) < len(found) / 2


def test_prompts_share_a_beginning_and_others_do_not() -> None:
    found = list(islice(asks(1, 512), 80))
    beginnings = [one.prompt[:48] for one in found if len(one.prompt) >= 64]
    times = {beginnings.count(one) for one in beginnings}
    assert 1 in times
    assert max(times) > 2


def test_an_answer_can_not_end_early() -> None:
    body = ask(1, 1, 512).body()
    assert body["logit_bias"] == {str(id): 100 for id in ANSWER_IDS}
    assert body["max_tokens"] == 512 - len(body["prompt"])


POINTS = st.lists(
    st.tuples(st.integers(0, 50).map(float), st.integers(-20, 20).map(float)), min_size=2, max_size=40
).filter(lambda points: len({x for x, _ in points}) > 1)


@given(POINTS)
def test_the_slope_is_scipys(points: list[tuple[float, float]]) -> None:
    found = theil_sen(points)
    assert found is not None
    xs, ys = zip(*points, strict=True)
    assert found.middle == pytest.approx(stats.theilslopes(ys, xs).slope)
    assert found.low <= found.middle <= found.high


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_the_interval_is_scipys(seed: int) -> None:
    draw = random.Random(seed)
    points = [(float(x), 0.3 * x + draw.gauss(0, 5)) for x in range(30)]
    found, (ys, xs) = theil_sen(points), ([y for _, y in points], [x for x, _ in points])
    theirs = stats.theilslopes(ys, xs, 0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((theirs.low_slope, theirs.high_slope))


@given(st.floats(-5, 5), st.floats(-1000, 1000), st.integers(3, 60))
def test_a_line_has_its_own_slope(rate: float, start: float, count: int) -> None:
    found = theil_sen([(float(x), start + rate * x) for x in range(count)])
    assert found is not None
    assert (found.low, found.middle, found.high) == pytest.approx((rate, rate, rate), abs=1e-6)


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)]])
def test_of_one_x_there_is_no_slope(points: list[tuple[float, float]]) -> None:
    assert theil_sen(points) is None


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=500), st.integers(1, 100))
def test_thinned_points_are_few_and_lie_between_the_others(
    points: list[tuple[float, float]], most: int
) -> None:
    found = thinned(points, most)
    assert len(found) <= most
    assert bool(found) == bool(points)
    for values, all_values in zip(zip(*found, strict=True), zip(*points, strict=True), strict=True):
        assert min(all_values) <= min(values) <= max(values) <= max(all_values)


def samples(requests: int, per_1000: float, step_mib: float = 0.0) -> list[tuple[float, int, float]]:
    """Ten requests a second: a warm-up of 40 MiB in the first 400, then growth and a saw of 2 MiB."""
    found = []
    for count in range(0, requests, 5):
        warm_mib = min(count, 400) / 10
        step = step_mib if count > requests * 0.8 else 0.0
        found.append((count / 10, count, 100 + warm_mib + per_1000 * count / 1000 + count % 3 + step))
    return found


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (samples(3000, per_1000=20), "LEAK"),
        (samples(3000, per_1000=5), "LEAK"),
        (samples(20_000, per_1000=1.5), "LEAK"),
        (samples(20_000, per_1000=0.5), "NO LEAK"),
        (samples(3000, per_1000=0), "NO LEAK"),
        (samples(3000, per_1000=-20), "NO LEAK"),
        (samples(3000, per_1000=0, step_mib=8), "NO LEAK"),
        (samples(700, per_1000=1), "TOO SHORT TO SAY"),
        (samples(900, per_1000=100), "TOO SHORT TO SAY"),
        (samples(60, per_1000=0), "TOO SHORT TO SAY"),
        ([], "TOO SHORT TO SAY"),
    ],
)
def test_the_verdict(seen: list[tuple[float, int, float]], word: str) -> None:
    assert verdict(warmed_up(seen, 500), 500) == word


def test_the_warm_up_is_500_requests_or_the_first_fifth() -> None:
    assert warmed_up(samples(3000, 0), 500)[0][0] == 500
    assert warmed_up(samples(300, 0), 500)[0][0] == 60
    assert warmed_up([], 500) == []


def made(**changes: object) -> Report:
    """A report of an hour in which all was well."""
    tally = Tally(tokens=1000, engine=samples(3000, 0), sidecar=samples(3000, 0))
    tally.outcomes.update({"success": 90, "cancelled": 10})
    tally.engine_peak_mib, tally.sidecar_peak_mib = 450.0, 90.0
    tally.kv_shares, tally.running, tally.waiting = [0.8, 0.9], [15, 16], [2, 2]
    tally.ran_s, tally.waited_s = 3.0, 12.5
    sizes = Sizes("cpu", budget_mib=512, plan_mib=440, context=512, slots=16)
    for name, value in changes.items():
        setattr(tally, name, value)
    return finished(sizes, 60, tally, [2.0] * 99 + [40.0])


def test_a_report_in_which_all_is_well() -> None:
    told = as_json(made())
    assert told["well"] is True
    assert (told["requests"], told["failed_for_memory"], told["tokens_per_s"]) == (100, 0, 16.7)
    assert (told["high_water_mib"], told["never_above_budget"], told["plan_error_percent"]) == (
        450,
        True,
        2.3,
    )
    assert (told["kv_reserved_share"], told["running_mean"], told["verdict"]) == (0.85, 15.5, "NO LEAK")
    assert told["health_ms"] == {"asked": 100, "failed": 0, "p50": 2.0, "p99": 2.0, "max": 40.0}
    assert set(told["mib_per_1000_requests"]) == {"engine", "sidecar"}


def test_what_is_not_well_is_said() -> None:
    above = made(engine_peak_mib=512.5)
    assert above.within_budget is False
    assert "512 MiB are above the budget of 512" in above.failures[0]
    assert made(engine=samples(3000, 20)).failures == ("the memory grows with the requests",)
    assert made(sidecar=samples(3000, 20)).verdict == "LEAK"
    no_answer = Tally()
    no_answer.over("out_of_memory", "needed 12 MiB")
    assert made(outcomes=no_answer.outcomes, messages=no_answer.messages).failures == (
        "1 ended as out_of_memory: needed 12 MiB", "no request was answered whole",
    )  # fmt: skip


def test_what_was_not_seen_is_not_known() -> None:
    told = as_json(finished(Sizes(), 1, Tally(), []))
    assert told["verdict"] == "TOO SHORT TO SAY"
    for name in ("high_water_mib", "never_above_budget", "plan_error_percent", "kv_reserved_share"):
        assert told[name] is None
    assert told["health_ms"]["p50"] is None


def test_a_person_reads_it() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    show(console, made(engine=samples(3000, 20)))
    text = console.export_text()
    for words in ("never above the budget  yes (512 MiB)", "verdict                 LEAK", "85% on average",
                  "p99 2.0 ms", "waited 12.5 s for a processor", "not well: the memory grows"):  # fmt: skip
        assert words in text


def test_on_a_card_the_budget_is_about_the_card() -> None:
    tally = Tally(card=[(0, 0, 9000.0), (1, 5, 10_000.0)], engine_peak_mib=20_000.0)
    report = finished(Sizes("cuda", budget_mib=10_752, plan_mib=9800), 60, tally, [])
    assert (report.high_water_mib, report.within_budget) == (10_000, True)


GAUGES = """\
# HELP llm_sidecar_kv_tokens_total Tokens.
llm_sidecar_kv_tokens_total 32768.0
llm_sidecar_kv_tokens_reserved 29491.2
llm_sidecar_vram_budget_bytes 1.1274289152e+010
llm_sidecar_vram_used_bytes{scope="card"} 2.147483648e+09
llm_sidecar_vram_used_bytes{scope="own"} 1.073741824e+09
"""


def test_what_a_sidecar_says_of_itself() -> None:
    load = figures.load({"requests_running": 3, "requests_waiting": 2}, GAUGES)
    assert (load.running, load.waiting, load.kv_share) == (3, 2, pytest.approx(0.9))
    assert figures.used_mib(GAUGES) == 1024
    plan = {"context": 2048, "slots": 4, "total_mib": 9000.5}
    said = figures.said({"plan": plan, "device": "cuda"}, GAUGES)
    assert (said.context, said.slots, said.plan_mib, said.budget_mib) == (2048, 4, 9000.5, 10_752)
    older = figures.said({"device": "cpu"}, "")
    assert (older.context, older.budget_mib) == (None, None)
    assert figures.load({}, "").kv_share is None


@pytest.mark.parametrize(
    "flags",
    [
        ("--minutes", "0"),
        ("--minutes", "nan"),
        ("--minutes", "ten"),
        ("--warm-up", "0"),
        ("--clients", "0"),
        ("--clients", "513"),
        ("--clients", "all"),
        ("--clients", "9" * 5000),
        ("--warm-up", "9" * 5000),
        ("--url", "localhost:8000"),
        ("--url", "https://a"),
        ("--url", "http://a/v1"),
        ("--pid", "12"),
        ("--url", "http://a", "--pid", "-1"),
        ("--url", "http://a", "--pid", "9" * 5000),
    ],
)
def test_a_flag_that_can_not_be_used_is_one_line(flags: tuple[str, ...]) -> None:
    code, said, wrong = typed("soak", *flags)
    assert (code, said, wrong.count("\n")) == (78, "", 1)
    assert "can not be used; accepted: " in wrong


def test_an_interval_holds_the_middle() -> None:
    assert Slope(1, 0, 2, 9, 50).times(10) == Slope(10, 0, 20, 9, 50)
