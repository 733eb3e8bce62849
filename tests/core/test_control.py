"""What the watchdog is told, over the socket that it asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sidecar.control import Control, listening, witness
from sidecar.errors import MemoryPressure
from sidecar.gate import Gate
from sidecar.generation import GenerationRequest
from sidecar.metrics import Metrics
from sidecar.own_memory import Own
from sidecar.pressure import TAKES
from sidecar.service import Service
from sidecar.shelf import ServedModel, only
from tests.fakes.engine import ScriptedEngine, loading

Ask = Callable[[bytes], Awaitable[bytes]]

MODEL = ServedModel("scripted")


def served(path: Path, story: Callable[[Service, ScriptedEngine, Ask, Control], Awaitable[None]]) -> None:
    """Run the story beside a service whose control socket is `path`."""

    async def ask(question: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(question)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        return answer

    async def all_of_it() -> None:
        engine = ScriptedEngine()
        service = Service(only(MODEL, engine), MODEL, Gate(), Metrics(CollectorRegistry()))
        async with listening(service, path) as control:
            assert control is not None
            await story(service, engine, ask, control)

    asyncio.run(all_of_it())


async def report(ask: Ask) -> dict[str, Any]:
    told = json.loads(await ask(b'{"ask": "report"}\n'))
    assert isinstance(told, dict)
    return told


def test_the_report_follows_the_service(tmp_path: Path) -> None:
    async def story(service: Service, engine: ScriptedEngine, ask: Ask, control: Control) -> None:
        engine.set_state(loading())
        first = await report(ask)
        assert first["phase"] == loading().phase
        engine.set_state()
        ready = await report(ask)
        assert (ready["phase"], ready["running"], ready["waiting"]) == ("ready", 0, 0)
        assert ready["boot_id"] == first["boot_id"] == control.boot_id
        service.gate.drain()
        assert (await report(ask))["phase"] == "draining"

    served(tmp_path / "control.sock", story)


def test_the_next_boot_tells_what_became_of_the_running_answers(tmp_path: Path) -> None:
    async def first(service: Service, engine: ScriptedEngine, ask: Ask, control: Control) -> None:
        assert (await report(ask))["last_drain"] is None
        request = GenerationRequest("r", "[hold:2]", 16, deadline_s=30.0)
        stream = service.stream(request)
        await anext(stream)
        control.drained(await service.drain(0.01))
        with pytest.raises(Exception, match="cut"):
            async for _ in stream:
                pass

    async def second(service: Service, engine: ScriptedEngine, ask: Ask, control: Control) -> None:
        told = await report(ask)
        assert (told["last_drain"]["finished"], told["last_drain"]["cut"]) == (0, 1)
        assert told["last_drain"]["boot_id"] != told["boot_id"]

    served(tmp_path / "control.sock", first)
    served(tmp_path / "control.sock", second)


@pytest.mark.parametrize(
    "question",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"report\n",
        b'{"ask": "stop"}\n',
        b'{"ask": "warn", "lease_s": "long"}\n',
        b"[" * 1000 + b"\n",
        b"x" * 5000 + b"\n",
        b"\xff\n",
    ],
)
def test_what_is_no_question_gets_no_answer(tmp_path: Path, question: bytes) -> None:
    async def story(service: Service, engine: ScriptedEngine, ask: Ask, control: Control) -> None:
        with contextlib.suppress(ConnectionResetError):  # closed before all of it was read
            assert await ask(question) == b""
        assert (await report(ask))["phase"] == "ready"

    served(tmp_path / "control.sock", story)


def test_a_socket_left_by_a_killed_boot_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.touch()

    async def story(service: Service, engine: ScriptedEngine, ask: Ask, control: Control) -> None:
        assert (await report(ask))["boot_id"] == control.boot_id

    served(path, story)
    assert not path.exists()


def test_a_broken_record_of_the_last_drain_is_none(tmp_path: Path) -> None:
    (tmp_path / "last_drain.json").write_text('{"finished": 1}')

    async def story(service: Service, engine: ScriptedEngine, ask: Ask, control: Control) -> None:
        assert (await report(ask))["last_drain"] is None

    served(tmp_path / "control.sock", story)


def test_a_socket_that_can_not_be_made_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        service = Service(only(MODEL, ScriptedEngine()), MODEL, Gate(), Metrics(CollectorRegistry()))
        async with listening(service, tmp_path / "nowhere" / "control.sock"):
            assert service.phase() == "ready"

    asyncio.run(story())
    assert "CONTROL_SOCKET" in caplog.text


def test_only_the_boot_that_is_meant_obeys(tmp_path: Path) -> None:
    async def story(service: Service, engine: ScriptedEngine, ask: Ask, control: Control) -> None:
        def question(boot_id: str) -> bytes:
            asked = {"ask": "stop_admitting", "boot_id": boot_id, "own_mib": 10600.0, "lease_s": 60}
            return json.dumps(asked).encode() + b"\n"

        assert set((await report(ask))["takes"]) == set(TAKES)
        for boot_id in ("", "another"):
            assert json.loads(await ask(question(boot_id)))["done"] is False
            assert service.refusal() is None
        told = json.loads(await ask(question(control.boot_id)))
        assert (told["done"], told["said"]) == (True, "stop admitting; nothing new is taken")
        assert isinstance(service.refusal(), MemoryPressure)
        after = await report(ask)
        assert (after["phase"], after["rung"]) == ("ready", "stop_admitting")

    served(tmp_path / "control.sock", story)


def test_what_was_not_measured_is_no_witness() -> None:
    assert witness(None) is None
    assert witness(Own(1400.04, "allocator", 1400.0)) == 1400.0
    assert witness(Own(1400.0, "driver", 700.0)) == 1400.0
    assert witness(Own(1400.0, "plan", 1400.0)) is None
    assert witness(Own(1400.0, "resident", 1400.0)) is None
