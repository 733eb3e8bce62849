"""What a real llama-server says when it can not start, told as the sidecar tells it; and its ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sidecar import embedded, gguf
from sidecar.engine import Ready
from sidecar.engines import llama_binary
from sidecar.engines.last_words import last_words
from sidecar.errors import EngineStalled
from sidecar.generation import GenerationRequest
from sidecar.profiles import Profile
from tests.engines.llama.driving import (
    alive,
    answer,
    begun,
    children,
    engine,
    failed,
    pid_of,
    profile,
    ready,
    run,
    text_of,
    until,
)

pytestmark = pytest.mark.llama
WHOLE = embedded.GGUF_Q8_0


def small(**block: object) -> Profile:
    """One thread each: two would wait for each other on a busy machine."""
    return profile(threads=1, threads_batch=1, **block)


def said(program: str, model: Path, *flags: str, limit_kib: int | None = None) -> str:
    """What the program says of a start that fails, in the sidecar's words."""
    limit = f"ulimit -v {limit_kib};" if limit_kib else ""
    command = [program, "-m", str(model), "--host", "127.0.0.1", "--port", "0", "-t", "1", "--fit", "off"]
    script = f'{limit} exec "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *command, *flags],
        capture_output=True, text=True, timeout=60, env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    return last_words(done.stderr.splitlines()[-100:])


def edited(folder: Path, edit: Callable[[bytes], bytes]) -> Path:
    made = folder / "edited.gguf"
    made.write_bytes(edit(WHOLE.read_bytes()))
    return made


