"""Commands that work when pasted, with the address the caller used."""

from __future__ import annotations

import re
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

QUESTION = "What is the capital of France?"
CHAT = f'{{"messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
PROMPT = f'{{"prompt": "{QUESTION}"}}'
MODEL = '{"model": "NAME"}'
BODIES = {
    "/generate": PROMPT, "/v1/completions": PROMPT, "/v1/chat/completions": CHAT,
    "/v1/embeddings": f'{{"input": "{QUESTION}"}}', "/models/load": MODEL, "/models/unload": MODEL,
}  # fmt: skip
GETS = (
    "/", "/health", "/livez", "/readyz", "/startupz", "/metrics", "/events", "/v1/models",
    "/docs", "/openapi.json",
)  # fmt: skip
_SAFE_HOST = re.compile(r"[A-Za-z0-9.\-\[\]:_]{1,255}")


def base_url(scope: Scope) -> str:
    """`http://host:port` as the caller reached us; the socket's own address otherwise."""
    host = Headers(scope=scope).get("host", "")
    if _SAFE_HOST.fullmatch(host):
        return f"http://{host}"
    server: Any = scope.get("server") or ("127.0.0.1", 8000)
    return f"http://{server[0]}:{server[1]}"


def curl(url: str, path: str, needs_key: bool = False) -> str:
    """One command line for one route."""
    key = ' -H "authorization: Bearer $API_KEY"' if needs_key else ""
    if path not in BODIES:
        return f"curl -s{key} {url}{path}"
    body = BODIES[path]
    return f"curl -s -X POST {url}{path} -H 'content-type: application/json'{key} -d '{body}'"


def corrected_curl(scope: Scope) -> str:
    """What the caller probably meant; `/generate` when the path says nothing."""
    path = scope["path"]
    known = path if path in BODIES or path in GETS else "/generate"
    return curl(base_url(scope), known, bool(scope.get("state", {}).get("needs_key")))
