"""Pictures and vectors from a real llama-server, asked for through the sidecar."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from PIL import Image

from sidecar.embedded import GGUF_Q8_0
from tests.e2e.program import Program, program, serving, until
from tests.engines.llama import tiny_vision

pytestmark = pytest.mark.llama


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One model that does everything: the embedded one, with random eyes."""
    folder = tmp_path_factory.mktemp("vision")
    model, mmproj = tiny_vision.make(folder)
    profile = {
        "backend": "llamacpp",
        "model_id": "seeing",
        "supports_tools": True,
        "supports_vision": True,
        "supports_embeddings": True,
        "gpu": {"max_model_len": 1024, "max_concurrent_requests": 2},
        "llamacpp": {
            "model_path": str(model),
            "mmproj_filename": mmproj.name,
            "parallel": 2,
            "threads": 1,
            "threads_batch": 1,
        },
    }
    registry = folder / "profiles.yaml"
    registry.write_text(json.dumps({"profiles": {"seeing": profile}}))  # JSON is YAML
    with program(folder, LLM_PROFILES_CONFIG_PATH=str(registry), **serving("seeing")) as running:
        until(running.ready, "ready")
        yield running


@pytest.fixture(scope="module")
def client(server: Program) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def picture(colour: str, kind: str = "PNG", size: tuple[int, int] = (48, 32)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def seen(client: openai.OpenAI, *urls: str) -> Any:
    parts: Any = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    question = {"type": "text", "text": "What is this?"}
    return client.chat.completions.create(
        model="seeing", messages=[{"role": "user", "content": [*parts, question]}], temperature=0,
        max_tokens=3, logprobs=True, top_logprobs=5,
    )  # fmt: skip


def test_pictures_arrive(client: openai.OpenAI) -> None:
    """Each takes its tokens, and what is on them makes a difference."""
    red = seen(client, f"data:image/png;base64,{picture('red')}")
    blue = seen(client, f"data:image/png;base64,{picture('blue')}")
    both = seen(
        client, f"data:image/png;base64,{picture('red')}", f"data:image/webp;base64,{picture('blue', 'WEBP')}"
    )
    assert both.usage.prompt_tokens - red.usage.prompt_tokens == tiny_vision.TOKENS_PER_IMAGE
    assert red.usage.prompt_tokens == blue.usage.prompt_tokens
    assert red.choices[0].logprobs.content[0].logprob != blue.choices[0].logprobs.content[0].logprob


def test_torch_is_imported_by_nobody(server: Program, client: openai.OpenAI) -> None:
    """Not for a picture, a vector or a call either: whatever comes late, comes with the first answer."""
    seen(client, f"data:image/png;base64,{picture('red')}")
    client.embeddings.create(model="seeing", input="x")
    for pid in (
        server.process.pid,
        *(child.pid for child in psutil.Process(server.process.pid).children(True)),
    ):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "site-packages/torch" not in maps


def test_the_form_of_the_fourth_seed(server: Program, client: openai.OpenAI) -> None:
    turn = {"role": "user", "content": "What is this?", "images": [picture("red", "JPEG")]}
    status, body = server.post("/v1/chat/completions", model="seeing", messages=[turn], max_tokens=3)
    assert status == 200
    plain = [{"role": "user", "content": "What is this?"}]
    _, without = server.post("/v1/chat/completions", model="seeing", messages=plain, max_tokens=3)
    more = body["usage"]["prompt_tokens"] - without["usage"]["prompt_tokens"]
    assert more == tiny_vision.TOKENS_PER_IMAGE


def test_a_bomb_costs_nothing(server: Program, client: openai.OpenAI) -> None:
    """48 kB that would be 1.2 GB over there: its own decoder takes 15 s and 2.4 GB for it (measured)."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    bomb = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    with pytest.raises(openai.BadRequestError, match="20000 x 20000"):
        seen(client, bomb)
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    peak_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    assert peak_kib < 400 * 1024
    assert server.ready()


def test_more_pictures_than_the_context_holds_are_a_400(client: openai.OpenAI) -> None:
    words = "word " * 990
    url = f"data:image/png;base64,{picture('red')}"
    content: Any = [
        {"type": "text", "text": words},
        *({"type": "image_url", "image_url": {"url": url}} for _ in range(16)),
    ]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="seeing", messages=[{"role": "user", "content": content}], max_tokens=1
        )
    assert refused.value.code == "context_length_exceeded"


def test_vectors(client: openai.OpenAI) -> None:
    """The official client asks for base64 and decodes it; near texts are nearer than far ones."""
    texts = ["What is the capital of France?", "What is the capital of Spain?", "3 + 4"]
    answer = client.embeddings.create(model="seeing", input=texts)
    assert [item.index for item in answer.data] == [0, 1, 2]
    france, spain, total = (item.embedding for item in answer.data)
    assert sum(value * value for value in france) == pytest.approx(1, abs=1e-3)
    assert dot(france, spain) > dot(france, total)
    plain = client.embeddings.create(model="seeing", input=texts[0], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(france, abs=1e-3)
    assert answer.usage.prompt_tokens > 10


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_a_text_that_is_as_long_as_the_context_becomes_a_vector(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model="seeing", input=[[5] * 900]).data[0].embedding) == 128
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="seeing", input=[[5] * 2000])
    assert refused.value.code == "context_length_exceeded"


def test_a_model_without_eyes_says_so(tmp_path: Path) -> None:
    with program(tmp_path, MODEL_PATH=str(GGUF_Q8_0), THREADS="1", **path_of("")) as own:
        until(own.ready, "ready")
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture('red')}"}}
        turn = {"role": "user", "content": [part]}
        status, body = own.post("/v1/chat/completions", messages=[turn])
        assert (status, body["error"]["code"]) == (400, "unsupported_parameter")
        status, body = own.post("/v1/embeddings", input="x")
        assert (status, body["error"]["code"]) == (400, "unsupported_parameter")


@pytest.mark.parametrize("shown", [True, False])
def test_a_model_of_ones_own_has_tools_if_its_template_shows_them(tmp_path: Path, shown: bool) -> None:
    """Without a profile nobody has said so: the template in the file decides."""
    model = tmp_path / "mine.gguf"
    model.write_bytes(GGUF_Q8_0.read_bytes() if shown else GGUF_Q8_0.read_bytes().replace(b"tools", b"toils"))
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    turn = {"role": "user", "content": "What is the weather in Oslo?"}
    with program(tmp_path, MODEL_PATH=str(model), THREADS="1", **path_of("")) as own:
        until(own.ready, "ready")
        status, body = own.post("/v1/chat/completions", messages=[turn], tools=[tool], temperature=0)
        if shown:
            (call,) = body["choices"][0]["message"]["tool_calls"]
            assert (status, call["function"]["name"]) == (200, "get_weather")
            return
        assert (status, body["error"]["code"]) == (400, "unsupported_parameter")
        assert "its chat template does not show them" in body["error"]["message"]
        assert own.post("/v1/chat/completions", messages=[turn], max_tokens=2)[0] == 200


def path_of(profile: str) -> dict[str, str]:
    """Where llama-server is, without a profile."""
    return {name: value for name, value in serving(profile).items() if name == "LLAMA_SERVER_PATH"}


def test_positions_that_are_stretched_are_served_as_far_as_they_reach(tmp_path: Path) -> None:
    """The embedded model was made for 2048 tokens."""
    stretched = ["--rope-scaling", "yarn", "--rope-scale", "2", "--yarn-orig-ctx", "2048"]
    block = {"model_path": "embedded", "ctx_size": 4096, "threads": 1, "threads_batch": 1}
    profile = {"backend": "llamacpp", "model_id": "long", "llamacpp": {**block, "extra_args": stretched}}
    registry = tmp_path / "profiles.yaml"
    registry.write_text(json.dumps({"profiles": {"long": profile}}))
    with program(tmp_path, LLM_PROFILES_CONFIG_PATH=str(registry), **serving("long")) as running:
        until(running.ready, "ready")
        status, body = running.post("/v1/completions", prompt=[100] * 3000, max_tokens=1)
        assert (status, body.get("usage", {}).get("prompt_tokens")) == (200, 3000), body
