"""llama-server's supervision: a real process, a real port, and a fake program that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import uvloop

from sidecar.engine import Failed, Loading, Ready
from sidecar.engines.llama_boot import LEASH
from sidecar.errors import (
    BadRequest,
    ContextOverflow,
    EngineCrashed,
    EngineFault,
    EngineStalled,
    NotReady,
    SidecarError,
    Unsupported,
)
from sidecar.generation import Delta, Done, Finished, Function, GenerationRequest, Message, Started, Tools
from sidecar.gpu import GpuLook, GpuReading, GpuUnreadable, look
from sidecar.llama_args import HTTP_THREADS, QUESTIONS_AT_ONCE
from sidecar.planning import Target, target
from sidecar.settings import load
from tests.engines.llama.driving import (
    LONG,
    alive,
    answer,
    begun,
    children,
    engine,
    failed,
    halted,
    pid_of,
    profile,
    ready,
    rest,
    run,
    text_of,
    until,
)
from tests.fakes import hung_nvml

DAMAGED = (
    "0.00.111.437 E llama_model_load: error loading model: missing tensor 'output.weight'\n"
    "0.00.116.562 E srv    load_model: failed to load model, '/models/mt.gguf'\n"
    "0.00.117.255 E srv  llama_server: exiting due to model loading error\n"
)


def test_an_answer_comes_as_started_deltas_finished_done() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            events = await answer(made, "[say:one two]")
            assert [type(event) for event in events] == [Started, Delta, Delta, Finished, Done]
            assert text_of(events) == "one two"
            done = events[-1]
            assert isinstance(done, Done)
            assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (len("[say:one two]"), 2)

    run(test)


def test_three_choices_over_two_slots_are_one_stream() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            events = await answer(made, "[say:one two three]", n=3)
            assert sum(isinstance(event, Started) for event in events) == 1
            assert {text_of(events, choice) for choice in range(3)} == {"one two three"}
            assert events[-1].usage.completion_tokens == 9

    run(test)


def test_one_choice_that_fails_ends_them_all() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            with pytest.raises(EngineCrashed):
                await answer(made, "[early:1]", n=3)
            assert text_of(await answer(made, "[say:well]")) == "well"

    run(test)


def test_before_it_is_ready_it_says_so() -> None:
    async def test() -> None:
        async with engine("never-ready") as made:
            await until(lambda: made.child_pid is not None, "started")
            with pytest.raises(NotReady, match="not ready yet"):
                await made.price(GenerationRequest("a", "x"))

    run(test)


def test_one_that_is_killed_in_mid_stream_is_a_typed_error_and_comes_back() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            events, pid = await begun(made, LONG), pid_of(made)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineCrashed):
                await rest(events)
            await until(lambda: isinstance(made.state(), Ready) and pid_of(made) != pid, "another one")
            assert text_of(await answer(made, "[say:again]")) == "again"

    run(test)


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        ("[crash:1]", EngineCrashed, "died"),
        ("[cut:1]", EngineCrashed, "died"),
        ("[early:1]", EngineCrashed, "died"),
        ("[half]", EngineCrashed, "died"),
        ("[junk:1]", EngineFault, "can not be read"),
        ("[long:1]", EngineFault, "more than 1048576 bytes"),
        ("[error:1]", SidecarError, "Context size has been exceeded"),
        ("[status:500]", EngineFault, "refused by script"),
        ("[status:400]", BadRequest, "refused by script"),
        ("[status:404]", EngineFault, "refused by script"),
        ("[status:503]", NotReady, "refused by script"),
        ("[html]", EngineFault, "status 502 without a reason"),
    ],
)
def test_whatever_it_answers_is_an_error_of_ours_and_the_next_answer_is_whole(
    script: str, error: type[SidecarError], text: str
) -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            with pytest.raises(error, match=text):
                await answer(made, script)
            await until(lambda: isinstance(made.state(), Ready), "ready again")
            # Where it crashed, its end may be noticed only now.
            await made.price(GenerationRequest("x", "x"))
            assert text_of(await answer(made, "[say:well]")) == "well"

    run(test)


def test_what_it_started_does_not_outlive_it() -> None:
    """On the product's own loop: asyncio's waits for the end of a pipe that the grandchild holds open."""

    async def test() -> None:
        async with engine("orphan") as made:
            await ready(made)
            (grandchild,) = psutil.Process(pid_of(made)).children()
            os.kill(pid_of(made), signal.SIGKILL)
            await until(lambda: not alive(grandchild.pid), "its own child is gone")
            await ready(made)

    uvloop.run(test())


def test_prompts_that_are_priced_while_it_dies_ask_the_next_one() -> None:
    """More than are asked at once: who waits for a turn, too."""

    async def test() -> None:
        async with engine() as made:
            await ready(made)
            await halted(pid_of(made))
            requests = [GenerationRequest(f"p{i}", "four") for i in range(3 * QUESTIONS_AT_ONCE)]
            pricing = asyncio.gather(*map(made.price, requests))
            await asyncio.sleep(0)
            os.kill(pid_of(made), signal.SIGKILL)
            assert [price.prompt_tokens for price in await pricing] == [4] * len(requests)

    run(test)


def test_a_request_that_only_waited_does_not_notice_a_restart() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            request = GenerationRequest("queued", "[say:still here]")
            await made.price(request)
            os.kill(pid_of(made), signal.SIGKILL)
            await until(lambda: not isinstance(made.state(), Ready), "its death is noticed")
            assert text_of([event async for event in made.stream(request)]) == "still here"

    run(test)


def test_one_that_died_unheard_is_not_asked_over_the_connection_that_it_left() -> None:
    """The loop has not had its turn since it died: only the kernel knows that the connection is closed."""

    async def test() -> None:
        async with engine() as made:
            await ready(made)
            request, pid = GenerationRequest("next", "[say:still here]"), pid_of(made)
            await made.price(request)
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # asyncio's watcher was sooner
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert text_of([event async for event in made.stream(request)]) == "still here"
            assert pid_of(made) != pid

    run(test)


def test_a_connection_that_it_closed_without_a_word_is_replaced() -> None:
    async def test() -> None:
        async with engine("patience:0.05") as made:
            await ready(made)
            request, server = GenerationRequest("slow", "[say:still here]"), psutil.Process(pid_of(made))
            await made.price(request)
            await until(lambda: all(not link.raddr for link in server.net_connections()), "all are closed")
            assert text_of([event async for event in made.stream(request)]) == "still here"

    run(test)


def test_an_embedding_that_kills_it_is_not_tried_again() -> None:
    async def test() -> None:
        async with engine(served=profile(pooling="mean")) as made:
            await ready(made)
            with pytest.raises(EngineCrashed):
                await made.embed(["[crash]"])
            await until(lambda: isinstance(made.state(), Loading), "its death is noticed")
            await ready(made)

    run(test)


def test_embeddings_keep_the_order_of_many_inputs() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            found = await made.embed([*("x" * length for length in range(1, 40)), (5, 6)])
            assert [vector[0] for vector in found.vectors] == [*range(1, 40), 2]
            assert found.prompt_tokens == sum(range(1, 40)) + 2

    run(test)


def test_one_that_never_loads_is_given_up_and_the_reason_is_told() -> None:
    async def test() -> None:
        async with engine("die", stderr=DAMAGED) as made:
            state = await failed(made)
            assert state.exit_code is None
            assert "died 3 times before it was ever ready, last with exit code 1" in state.reason
            assert "missing tensor 'output.weight' (the GGUF is damaged" in state.reason
            with pytest.raises(NotReady, match="can not be served"):
                await made.price(GenerationRequest("a", "x"))

    run(test)


def test_one_bad_start_is_only_a_reason_to_start_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with engine(
            f"die-once:{tmp_path / 'died'}", stderr="couldn't bind HTTP server socket\n"
        ) as made:
            told = []
            while not isinstance(made.state(), Ready):
                told.append(made.state())
                await asyncio.sleep(0)
            details = [state.detail for state in told if isinstance(state, Loading)]
            assert any("after exit code 1: couldn't bind" in detail for detail in details)

    run(test)


@pytest.mark.parametrize("how", ["never-ready", "deaf"])
def test_one_that_is_not_ready_in_time_is_replaced_and_says_so(how: str) -> None:
    async def test() -> None:
        async with engine(how, served=profile(ready_deadline_s=0.5), lives=2) as made:
            assert "it was not ready within 0.5 s (ready_deadline_s)" in (await failed(made)).reason
        await until(lambda: children() == [], "nobody is left")

    run(test)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("no-props", "it did not say what it serves: The engine failed: File Not Found"),
        ("bad-props", "it did not say what it serves: it does not say how large"),
        ("die-at-props", "missing tensor"),
    ],
)
def test_one_that_is_healthy_and_then_strange_is_tried_again_and_given_up(how: str, text: str) -> None:
    async def test() -> None:
        async with engine(how, stderr=DAMAGED, lives=2) as made:
            state = await failed(made)
            assert "died 2 times" in state.reason
            assert text in state.reason

    run(test)


@pytest.mark.parametrize("script", ["[stop:1]", "[stuck:1]"])
def test_one_that_says_nothing_is_replaced(script: str) -> None:
    async def test() -> None:
        async with engine(stall_s=2.0) as made:
            await ready(made)
            pid = pid_of(made)
            with pytest.raises(EngineStalled, match="for 2 s"):
                await answer(made, script)
            await until(lambda: isinstance(made.state(), Ready) and pid_of(made) != pid, "another one")
            assert not alive(pid)

    run(test)


def test_an_idle_one_that_stands_still_is_replaced_too() -> None:
    async def test() -> None:
        async with engine(stall_s=2.0) as made:
            await ready(made)
            pid = pid_of(made)
            await halted(pid)
            # Priced by the next one: nobody need know.
            assert (await made.price(GenerationRequest("a", "four"))).prompt_tokens == 4
            assert pid_of(made) != pid

    run(test)


def test_a_stream_that_falls_silent_while_its_loop_lives_is_the_requests_own_affair() -> None:
    async def test() -> None:
        async with engine(stall_s=2.0) as made:
            await ready(made)
            pid = pid_of(made)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await answer(made, "[mute:1]")
            assert pid_of(made) == pid
            assert text_of(await answer(made, "[say:well]")) == "well"

    run(test)


def test_a_context_that_is_smaller_than_planned_is_the_one_that_counts() -> None:
    async def test() -> None:
        async with engine("small:100") as made:
            await ready(made)
            state = made.state()
            assert isinstance(state, Ready)
            assert state.capacity.context == 100
            with pytest.raises(ContextOverflow, match="100 tokens"):
                await made.price(GenerationRequest("a", "x" * 101))

    run(test)


def test_a_crowd_of_prompts_takes_no_more_of_its_threads_than_it_was_given(tmp_path: Path) -> None:
    async def test() -> None:
        served, crowd = profile(), tmp_path / "crowd"
        async with engine(f"crowd:{crowd}", served=served) as made:
            await ready(made)
            requests = [GenerationRequest(f"c{i}", "[say:one two]") for i in range(32)]
            await asyncio.gather(*map(made.price, requests))
            streams = await asyncio.gather(*(rest(made.stream(r)) for r in requests[: served.slots]))
            assert [text_of(events) for events in streams] == ["one two"] * served.slots
        assert max(map(int, crowd.read_text().split())) <= served.slots + HTTP_THREADS

    run(test)


def test_a_template_that_says_no_is_the_clients_mistake() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            with pytest.raises(BadRequest, match=r"template refuses these messages.*roles must alternate"):
                await made.price(GenerationRequest("a", (Message("user", "[refuse]"),)))

    run(test)


@pytest.mark.parametrize("script", [(), ("stubborn",), ("orphan",), ("orphan", "stubborn"), ("never-ready",)])
def test_stop_leaves_nobody_behind(script: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.engines.llamaserver.STOP_GRACE_S", 0.5)

    others = {c.pid for c in psutil.Process().children(recursive=True)}

    async def test() -> None:
        async with engine(*script) as made:
            if "never-ready" in script:
                await until(lambda: made.child_pid is not None, "started")
            else:
                await ready(made)
            mine = [c for c in psutil.Process().children(recursive=True) if c.pid not in others]
            assert len(mine) == 1 + ("orphan" in script)
        assert made.child_pid is None
        # What the child started is not ours to wait for: it was killed, and dies when the kernel comes to it.
        await until(lambda: not any(alive(process.pid) for process in mine), "all of them are gone")
        assert made.stats().resident_bytes == 0

    run(test)


def test_stop_at_any_moment_leaves_nobody_behind() -> None:
    async def test() -> None:
        for turns in range(0, 400, 23):
            async with engine() as made:
                for _ in range(turns):
                    await asyncio.sleep(0)
                    if turns > 200:
                        await asyncio.sleep(0.001)
            # One that was asked for its flags is killed, and may be on its way out.
            await until(lambda: children() == [], "nobody is left")
            assert not isinstance(made.state(), Ready)

    run(test)


def test_two_stops_at_once_and_one_that_is_given_up_end_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.engines.llamaserver.STOP_GRACE_S", 0.5)

    async def test() -> None:
        async with engine("stubborn") as made:
            await ready(made)
            events, pid = await begun(made, LONG), pid_of(made)
            stops = [asyncio.create_task(made.stop()) for _ in range(3)]
            await asyncio.sleep(0)
            stops[0].cancel()
            stops[1].cancel()
            with pytest.raises(EngineCrashed, match="stopped"):
                await rest(events)
            await stops[2]
            assert not alive(pid)
            with pytest.raises(NotReady):
                await made.price(GenerationRequest("a", "x"))

    run(test)


def test_who_waits_for_a_restart_is_told_when_it_is_called_off() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            request = GenerationRequest("queued", "x")
            await made.price(request)
            os.kill(pid_of(made), signal.SIGKILL)
            await until(lambda: not isinstance(made.state(), Ready), "its death is noticed")
            waiting = asyncio.create_task(anext(made.stream(request)))
            await asyncio.sleep(0)
            await made.stop()
            with pytest.raises(NotReady):
                await waiting

    run(test)


def test_many_lives_leave_no_process_and_no_descriptor() -> None:
    async def test() -> None:
        own = psutil.Process()
        async with engine() as made:
            await ready(made)
        before = own.num_fds()
        for _ in range(3):
            async with engine() as made:
                await ready(made)
                await answer(made, "one")
                await (await begun(made, LONG)).aclose()
        assert own.num_fds() <= before
        await until(lambda: children() == [], "nobody is left")

    run(test)


@pytest.mark.parametrize(
    ("binary", "script", "text"),
    [
        ("/bin/true", "", "is no llama-server that runs here"),
        ("/no/such/program", "", "can not be run: No such file"),
        ("", "other-program", "to --help it says 'usage: other"),
        ("", "endless", "is no llama-server that runs here"),
        ("", "old-flags", "needs --ctx-size"),
    ],
)
def test_a_program_that_can_not_serve_is_final_at_once(binary: str, script: str, text: str) -> None:
    async def test() -> None:
        async with engine(script, binary=binary or None) as made:
            state = await failed(made)
            assert text in state.reason
            assert state.exit_code == 78
        await until(lambda: children() == [], "nobody is left")

    run(test)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_card_that_was_asked_for_and_is_not_there_is_not_passed_over(device: str) -> None:
    async def test() -> None:
        async with engine(device=device) as made:
            state = await failed(made)
            assert state.exit_code == 78
            assert re.search(
                f"DEVICE is {device}, but .* sees no card .*accepted here: auto, cpu", state.reason
            )
        async with engine("card", device=device) as made:
            await ready(made)

    run(test)


def test_no_more_context_is_set_aside_than_the_model_was_made_for() -> None:
    async def test() -> None:
        async with engine(served=profile(ctx_size=5000)) as made:
            await ready(made)
            state = made.state()
            assert isinstance(state, Ready)
            assert state.capacity.context == 2048
            words = psutil.Process(pid_of(made)).cmdline()
            assert words[words.index("--ctx-size") + 1] == "4096"  # of two slots

    run(test)


CARD = GpuReading(0, "card", "GPU-0", 0, 6077 << 20, None)
BLIND = GpuUnreadable("no driver")


@pytest.mark.parametrize(
    ("script", "device", "seen", "budget", "served"),
    [
        ("card", "auto", (CARD,), "384MiB", False),
        ("card", "cpu", (CARD,), "384MiB", True),
        ("", "auto", (CARD,), "384MiB", True),
        ("card", "auto", BLIND, "384MiB", False),
        ("card", "auto", BLIND, "768MiB", True),
        ("card", "auto", (replace(CARD, memory_total_bytes=384 << 20),), "10GiB", False),
        ("card", "auto", (CARD,), "10GiB", True),
    ],
)
def test_a_profile_that_does_not_fit_its_card_is_not_started(
    script: str, device: str, seen: GpuLook, budget: str, served: bool
) -> None:
    held_to = held(seen, budget)

    async def test() -> None:
        async with engine(script, device=device, held_to=held_to) as made:
            if served:
                await ready(made)
                state = made.state()
                assert isinstance(state, Ready)
                assert state.plan is not None
                assert state.plan.full_contexts == state.capacity.slots
                assert script or state.plan.budget_mib is None
                return
            state = await failed(made)
            assert "weights, workspace and CUDA context are 4" in state.reason
            assert "use a budget of 4" in state.reason
            assert state.exit_code == 78
        await until(lambda: children() == [], "nobody is left")

    run(test)


def held(seen: GpuLook, budget: str) -> Callable[[bool], Target]:
    settings = load(["--vram_budget", budget], {})
    return lambda on_gpu: target(profile(), settings, seen, 16384, on_card=on_gpu)


def test_a_driver_that_does_not_answer_holds_up_no_start() -> None:
    def held_to(on_gpu: bool) -> Target:
        return held(look("tests.fakes.hung_nvml", deadline_s=0.05), "768MiB")(on_gpu)

    async def test() -> None:
        async with engine("card", held_to=held_to) as made:
            await ready(made)

    hung_nvml.answers.clear()
    try:
        run(test)
    finally:
        hung_nvml.answers.set()


@pytest.mark.parametrize("shown", [True, False])
def test_tools_that_its_template_does_not_show_are_refused_by_name(shown: bool) -> None:
    asked = GenerationRequest("a", (Message("user", "hi"),), tools=Tools((Function("f"),)))

    async def test() -> None:
        able = profile().model_copy(update={"supports_tools": True})
        async with engine(*([] if shown else ["no-tools"]), served=able) as made:
            await ready(made)
            state = made.state()
            assert isinstance(state, Ready)
            assert ("tools" in dict(state.about)) is not shown
            if shown:
                assert (await made.price(asked)).prompt_tokens
                return
            with pytest.raises(Unsupported, match="chat template does not show them") as refused:
                await made.price(asked)
            assert refused.value.param == "tools"

    run(test)


def test_no_secret_and_nobodys_wishes_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = (
        "API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "TOGETHER_API_KEY", "LITELLM_MASTER_KEY", "GRAFANA_PASSWORD",
        "DATABASE_URL", "NVIDIA_API_KEY", "AWS_SECRET_ACCESS_KEY",
    )  # fmt: skip
    wishes = (
        "LLAMA_ARG_CTX_SIZE", "LLAMA_LOG_FILE", "LLAMA_MEDIA_MARKER", "LLAMA_SERVER_PATH",
        "MTMD_BACKEND_DEVICE", "AIP_MODE", "AIP_HTTP_PORT",
    )  # fmt: skip
    for name in (*secrets, *wishes):
        monkeypatch.setenv(name, "theirs")
    needed = {"LC_TIME": "C.UTF-8", "OMP_WAIT_POLICY": "passive", "CUDA_CACHE_MAXSIZE": "1", "TZ": "UTC"}
    for name, value in needed.items():
        monkeypatch.setenv(name, value)

    async def test() -> None:
        async with engine() as made:
            await ready(made)
            given = psutil.Process(pid_of(made)).environ()
            assert "theirs" not in given.values()
            assert needed.items() <= given.items()
            assert (given["PATH"], given.get("HOME")) == (os.environ["PATH"], os.environ.get("HOME"))
            key = given["LLAMA_API_KEY"]
            assert len(key) > 40
            assert key not in " ".join(psutil.Process(pid_of(made)).cmdline())

    run(test)


PARENT = """
import asyncio, sys
sys.path.insert(0, {root!r})
from tests.engines.llama.driving import engine, ready, pid_of
async def main():
    async with engine("stubborn") as made:
        await ready(made)
        print(pid_of(made), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


def test_a_parent_that_is_killed_takes_it_along() -> None:
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=root)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
        psutil.wait_procs([psutil.Process(pid)] if alive(pid) else [], timeout=10)
        assert not alive(pid)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["/bin/sh", "-c", "exit 7"], 7, ""),
        (["/no/such/program"], 127, "/no/such/program: No such file or directory"),
    ],
)
def test_the_leash_is_the_command_or_says_why_not(command: list[str], code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", LEASH, str(os.getpid()), *command], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (code, words)


def test_the_leash_starts_nothing_for_a_parent_that_is_gone() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", LEASH, "1", "/bin/echo", "here"], capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")


def test_failed_is_not_touched_by_stop() -> None:
    async def test() -> None:
        async with engine("old-flags") as made:
            state = await failed(made)
        assert made.state() == state
        assert isinstance(made.state(), Failed)

    run(test)
