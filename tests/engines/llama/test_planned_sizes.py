"""The plan of a llama-server against what the real one says that it takes."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sidecar.headers import of_files
from sidecar.llama_args import LlamaFiles, llama_args
from sidecar.llama_demand import checkpoints_mib, llama_demand
from sidecar.profiles import Profile
from tests.e2e.program import free_port, program, serving, until
from tests.engines.llama.small_gguf import KINDS, write

pytestmark = pytest.mark.llama
BUFFER = re.compile(r"(model|KV|compute) buffer size = +([\d.]+) MiB")
BLOCKS: tuple[dict[str, Any], ...] = (
    {},
    {"flash_attn": "off"},
    {"flash_attn": "on", "cache_type_k": "q8_0", "cache_type_v": "q4_0"},
    {"ubatch_size": 128},
)


@pytest.fixture(scope="module", params=KINDS)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = str(request.param)
    return write(KINDS[kind], tmp_path_factory.mktemp(kind) / "model.gguf")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: " ".join(map(str, block.values())) or "plain")
def test_weights_keys_and_buffers(file: Path, block: dict[str, Any], llama_server_path: str) -> None:
    profile = Profile.model_validate(
        {
            "name": "p", "backend": "llamacpp", "model_id": "m", "gpu": {"max_model_len": 3000},
            "llamacpp": {"model_path": str(file), "parallel": 2, "threads": 1, **block},
        }
    )  # fmt: skip
    files = LlamaFiles(file)
    planned = llama_demand(profile, of_files(files), on_gpu=False)
    taken = said(llama_server_path, *llama_args(profile, files, None, port=free_port(), on_gpu=False))
    # What llama-server counts as the model's buffer is rounded up per tensor.
    assert planned.weights_mib == pytest.approx(taken["model"], rel=0.03)
    # What it keeps aside of a window, later, is planned with a slot's cache and not printed.
    kept_aside_mib = planned.needed_pages * checkpoints_mib(of_files(files).shape, profile.llamacpp)
    assert planned.needed_pages * planned.page_mib - kept_aside_mib == pytest.approx(taken["KV"], rel=0.03)
    assert taken["compute"] * 0.97 <= planned.workspace_mib <= taken["compute"] * 1.4 + 2


@pytest.mark.parametrize("slots", [1, 4])
def test_resident_memory(file: Path, slots: int, llama_server_path: str, tmp_path: Path) -> None:
    """After prompts and answers of the whole context on every slot."""
    registry = tmp_path / "profiles.yaml"
    registry.write_text(f"""
profiles:
  small:
    backend: llamacpp
    model_id: small
    gpu: {{max_model_len: 512, max_concurrent_requests: {slots}}}
    llamacpp: {{model_path: {file}, threads: 1}}
""")
    environ = {"LLM_PROFILES_CONFIG_PATH": str(registry), **serving("small"), "MEMORY_BUDGET": "1GiB"}
    with program(tmp_path, **environ) as served:
        until(served.ready, "ready")
        with ThreadPoolExecutor(slots) as clients:
            asked = [clients.submit(served.post, "/v1/completions", **long(at)) for at in range(2 * slots)]
        assert [one.result()[0] for one in asked] == [200] * len(asked)
        plan = served.get("/health")[1]["plan"]
        resident_mib = served.child().memory_info().rss / 2**20
    assert plan["total_mib"] * 0.87 <= resident_mib <= plan["total_mib"] * 1.04


def long(at: int) -> dict[str, Any]:
    return {"prompt": [100 + at] * 400, "max_tokens": 110, "temperature": 0, "logit_bias": {"2": -100}}


def said(binary: str, *words: str) -> dict[str, float]:
    """What it prints of its buffers until it serves, in MiB."""
    sums = {"model": 0.0, "KV": 0.0, "compute": 0.0}
    command = [binary, *words, "-lv", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if found := BUFFER.search(line):
                sums[found[1]] += float(found[2])
            if "listening on" in line:
                break
        server.kill()
    return sums
