"""Every message of docs/troubleshooting.md, produced: the page has these, in this order, and no others."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.doctor.facts import Binary, Unknown
from sidecar.doctor.start import findings
from sidecar.embedded import GGUF_Q4_0, MODEL_DIR
from sidecar.errors import StartError
from sidecar.gate import Gate
from sidecar.listening import listening
from sidecar.planning import Target
from sidecar.profiles import LlamaCpp
from sidecar.worker.architectures import check_architecture
from sidecar.worker.precision import Checkpoint, Device, choose
from sidecar.worker.shortage import Shape, Shortage
from tests.core.test_doctor import ALWAYS, WELL
from tests.e2e.program import free_port
from tests.engines.llama import driving
from tests.engines.test_llama_engine import DAMAGED
from tests.fakes.engine import ScriptedEngine, loading
from tests.fakes.hub import running
from tests.fakes.live import Live, live_server
from tests.typed import typed
from tests.weights.machine import Machine
from watchdog.__main__ import main as watchdog

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
GAP = "…"


def said(*words: str, **environ: str) -> str:
    """What the program printed before it ended with a failure."""
    code, out, log = typed(*words, **environ)
    assert code != 0
    return out + log


def refused(live: Live, body: dict[str, Any], **headers: str) -> str:
    """The message of an answer that is not 200."""
    answer = httpx.post(f"{live.url}/v1/completions", json=body, headers=headers, timeout=30)
    assert answer.status_code >= 400
    return f"{answer.status_code} {answer.json()['error']['message']}"


def raised(call: Callable[..., Any], *given: Any) -> str:
    with pytest.raises(StartError) as caught:
        call(*given)
    return caught.value.message


def given_up(*script: str, stderr: str = "", **more: Any) -> str:
    """Why a llama-server was given up, in the words that /health has."""
    found: list[str] = []

    async def test() -> None:
        async with driving.engine(*script, stderr=stderr, lives=1, **more) as made:
            found.append((await driving.failed(made)).reason)

    driving.run(test)
    return found[0]


def doctor(**facts: Any) -> str:
    return "\n".join(f"{one.text} -> {one.fix}" for one in findings(replace(WELL, **facts)))


# --- memory -------------------------------------------------------------------------------------


def too_large_before_the_start(_: Path) -> str:
    return said("plan", "embedded", "--vram", "256MiB")


def too_large_at_the_start(_: Path) -> str:
    return given_up(held_to=lambda _: Target("cuda", 100.0))


def child_without_memory(_: Path) -> str:
    return given_up("die", stderr="alloc_buffer: cudaMalloc failed: out of memory\n")


def request_without_memory(_: Path) -> str:
    return Shortage(Shape(512, 6144), 540.0).error(212.0).message


def request_too_long(_: Path) -> str:
    with live_server() as live:
        return refused(live, {"prompt": "Tell me", "max_tokens": 7000})


def quantised_on_a_cpu(_: Path) -> str:
    return raised(choose, Device("cpu"), Checkpoint("float16"), "4bit")


def restarted(folder: Path) -> str:
    readings = folder / "readings.csv"
    readings.write_text("".join(f"{60 * at},GPU-0,{10780 + at}\n" for at in range(3)))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        watchdog(["--replay", str(readings)], {})
    return out.getvalue()


# --- speed --------------------------------------------------------------------------------------


def no_card(_: Path) -> str:
    return doctor(driver=Unknown("NVMLError_LibraryNotFound: NVML Shared Library Not Found"), cards_on_bus=0)


def no_card_in_container(_: Path) -> str:
    return doctor(driver=Unknown("NVMLError_Unknown: Unknown Error"), in_container=True, profile=ALWAYS)


def llama_without_cuda(_: Path) -> str:
    return doctor(binary=Binary("/usr/bin/llama-server", "11669"))


def queue_full(_: Path) -> str:
    return one_too_many(Gate(max_queue=0))


def one_too_many(gate: Gate) -> str:
    """What is said to who comes while every slot is held."""
    with live_server(ScriptedEngine(), gate) as live, httpx.Client(timeout=30) as client:
        body = {"prompt": "[hold:1]", "stream": True}
        with contextlib.ExitStack() as held:
            for _ in range(4):
                held.enter_context(client.stream("POST", f"{live.url}/v1/completions", json=body))
            return refused(live, {"prompt": "one more"})


# --- connection ---------------------------------------------------------------------------------


def nobody_there(_: Path) -> str:
    return _program("scripts/health_check.sh", f"http://localhost:{free_port()}")


def curl_of_nobody(_: Path) -> str:
    return _program("curl", "-sS", f"http://localhost:{free_port()}/health")


def _program(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    return done.stdout + done.stderr


def port_taken(_: Path) -> str:
    with listening("127.0.0.1", 0) as taken:
        return said("serve", "--port", str(taken.getsockname()[1]))


def strange_host(_: Path) -> str:
    with live_server(allowed_hosts=("localhost",)) as live:
        return refused(live, {"prompt": "x"}, host="llama.lan")


# --- loading ------------------------------------------------------------------------------------


def still_loading(_: Path) -> str:
    with live_server(ScriptedEngine(state=loading())) as live:
        return json.dumps(httpx.get(f"{live.url}/health").json())


def no_such_path(_: Path) -> str:
    return said("serve", "--model_path", "/nowhere")


def folder(root: Path, **files: bytes) -> str:
    made = root / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    for name, data in files.items():
        (made / name.replace("__", ".")).write_bytes(data)
    return str(made)


def pickled(root: Path) -> str:
    return said("check", "--model_path", folder(root, tokenizer__json=b"{}", pytorch_model__bin=b"x"))


def file_of_many_missing(root: Path) -> str:
    index = json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}).encode()
    weights = (MODEL_DIR / "model.safetensors").read_bytes()
    made = folder(root, tokenizer__json=b"{}", model__safetensors__index__json=index, a__safetensors=weights)
    return said("check", "--model_path", made)


def cut_safetensors(root: Path) -> str:
    weights = (MODEL_DIR / "model.safetensors").read_bytes()[:-1000]
    return said("check", "--model_path", folder(root, tokenizer__json=b"{}", model__safetensors=weights))


def other_architecture(_: Path) -> str:
    return raised(check_architecture, "model", {"architectures": ["FalconForCausalLM"]})


def disk_full(root: Path) -> str:
    names = [f"m-{number:05}-of-00999.gguf" for number in range(1, 1000)]
    with running() as hub:
        for part in hub.add("owner/model", dict.fromkeys(names, b"x")).values():
            part.claimed_bytes = 49_000_000_000
        return Machine(root, hub).fetch(LlamaCpp(hf_repo_id="owner/model", hf_filename=names[0])).refusal


def not_on_the_hub(root: Path) -> str:
    with running() as hub:
        return Machine(root, hub).fetch(LlamaCpp(hf_repo_id="owner/none", hf_filename="m.gguf")).refusal


def gguf_missing(root: Path) -> str:
    registry = root / "profiles.yaml"
    block = {"model_root": "/models/gguf", "hf_repo_id": "owner/model", "hf_filename": "model-Q4_K_M.gguf"}
    profile = {"backend": "llamacpp", "model_id": "m", "llamacpp": block}
    registry.write_text(json.dumps({"profiles": {"mine": profile}}))
    return said("check", "mine", LLM_PROFILES_CONFIG_PATH=str(registry), LLM_CACHE_DIR=str(root))


def gguf_cut(root: Path) -> str:
    model = root / "model.gguf"
    model.write_bytes(GGUF_Q4_0.read_bytes()[:-1000])
    return said("check", "embedded-gguf", "--model_path", str(model))


# --- llama.cpp and its registry -----------------------------------------------------------------


def no_registry(_: Path) -> str:
    return said("serve", LLM_PROFILES_CONFIG_PATH="/app/config/llm_profiles.yaml")


def no_profile(_: Path) -> str:
    return said("serve", LLM_PROFILE_NAME="stheno-q4")


def no_profiles_key(root: Path) -> str:
    (root / "profiles.yaml").write_text("stheno: {backend: llamacpp}\n")
    return said("serve", LLM_PROFILES_CONFIG_PATH=str(root / "profiles.yaml"))


def missing_tensor(_: Path) -> str:
    return given_up("die", stderr=DAMAGED)


def unknown_flag(_: Path) -> str:
    return given_up("old-flags")


def flag_of_another_build(_: Path) -> str:
    return given_up("die", stderr="error: invalid argument: --n-parallel\n")


def no_llama_server(_: Path) -> str:
    return said("doctor", "--profile", "embedded-gguf", "--port", "0", PATH="/nowhere")


def llama_without_the_card(_: Path) -> str:
    return given_up(device="cuda")


# --- time ---------------------------------------------------------------------------------------


def too_slow(_: Path) -> str:
    with live_server() as live:
        return refused(live, {"prompt": "[hold:0]", "timeout": 0.2})


def waited_too_long(_: Path) -> str:
    return one_too_many(Gate(queue_timeout_s=0.2))


PRODUCERS: tuple[Callable[[Path], str], ...] = (
    too_large_before_the_start, too_large_at_the_start, child_without_memory, request_without_memory,
    request_too_long, quantised_on_a_cpu, restarted,
    no_card, no_card_in_container, llama_without_cuda, queue_full,
    nobody_there, curl_of_nobody, port_taken, strange_host,
    still_loading, no_such_path, pickled, file_of_many_missing, cut_safetensors, other_architecture,
    not_on_the_hub, disk_full, gguf_missing, gguf_cut,
    no_registry, no_profile, no_profiles_key, missing_tensor, unknown_flag, flag_of_another_build,
    no_llama_server, llama_without_the_card,
    too_slow, waited_too_long,
)  # fmt: skip


def messages() -> list[str]:
    """The page's indented blocks below its first heading of the second order, each as one line."""
    _, _, below = PAGE.read_text().partition("\n## ")
    blocks = re.findall(r"(?m)(?:^    \S.*\n)+", below)
    return [" ".join(block.split()) for block in blocks]


def test_the_page_has_a_message_for_each_that_is_produced() -> None:
    assert len(messages()) == len(PRODUCERS)


@pytest.mark.parametrize(
    ("message", "producer"),
    [pytest.param(*pair, id=pair[1].__name__) for pair in zip(messages(), PRODUCERS, strict=False)],
)
def test_it_is_said_so(message: str, producer: Callable[[Path], str], tmp_path: Path) -> None:
    pattern = ".*?".join(re.escape(part) for part in message.split(GAP))
    found = " ".join(producer(tmp_path).split())
    assert re.search(pattern, found), f"{message}\n{found}"
