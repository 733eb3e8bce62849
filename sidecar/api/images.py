"""Pictures in a request: bounded, decoded here, and handed on as plain PNG.

What the engine's own parser sees was written by us: a malformed file ends as a 400 of this process,
and the kinds of files that are understood do not depend on the engine.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sidecar.errors import BadRequest
from sidecar.generation import GenerationRequest, Image, Message

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_IMAGES = 16
MAX_PIXELS = 4096 * 4096
# Of all pictures of one request: each pixel is three bytes on its way to the engine.
MAX_PIXELS_TOGETHER = 4 * MAX_PIXELS
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)
# Decoding holds three bytes a pixel: one at a time bounds what many requests take together.
_DECODER = ThreadPoolExecutor(1, thread_name_prefix="image")


def from_data_url(url: str, where: str) -> bytes:
    """The file in `data:image/...;base64,...`. Raises BadRequest."""
    found = _DATA_URL.match(url)
    if found is None:
        raise BadRequest(
            f"`{where}` must be a data URL such as data:image/png;base64,...; other addresses are not "
            "fetched, unless the profile's `image_hosts` names their host.",
            param=where,
        )
    return from_base64(url[found.end() :], where)


def from_base64(text: str, where: str) -> bytes:
    """The bytes. Raises BadRequest where it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"`{where}` is not valid base64.", param=where) from None


async def decoded(request: GenerationRequest) -> GenerationRequest:
    """The request with each picture as PNG. Raises BadRequest naming the picture that can not be read."""
    if not request.images:
        return request
    if len(request.images) > MAX_IMAGES:
        raise BadRequest(f"A request may hold {MAX_IMAGES} images at most.", param="messages")
    loop = asyncio.get_running_loop()
    turns, pixels = [], 0
    for index, message in enumerate(request.messages):
        turn, size = await loop.run_in_executor(
            _DECODER, _decoded, message, f"messages.{index}", MAX_PIXELS_TOGETHER - pixels
        )
        turns.append(turn)
        pixels += size
    return replace(request, prompt=tuple(turns))


def _decoded(message: Message, where: str, left_pixels: int) -> tuple[Message, int]:
    """The message with its pictures as PNG, and how many pixels they have."""
    images, pixels = [], 0
    for image in message.images:
        data, size = as_png(image.data, where, min(MAX_PIXELS, left_pixels - pixels))
        images.append(Image(data, "image/png", image.at))
        pixels += size
    return replace(message, images=tuple(images)), pixels


def as_png(data: bytes, where: str, most_pixels: int = MAX_PIXELS) -> tuple[bytes, int]:
    """The first frame of the file, upright and without transparency, and its pixels. Raises BadRequest."""
    from PIL import Image as Picture  # only who sends a picture pays for it
    from PIL import ImageOps

    Picture.MAX_IMAGE_PIXELS = None  # its own limit; ours is below it, and says both sizes
    kinds = ", ".join(FORMATS)
    try:
        with Picture.open(io.BytesIO(data), formats=FORMATS) as picture:
            size = picture.width * picture.height
            if size > most_pixels:
                raise _too_large(f"{picture.width} x {picture.height} pixels", most_pixels, where)
            with contextlib.suppress(Exception):  # EXIF that can not be read turns nothing
                ImageOps.exif_transpose(picture, in_place=True)
            colours = picture.convert("RGBA")
            flat = Picture.new("RGB", colours.size, "white")
            flat.paste(colours, mask=colours.getchannel("A"))
    except BadRequest:
        raise
    except Exception:  # Pillow promises no list of what a broken file may raise
        raise BadRequest(f"`{where}` holds an image that is no readable {kinds}.", param=where) from None
    written = io.BytesIO()
    flat.save(written, "PNG", compress_level=1)
    return written.getvalue(), size


def _too_large(size: str, most_pixels: int, where: str) -> BadRequest:
    return BadRequest(
        f"`{where}` holds an image of {size}; {most_pixels} are accepted at most, and {MAX_PIXELS_TOGETHER} "
        "in one request.",
        param=where,
    )
