"""The tiny model that sees: llama-server takes it, and its answers depend on the picture."""

from __future__ import annotations

import base64
import io
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.e2e.program import free_port, until
from tests.engines.llama import tiny_vision

pytestmark = pytest.mark.llama

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture(scope="module")
def server(llama_server_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """llama-server with the tiny model, ready."""
    model, mmproj = tiny_vision.make(tmp_path_factory.mktemp("vision"))
    port = free_port()
    flags = f"--host 127.0.0.1 --port {port} -c 512 -np 1 -t 1 -tb 1 --fit off --no-ui --offline -lv 1"
    command = [llama_server_path, "-m", str(model), "--mmproj", str(mmproj), *flags.split()]
    child = subprocess.Popen(command)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            until(lambda: healthy(child, client), "llama-server is ready")
            yield client
    finally:
        child.kill()
        child.wait()


def healthy(child: subprocess.Popen[bytes], client: httpx.Client) -> bool:
    assert child.poll() is None, "llama-server ended; its last words stand above"
    try:
        return client.get("/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> dict[str, Any]:
    """A message part as OpenAI's dialect writes it."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def ask(server: httpx.Client, *pictures: dict[str, Any]) -> dict[str, Any]:
    content = [*pictures, {"type": "text", "text": "What is this?"}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1, "logprobs": True}
    answer = server.post("/v1/chat/completions", json={**body, "temperature": 0})
    assert answer.status_code == httpx.codes.OK, answer.text
    made: dict[str, Any] = answer.json()
    return made


def first_logprobs(answer: dict[str, Any]) -> dict[str, float]:
    [token] = answer["choices"][0]["logprobs"]["content"]
    return {option["token"]: option["logprob"] for option in token["top_logprobs"]}


def test_the_same_bytes_every_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    first, second = (tiny_vision.make(tmp_path_factory.mktemp("made")) for _ in range(2))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (300, 20)], ids=str)
def test_a_picture_takes_its_tokens_whatever_its_size(server: httpx.Client, size: tuple[int, int]) -> None:
    blind = ask(server)["usage"]["prompt_tokens"]
    seeing = ask(server, picture(RED, size), picture(BLUE, size))["usage"]["prompt_tokens"]
    assert seeing == blind + 2 * tiny_vision.TOKENS_PER_IMAGE


def test_the_answer_depends_on_the_picture(server: httpx.Client) -> None:
    red, again, blue = (first_logprobs(ask(server, picture(c))) for c in (RED, RED, BLUE))
    # The second red comes from the prompt cache, whose sums are rounded in another order.
    assert again == pytest.approx(red, abs=1e-3)
    assert blue != pytest.approx(red, abs=0.05)


def test_what_is_no_picture_is_refused(server: httpx.Client) -> None:
    url = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    content = [{"type": "image_url", "image_url": {"url": url}}]
    answer = server.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert "Failed to load image" in answer.json()["error"]["message"]
