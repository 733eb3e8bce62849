"""Servers that are not ours, by the first word of their path: `with other_servers() as url: f"{url}/openai"`.

/openai     models, chat, figures of cards; no health, no usage       /key      wants `Bearer right`
/llama      llama.cpp while it loads                                  /failed   our own, its model lost
/litellm    /health costs money, /health/readiness is free            /html     a page, whatever is asked
/busy       503 from a proxy
/429 /503   a chat that is refused so, with OpenAI's error            /cut      a stream that merely stops
/error      a stream that ends with an error                          /half     the last chunk is missing
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = b"<html><body>It works!</body></html>"
MODELS = {
    "object": "list",
    "data": [{"id": "gpt-other", "object": "model", "permission": [{"id": "modelperm-1"}]}],
}
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
FAILED = {
    "status": "error", "model_loaded": False, "device": None, "message": "Model or tokenizer not loaded.",
    "model": "m", "phase": "failed", "progress": None, "reason": "no tensor \"output.weight\", says it",
}  # fmt: skip
CARDS = b"""# HELP gpu_memory_used_bytes Memory in use on the card.
gpu_memory_used_bytes{gpu="0"} 4.0e+09
gpu_memory_used_bytes{gpu="1"} 2000000000
gpu_temperature_celsius{gpu="0"} 60
"""
TOKENS = 5


class Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        _, server, path = self.path.split("/", 2)
        if server == "html":
            self.raw(200, PAGE, "text/html")
        elif server == "busy":
            self.raw(503, PAGE, "text/html")
        elif server == "llama" and path == "health":
            self.say(503, LOADING)
        elif server == "failed" and path == "health":
            self.say(503, FAILED)
        elif server == "litellm" and path == "health/readiness":
            self.say(200, {"status": "healthy"})
        elif server == "litellm" and path == "health":
            self.say(503, {"message": "asked every model"})
        elif server == "key" and self.headers.get("authorization") != "Bearer right":
            self.say(401, {"error": {"message": "no", "code": "invalid_api_key"}})
        elif server == "openai" and path == "metrics":
            self.raw(200, CARDS, "text/plain")
        elif path == "v1/models":
            self.say(200, MODELS)
        else:
            self.say(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        _, server, _ = self.path.split("/", 2)
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if server in ("429", "503"):
            code = {"429": "rate_limit_exceeded", "503": "model_loading"}[server]
            self.say(int(server), {"error": {"message": "later", "type": "x", "param": None, "code": code}})
        elif server == "html":
            self.raw(200, PAGE, "text/html")
        else:
            self.stream(server, asked)

    def stream(self, server: str, asked: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        words = min(TOKENS, asked["max_tokens"])
        role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        texts = [{"choices": [{"index": 0, "delta": {"content": f"w{i} "}}]} for i in range(words)]
        events = [json.dumps(chunk) for chunk in [role, *texts]]
        if server == "error":
            events += [json.dumps({"error": {"message": "the engine died", "code": "engine_crashed"}})]
        elif server not in ("cut", "half"):
            events += ["[DONE]"]
        for event in events:
            self.chunk(f"data: {event}\n\n".encode())
        if server != "half":
            self.chunk(b"")
        self.close_connection = True  # without a word before, as llama-server does

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def say(self, status: int, body: Any) -> None:
        self.raw(status, json.dumps(body).encode(), "application/json")

    def raw(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def other_servers() -> Iterator[str]:
    """All of them, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Routes)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
