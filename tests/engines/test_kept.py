"""The card's part of `make gpu-test`, without a card: everything but the last assembly runs here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes import climbing_nvml
from tools.bench import above_cap, gpu, kept, report
from tools.bench.__main__ import DOCUMENT, RESULTS
from tools.bench.high_water import HighWater

FAKE = "tests.fakes.climbing_nvml"
CLIMB_MIB = climbing_nvml.TOP_MIB - climbing_nvml.FIRST_MIB
TOLD = {
    "requests": 40, "tokens_per_s": 812.4, "failed_for_memory": 0, "failures": [], "verdict": "NO LEAK",
    "plan_mib": 1000.0,
}  # fmt: skip
TRIED = {
    "status": 503, "code": "out_of_memory", "should_retry": "false", "message": "Memory ran out",
    "others": 4, "others_served": 4, "served_after": True,
}  # fmt: skip
SPEED = {"card": "Card", "model": "shape", "copy_gb_per_s": 900.0, "runs": []}


def soak(*_: object) -> dict[str, Any]:
    """A soak that lasts until the card's memory has been at its top."""
    assert climbing_nvml.passed_top.wait(30)
    return TOLD


def measured(budget_mib: int = 10752, told: dict[str, Any] = TOLD) -> dict[str, Any]:
    def one(*_: object) -> dict[str, Any]:
        return soak() and told

    wanted = kept.Wanted(budget_mib=budget_mib, streams=(1, 8))
    return kept.measure(wanted, Path("model"), lambda _: None, one, lambda *_: TRIED, FAKE)


def test_the_high_water_mark_is_what_was_highest_and_not_what_others_held() -> None:
    with HighWater(FAKE, every_s=0.001) as seen:
        assert climbing_nvml.passed_top.wait(30)
        assert seen.card() == "Climbing card, driver 580.65"
    assert seen.mib == CLIMB_MIB
    assert seen.looks >= 10


def test_each_soak_stands_beside_the_drivers_figure() -> None:
    found = measured()
    assert [one["streams"] for one in found["soaks"]] == [1, 8]
    assert {one["high_water_mib"] for one in found["soaks"]} == {CLIMB_MIB}
    assert {one["plan_error_percent"] for one in found["soaks"]} == {-10.0}
    assert found["card"] == "Climbing card, driver 580.65"
    assert kept.is_kept(found)


@pytest.mark.parametrize(("budget_mib", "told"), [(CLIMB_MIB - 1, {}), (10752, {"failed_for_memory": 1})])
def test_a_budget_that_is_not_kept_is_said(budget_mib: int, told: dict[str, Any]) -> None:
    assert not kept.is_kept(measured(budget_mib, TOLD | told))
    assert "**no**" in report.render(json.loads(RESULTS.read_text("utf-8")) | {"gpu": SPEED | {
        "kept": measured(budget_mib, TOLD | told)}})  # fmt: skip


def test_the_figures_are_written_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, document = tmp_path / "benchmarks.json", tmp_path / "benchmarks.md"
    results.write_text(RESULTS.read_text("utf-8"))
    document.write_text(DOCUMENT.read_text("utf-8"))
    gpu.write_down(SPEED | {"kept": measured()}, results, document)
    written, before = json.loads(results.read_text("utf-8")), json.loads(RESULTS.read_text("utf-8"))
    assert written["gpu"]["kept"]["machine"]["torch"]
    assert {name: written[name] for name in before if name != "gpu"} == {
        name: before[name] for name in before if name != "gpu"
    }
    text = document.read_text("utf-8")
    assert report.replace(text, report.render(written)) == text
    assert "| 8 | 40 | 812 | 900 MiB | 1000 MiB | -10.0 % | 0 | NO LEAK | yes |" in text
    assert "503 `out_of_memory`; 4 of the others got their whole answer" in text
    assert "| 8 | 40 |" in capsys.readouterr().out


