"""Pictures in a request: every form, every limit, and nothing but clean PNG for the engine."""

from __future__ import annotations

import base64
import io
import random
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from sidecar.api.images import MAX_IMAGES, as_png
from sidecar.errors import BadRequest
from sidecar.shelf import ServedModel
from tests.fakes.live import Live, live_server

RED = (200, 30, 30)


def file(kind: str = "PNG", size: tuple[int, int] = (8, 6), mode: str = "RGB", **options: Any) -> bytes:
    """A red picture."""
    written = io.BytesIO()
    deep = Image.new("I;16", size, 30_000)
    picture = deep if mode == "I;16" else Image.new("RGB", size, RED).convert(mode)
    picture.save(written, kind, **options)
    return written.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def part(data: bytes, kind: str = "png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{base64_of(data)}"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


@pytest.fixture(scope="module")
def seeing() -> Iterator[Live]:
    with live_server(models=[ServedModel("eyes", vision=True), ServedModel("blind")]) as live:
        yield live


def ask(live: Live, *messages: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"model": "eyes", "messages": list(messages), **more}
    return httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=30)


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def test_parts_keep_their_places_in_the_text(seeing: Live) -> None:
    found = ask(
        seeing, user(text("one "), part(file()), text("two"), part(file()), part(file("JPEG"), "jpeg"))
    )
    assert found.status_code == 200
    message = seeing.engine.requests[-1].messages[0]
    assert message.content == "one two"
    assert [image.at for image in message.images] == [4, 7, 7]
    assert {image.media_type for image in message.images} == {"image/png"}


def test_the_form_of_the_seed_stands_before_the_text(seeing: Live) -> None:
    whole = {"role": "user", "content": "What is it?", "images": [base64_of(file()), base64_of(file("GIF"))]}
    assert ask(seeing, whole).status_code == 200
    message = seeing.engine.requests[-1].messages[0]
    assert message.content == "What is it?"
    assert [image.at for image in message.images] == [0, 0]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("PNG", "I;16"), ("JPEG", "L"),
     ("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGBA")],
)  # fmt: skip
def test_every_kind_of_file_becomes_png(seeing: Live, kind: str, mode: str) -> None:
    data = file(kind, mode=mode)
    assert ask(seeing, user(part(data, kind.lower()))).status_code == 200
    given = seeing.engine.requests[-1].images[0].data
    assert given.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(given)) as picture:
        assert (picture.size, picture.mode) == ((8, 6), "RGB")


def test_what_is_transparent_is_white() -> None:
    written = io.BytesIO()
    Image.new("RGBA", (1, 1), (0, 0, 0, 0)).save(written, "PNG")
    with Image.open(io.BytesIO(as_png(written.getvalue(), "x")[0])) as picture:
        assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_photograph_is_turned_upright() -> None:
    lying = Image.new("RGB", (16, 8), "white")
    lying.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the left side is up
    written = io.BytesIO()
    lying.save(written, "JPEG", exif=exif, quality=95)
    made, pixels = as_png(written.getvalue(), "x")
    with Image.open(io.BytesIO(made)) as picture:
        assert (picture.size, pixels) == ((8, 16), 128)
        top, bottom = picture.getpixel((4, 2)), picture.getpixel((4, 13))
    assert isinstance(top, tuple) and isinstance(bottom, tuple)
    assert top[1] < 60
    assert bottom[1] > 230


def bomb(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, whose rows are all the same."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + width // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 10_000), (4097, 4096)])
def test_a_bomb_is_refused_before_it_goes_off(seeing: Live, size: tuple[int, int]) -> None:
    data = bomb(*size)
    assert len(data) < 200_000
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found = ask(seeing, user(part(data)))
    assert found.status_code == 400
    assert "pixels; 16777216 are accepted at most" in found.json()["error"]["message"]
    assert time.monotonic() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_all_pictures_together_have_a_limit(seeing: Live) -> None:
    large = part(bomb(4096, 4096))
    found = ask(seeing, user(*[large] * 5))
    assert found.status_code == 400
    assert "67108864 in one request" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        file()[:40],
        file(size=(50, 50))[:60],
        b"<svg/>",
        b"II*\0" + bytes(100),
        bytes(1000),
        file("WEBP")[:30],
    ],
)
def test_what_is_no_picture_is_refused(seeing: Live, data: bytes) -> None:
    found = ask(seeing, user(part(data)))
    assert found.status_code == 400
    assert found.json()["error"]["param"] == "messages.0"
    assert "no readable PNG, JPEG, GIF, BMP, WEBP" in found.json()["error"]["message"]


def test_a_broken_file_never_ends_as_our_failure() -> None:
    dice = random.Random(7)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        whole = file(kind, size=(40, 30))
        for _ in range(60):
            broken = bytearray(whole)
            for _ in range(dice.randint(1, 8)):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            try:
                as_png(bytes(broken[: dice.randint(1, len(broken))]), "x", 10_000)
            except BadRequest:
                continue


@pytest.mark.parametrize(
    "image_url",
    [
        {"url": "https://example.com/a.png"},
        {"url": "file:///etc/passwd"},
        {"url": "data:text/plain;base64,aGk="},
        {"url": "data:image/png;base64,!!!"},
        "data:image/png,raw",
        7,
        None,
    ],
)
def test_other_forms_are_refused_by_name(seeing: Live, image_url: object) -> None:
    found = ask(seeing, user({"type": "image_url", "image_url": image_url}))
    assert found.status_code == 400
    assert found.json()["error"]["param"] == "messages.0.content.0"


def test_there_may_be_so_many_and_no_more(seeing: Live) -> None:
    one = part(file(size=(1, 1)))
    assert ask(seeing, user(*[one] * MAX_IMAGES)).status_code == 200
    found = ask(seeing, user(*[one] * (MAX_IMAGES + 1)))
    assert found.status_code == 400
    assert f"{MAX_IMAGES} images at most" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "message", [user(part(file())), {"role": "user", "content": "hi", "images": [base64_of(file())]}]
)
def test_a_model_without_eyes_says_so(message: dict[str, Any]) -> None:
    with live_server(models=[ServedModel("blind")]) as live:
        found = ask(live, message, model="blind")
    assert found.status_code == 400
    assert found.json()["error"]["code"] == "unsupported_parameter"
