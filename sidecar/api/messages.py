"""A conversation as it comes in: roles are an enum, content is text or text parts."""

from __future__ import annotations

import re
from typing import Any, get_args

from sidecar.errors import BadRequest, Unsupported
from sidecar.generation import Message, Role

ROLES: dict[str, Role] = {role: role for role in get_args(Role)} | {"developer": "system"}
MAX_PARTS = 1024
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NEEDS_TOOLS = ("tool_calls", "function_call", "audio")


def conversation(messages: list[Any]) -> tuple[Message, ...]:
    """Every message checked; BadRequest names the first that can not be used."""
    return tuple(_message(item, f"messages.{index}") for index, item in enumerate(messages))


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise BadRequest(f"`{where}` must be an object with `role` and `content`.", param=where)
    for name in _NEEDS_TOOLS:
        if item.get(name):
            raise Unsupported(f"`{where}.{name}` is not supported here.", param=f"{where}.{name}")
    return Message(_role(item, where), _content(item, where), _name(item, where))


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


def _content(item: dict[str, Any], where: str) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    param = f"{where}.content"
    if not isinstance(content, list) or not 0 < len(content) <= MAX_PARTS:
        raise BadRequest(f"`{param}` must be text or a list of text parts.", param=param)
    return "".join(_part(part, f"{param}.{index}") for index, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_audio", "file"):
        raise Unsupported(f"`{where}`: this model reads text only.", param=where)
    text = part.get("text") if kind == "text" else None
    if not isinstance(text, str):
        raise BadRequest(f'`{where}` must be {{"type": "text", "text": "..."}}.', param=where)
    return text