def test_the_soaks_report_is_what_it_prints(tmp_path: Path) -> None:
    """A stand-in that says what it was told; exit code 1 is a report too, another is none."""
    program = tmp_path / "soak.py"
    program.write_text("import json, sys; print(json.dumps(sys.argv[2:])); sys.exit(int(sys.argv[1]))")
    wanted = kept.Wanted(minutes=0.5)
    for code in ("0", "1"):
        told = kept.soaked(wanted, Path("/model"), 8, (sys.executable, str(program), code))
        assert told == [
            "--minutes", "0.5", "--model_path", "/model", "--device", "cuda", "--vram_budget", "10752MiB",
            "--context_size", "1024", "--parallel", "8",
        ]  # fmt: skip
    with pytest.raises(RuntimeError, match="8 streams ended with 78"):
        kept.soaked(wanted, Path("/model"), 8, (sys.executable, str(program), "78"))


# --- the attempt above the cap, on a server that plays the sidecar --------------------------------


class Playing:
    """What /v1/completions says while the cap is lowered, and how the streams end."""

    def __init__(self, *, kills_others: bool = False, fails_after: bool = False) -> None:
        self.lowered = False
        self.was_lowered = asyncio.Event()
        self.long_is_over = asyncio.Event()
        self._kills_others, self._fails_after = kills_others, fails_after

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("stream"):
            return await self._stream(request)
        fails = self.lowered or self._fails_after
        self.long_is_over.set()
        assert len(body["prompt"]) == 100 - 2 * above_cap.SHORT_TOKENS
        error = {"error": {"code": "out_of_memory", "message": "Memory ran out"}}
        headers = {"x-should-retry": "false"} if fails else {}
        return web.json_response(error if fails else {}, status=503 if fails else 200, headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: {}\n\n")
        await self.long_is_over.wait()
        await response.write(b'data: {"error": {}}\n\n' if self._kills_others else b"data: [DONE]\n\n")
        return response

    def lower(self) -> None:
        self.lowered = True

    def restore(self) -> None:
        self.lowered = False


@asynccontextmanager
async def served(answer: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def tried(**how: bool) -> dict[str, Any]:
    async def story() -> dict[str, Any]:
        playing = Playing(**how)
        async with served(playing.answer) as url:
            return await above_cap.attempt(url, 100, playing.lower, playing.restore)

    return asyncio.run(story())


def test_an_attempt_that_costs_one_request() -> None:
    found = tried()
    assert found == TRIED
    assert above_cap.costs_one(found)


def test_an_attempt_that_costs_others_too_is_seen() -> None:
    found = tried(kills_others=True)
    assert (found["others_served"], above_cap.costs_one(found)) == (0, False)


def test_a_server_that_does_not_recover_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(above_cap, "RECOVERS_S", 0.2)
    monkeypatch.setattr(above_cap, "AGAIN_S", 0.01)
    found = tried(fails_after=True)
    assert (found["served_after"], above_cap.costs_one(found)) == (False, False)


WORKER = """
import signal, sys
print("ready", flush=True)
for line in sys.stdin:
    print("went on", flush=True)
"""
TORCH = """
class Properties: total_memory = 1 << 30
class cuda:
    empty_cache = staticmethod(lambda: None)
    get_device_properties = staticmethod(lambda _: Properties)
    memory_reserved = staticmethod(lambda: 96 << 20)
    set_per_process_memory_fraction = staticmethod(lambda share: print(share, flush=True))
"""


def test_a_worker_s_cap_is_lowered_and_restored_by_signals(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    worker = tmp_path / "sidecar" / "worker"
    worker.mkdir(parents=True)
    (worker / "__init__.py").touch()
    (worker.parent / "__init__.py").touch()
    (worker / "__main__.py").write_text(WORKER)
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar.worker"], cwd=tmp_path, text=True,
        env=os.environ | {"PYTHONPATH": str(kept.LOWER_CAP)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == f"{192 / 1024}\n"
    process.send_signal(signal.SIGUSR2)
    assert process.stdout.readline() == "1.0\n"
    said, _ = process.communicate("a step\n", timeout=30)
    assert (said, process.returncode) == ("went on\n", 0)