@pytest.mark.parametrize(
    ("edit", "cause", "advice"),
    [
        (lambda data: b"XXXX" + data[4:], "invalid magic characters: 'XXXX'", "is no GGUF"),
        (lambda data: b"", "failed to read magic", "is no GGUF"),
        (lambda data: data[: len(data) // 2], "not within the file bounds", "is cut short"),
        (lambda data: data[:-1], "not within the file bounds", "is cut short"),
        (lambda data: data[:1000], "failed to read key-value pairs", "is cut short"),
        (
            lambda data: data.replace(b"blk.4.ffn_up.weight", b"blk.4.ffn_xx.weight"),
            "tensor 'blk.4.ffn_up.weight' not found", "damaged, incomplete or of another",
        ),
        (
            lambda data: data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0qqqqq", 1),
            "unknown model architecture: 'qqqqq'", "older than the model",
        ),
        (lambda data: data[:4] + b"\x63\0\0\0" + data[8:], "version 99", "older than the model"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(
    llama_server_path: str, tmp_path: Path, edit: Callable[[bytes], bytes], cause: str, advice: str
) -> None:
    words = said(llama_server_path, edited(tmp_path, edit))
    assert cause in words
    assert advice in words


@pytest.mark.parametrize(
    ("flags", "limit_kib", "cause", "advice"),
    [
        (("--n-parallel", "2"), None, "invalid argument: --n-parallel", "does not take one of the flags"),
        (("-ctk", "zzz"), None, "Unsupported cache type: zzz", "does not take one of the flags"),
        (("-fa", "off", "-ctv", "q8_0"), None, "quantized V cache requires", "set flash_attn to on"),
        (("-c", "100000000"), 1_500_000, "", "not enough memory"),
    ],
)
def test_what_it_can_not_do_is_named(
    llama_server_path: str, flags: tuple[str, ...], limit_kib: int | None, cause: str, advice: str
) -> None:
    words = said(llama_server_path, WHOLE, *flags, limit_kib=limit_kib)
    assert cause in words
    assert advice in words


def test_a_port_in_use_is_named(llama_server_path: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = said(llama_server_path, WHOLE, "--port", str(taken.getsockname()[1]))
    assert "couldn't bind HTTP server socket" in words
    assert "another one is tried" in words


def test_our_own_check_of_the_file_and_its_words_come_to_the_same_end(
    llama_server_path: str, tmp_path: Path
) -> None:
    """The header is whole, so the check before the start lets it pass; llama-server does not."""
    model = edited(tmp_path, lambda data: data.replace(b"blk.4.ffn_up.weight", b"blk.4.ffn_xx.weight"))
    gguf.check(model)

    async def test() -> None:
        served = small(model_path=str(model))
        async with engine(binary=llama_server_path, served=served, lives=2) as made:
            reason = (await failed(made)).reason
            assert "tensor 'blk.4.ffn_up.weight' not found (the GGUF is damaged" in reason

    run(test)


def test_a_parent_that_is_killed_takes_the_real_one_along(llama_server_path: str) -> None:
    root = str(Path(__file__).parents[3])
    code = f"""
import asyncio, sys
sys.path.insert(0, {root!r})
from tests.engines.llama.driving import engine, ready, pid_of, profile
async def main():
    served = profile(threads=1, threads_batch=1)
    async with engine(binary={llama_server_path!r}, served=served) as made:
        await ready(made)
        print(pid_of(made), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
        psutil.wait_procs([psutil.Process(pid)] if alive(pid) else [], timeout=10)
        assert not alive(pid)


def test_one_that_stands_still_is_replaced(llama_server_path: str) -> None:
    async def test() -> None:
        async with engine(binary=llama_server_path, served=small(), stall_s=2.0) as made:
            await ready(made)
            pid = pid_of(made)
            request = GenerationRequest("a", "Once upon a time")
            await made.price(request)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(EngineStalled):
                [event async for event in made.stream(request)]
            await until(lambda: isinstance(made.state(), Ready) and pid_of(made) != pid, "another one")
            assert not alive(pid)
            assert text_of(await answer(made, "The capital of France", max_tokens=4))

    run(test)


def test_its_pulse_beats_while_it_works_and_an_answer_that_nobody_wants_ends(llama_server_path: str) -> None:
    """A long prompt and a long answer, and no stall at a tenth of what they take."""

    async def test() -> None:
        async with engine(binary=llama_server_path, served=small(batch_size=64), stall_s=3.0) as made:
            await ready(made)
            pid = pid_of(made)
            events = await begun(made, "Once upon a time there was a king. " * 60)
            await events.aclose()
            # Its two slots serve whoever comes next at once.
            for _ in range(4):
                assert text_of(await answer(made, "The capital of France is", max_tokens=3))
            assert pid_of(made) == pid

    run(test)


def test_stop_in_mid_stream_is_quick_and_leaves_nothing(llama_server_path: str) -> None:
    async def test() -> None:
        async with engine(binary=llama_server_path, served=small()) as made:
            await ready(made)
            await until(lambda: made.stats().resident_bytes > 2**20, "a look at its memory")
            events, pid = await begun(made, "Once upon a time"), pid_of(made)
            async with asyncio.timeout(20):
                await made.stop()
            assert not alive(pid)
            await until(lambda: children() == [], "nobody is left")
            assert made.stats().resident_bytes == 0
            await events.aclose()

    run(test)


def test_of_our_environment_it_has_what_it_needs_and_no_secret(
    llama_server_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AIP_MODE it would listen on port 1, and never be ready."""
    secrets = (
        "API_KEY",
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "LITELLM_MASTER_KEY",
        "DATABASE_URL",
        "NVIDIA_API_KEY",
    )
    for name in secrets:
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("AIP_MODE", "PREDICTION")
    monkeypatch.setenv("AIP_HTTP_PORT", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")

    async def test() -> None:
        async with engine(binary=llama_server_path, served=small()) as made:
            await ready(made)
            assert text_of(await answer(made, "Once upon a time", max_tokens=2))
            given = Path(f"/proc/{pid_of(made)}/environ").read_bytes().decode()
            assert "theirs" not in given
            assert "OMP_WAIT_POLICY=passive" in given.split("\0")

    run(test)


def test_the_flags_are_asked_of_the_program_itself(llama_server_path: str) -> None:
    found = asyncio.run(llama_binary.ask(llama_server_path, dict(os.environ)))
    assert found.flags.knows("--ctx-size")
    assert re.match(r"[\w.]*\d", found.flags.version)


def test_a_file_that_can_not_be_run_is_named(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text("no program")
    with pytest.raises(Exception, match="no such program"):
        llama_binary.find(str(program), {})
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(Exception, match="can not be run: Exec format error"):
        asyncio.run(llama_binary.ask(str(program), dict(os.environ)))
