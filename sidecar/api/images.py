"""Pictures in a request: bounded, decoded here, and handed on as plain PNG.

What the engine's own parser sees was written by us: a malformed file ends as a 400 of this process,
and the kinds of files that are understood do not depend on the engine.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sidecar.errors import BadRequest
from sidecar.generation import GenerationRequest, Image, Message

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_IMAGES = 16
MAX_PIXELS = 4096 * 4096
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
    turns = [
        await loop.run_in_executor(_DECODER, _decoded, message, f"messages.{index}")
        for index, message in enumerate(request.messages)
    ]
    return replace(request, prompt=tuple(turns))


def _decoded(message: Message, where: str) -> Message:
    images = tuple(Image(as_png(image.data, where), "image/png", image.at) for image in message.images)
    return replace(message, images=images)


def as_png(data: bytes, where: str) -> bytes:
    """The first frame of the file, without transparency. Raises BadRequest."""
    from PIL import Image as Picture  # only who sends a picture pays for it

    Picture.MAX_IMAGE_PIXELS = None  # its own limit; ours is below it, and says both sizes
    kinds = ", ".join(FORMATS)
    try:
        with Picture.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadRequest(
                    f"`{where}` holds an image of {picture.width} x {picture.height} pixels; at most "
                    f"{MAX_PIXELS} are accepted.",
                    param=where,
                )
            flat = Picture.new("RGB", picture.size, "white")
            colours = picture.convert("RGBA")
            flat.paste(colours, mask=colours.getchannel("A"))
    except (OSError, ValueError, SyntaxError, EOFError):
        # What Pillow raises for a file that it can not read.
        raise BadRequest(f"`{where}` holds an image that is no readable {kinds}.", param=where) from None
    written = io.BytesIO()
    flat.save(written, "PNG", compress_level=1)
    return written.getvalue()
