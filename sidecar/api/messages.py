"""A conversation as it comes in: roles are an enum, content is text, or parts of text and pictures."""

from __future__ import annotations

import re
from typing import Any, get_args

from sidecar.api.images import from_base64, from_data_url
from sidecar.errors import BadRequest, Unsupported
from sidecar.generation import Image, Message, Role, ToolCall

ROLES: dict[str, Role] = {role: role for role in get_args(Role)} | {"developer": "system"}
MAX_PARTS = 1024
MAX_CALLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CALL_ID = re.compile(r"[\x21-\x7e]{1,128}")
_REFUSED = ("function_call", "audio")


def conversation(messages: list[Any], *, vision: bool = False, tools: bool = False) -> tuple[Message, ...]:
    """Every message checked; BadRequest names the first that can not be used.

    Unsupported for pictures and tool calls where the model has no eyes and no tools.
    """
    return tuple(_message(item, f"messages.{i}", vision, tools) for i, item in enumerate(messages))


def _message(item: Any, where: str, vision: bool, tools: bool) -> Message:
    if not isinstance(item, dict):
        raise BadRequest(f"`{where}` must be an object with `role` and `content`.", param=where)
    refused = (*_REFUSED, *(() if tools else ("tool_calls",)), *(() if vision else ("images",)))
    for name in refused:
        if item.get(name):
            raise Unsupported(f"`{where}.{name}` is not supported here.", param=f"{where}.{name}")
    role, calls = _role(item, where), _calls(item, where)
    if calls and role != "assistant":
        raise BadRequest(
            f"`{where}.tool_calls`: only the assistant calls tools.", param=f"{where}.tool_calls"
        )
    content, images = _content(item, where, empty=bool(calls))
    if images and not vision:
        raise Unsupported(f"`{where}`: this model reads text only.", param=where)
    return Message(role, content, _name(item, where), images, calls, _call_id(item, where))


def _role(item: dict[str, Any], where: str) -> Role:
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        accepted = ", ".join(ROLES)
        raise BadRequest(f"`{where}.role` must be one of: {accepted}.", param=f"{where}.role")
    return ROLES[role]


def _name(item: dict[str, Any], where: str) -> str | None:
    name = item.get("name")
    if name is None:
        return None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadRequest(
            f"`{where}.name` must be 1 to 64 letters, digits, `_` or `-`.",
            param=f"{where}.name",
        )
    return name


def _calls(item: dict[str, Any], where: str) -> tuple[ToolCall, ...]:
    calls = item.get("tool_calls") or []
    param = f"{where}.tool_calls"
    if not isinstance(calls, list) or len(calls) > MAX_CALLS:
        raise BadRequest(f"`{param}` must be a list of at most {MAX_CALLS} calls.", param=param)
    return tuple(_call(call, f"{param}.{index}") for index, call in enumerate(calls))


def _call(call: Any, where: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not _is_id(call.get("id")):
        raise BadRequest(f"`{where}` must have `id` and `function`.", param=where)
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(arguments, str):
        raise BadRequest(f"`{where}.function` must have `name` and `arguments`, both text.", param=where)
    return ToolCall(call["id"], name, arguments)


def _call_id(item: dict[str, Any], where: str) -> str | None:
    found = item.get("tool_call_id")
    if found is not None and not _is_id(found):
        param = f"{where}.tool_call_id"
        raise BadRequest(f"`{param}` must be 1 to 128 printable characters without spaces.", param=param)
    return found


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _CALL_ID.fullmatch(value) is not None


def _content(item: dict[str, Any], where: str, *, empty: bool) -> tuple[str, tuple[Image, ...]]:
    """The text, and the pictures with their places in it; beside tool calls there may be no text."""
    content = item.get("content")
    param = f"{where}.content"
    if content is None and empty:
        return "", ()
    if isinstance(content, str):
        return content, _attached(item, where)
    if not isinstance(content, list) or not 0 < len(content) <= MAX_PARTS:
        raise BadRequest(f"`{param}` must be text or a list of parts.", param=param)
    text, images = "", list(_attached(item, where))
    for index, part in enumerate(content):
        found = _part(part, f"{param}.{index}")
        if isinstance(found, bytes):
            images.append(Image(found, "", len(text)))
        else:
            text += found
    return text, tuple(images)


def _attached(item: dict[str, Any], where: str) -> tuple[Image, ...]:
    """Pictures beside the text, as plain base64: `"images": ["..."]` (seed 004, and Ollama's form)."""
    images = item.get("images") or []
    param = f"{where}.images"
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise BadRequest(f"`{param}` must be a list of base64 texts.", param=param)
    return tuple(Image(_bare(image, f"{param}.{i}"), "") for i, image in enumerate(images))


def _bare(image: str, where: str) -> bytes:
    return from_data_url(image, where) if image.startswith("data:") else from_base64(image, where)


def _part(part: Any, where: str) -> str | bytes:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_audio", "file"):
        raise Unsupported(f"`{where}`: this model takes no `{kind}`.", param=where)
    if kind == "image_url":
        return _picture(part.get("image_url"), where)
    text = part.get("text") if kind == "text" else None
    if not isinstance(text, str):
        raise BadRequest(f'`{where}` must be {{"type": "text", "text": "..."}}.', param=where)
    return text


def _picture(image_url: Any, where: str) -> bytes:
    url = image_url.get("url") if isinstance(image_url, dict) else image_url
    if not isinstance(url, str):
        raise BadRequest(f'`{where}.image_url` must be {{"url": "data:image/..."}}.', param=where)
    return from_data_url(url, where)
