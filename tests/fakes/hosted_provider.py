"""A hosted provider with OpenAI's interface, wrong in the ways of real ones. The standard library alone.

    python -m tests.fakes.hosted_provider [words ...]      prints its base URL

    hangup        closes each connection unheard          mute        says nothing for ever
    slow:0.3      the head comes so much later            status:429  another status, with an error's body
    retry:7       its Retry-After header                  moved:URL   a redirection to there
    html          a page in place of a stream             cut:2       closes the connection before word 2
    pause:0.3     so much between the first word and the second
    early:2       ends politely before word 2             stall:2     falls silent before word 2
    junk:2        a frame that is no JSON                 long:2      a line of ten megabytes
    error:2       an error in place of a frame            comments    keep-alive comments everywhere
    empty         a chunk without choices first           no-usage    no chunk of token counts
    no-done       no [DONE]                               bytes       one byte at a time, lines end in CR LF
    call          a call of the first tool on offer       say:words_like_this

Each request is kept in `asked`, with its route, key and body.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ANSWER = "Somebody else says Paris."


@dataclass
class Asked:
    """One request as it came in."""

    path: str
    key: str
    body: dict[str, Any]


@dataclass
class HostedProvider:
    """What it is like, and what it was asked."""

    words: tuple[str, ...]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def become(self, *words: str) -> None:
        """Another one at the same address: whatever it held back ends, and it was asked nothing."""
        self.gone.set()
        self.words, self.asked, self.gone = words, [], threading.Event()

    def word(self, name: str) -> str | None:
        """What stands behind `name:`; empty where nothing does, None where it is not said."""
        return next((w.partition(":")[2] for w in self.words if w.partition(":")[0] == name), None)

    def spoken(self) -> list[str]:
        """The words of the answer, each with the space before it."""
        text = (self.word("say") or ANSWER).replace("_", " ")
        return [word if at == 0 else f" {word}" for at, word in enumerate(text.split())]


class Cut(Exception):
    """The connection ends here."""


class Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    provider: HostedProvider

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.provider.asked.append(Asked(self.path, self.key(), {}))
        self.raw(200, b"redirected", "text/plain")

    def do_POST(self) -> None:
        self.close_connection = True
        length = int(self.headers["content-length"])
        self.provider.asked.append(Asked(self.path, self.key(), json.loads(self.rfile.read(length))))
        with contextlib.suppress(Cut, OSError):
            self.answer()

    def key(self) -> str:
        return (self.headers["authorization"] or "").removeprefix("Bearer ")

    def answer(self) -> None:
        provider, word = self.provider, self.provider.word
        if word("hangup") is not None:
            raise Cut
        if word("mute") is not None:
            provider.gone.wait()
            raise Cut
        provider.gone.wait(float(word("slow") or 0))
        if (status := word("status")) is not None:
            return self.refuse(int(status))
        if (elsewhere := word("moved")) is not None:
            return self.raw(307, b"", "text/plain", location=elsewhere)
        if word("html") is not None:
            return self.raw(200, b"<html>All systems operational</html>", "text/html")
        return self.stream() if provider.asked[-1].body.get("stream") else self.whole()

    def whole(self) -> None:
        """A chat that is not streamed; what goes wrong between words has no place in it."""
        message = {"role": "assistant", "content": "".join(self.provider.spoken())}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
        body = {"id": "theirs", "object": "chat.completion", "created": 1, "model": "theirs"}
        self.raw(
            200,
            json.dumps(body | {"choices": [choice], "usage": usage}).encode(),
            "application/json",
        )

    def refuse(self, status: int) -> None:
        # Real ones repeat a part of the key; this one all of it, and the prompt.
        echo = f"Incorrect API key provided: {self.key()}: {self.provider.asked[-1].body}"
        retry = self.provider.word("retry")
        headers = {} if retry is None else {"retry-after": retry}
        self.raw(
            status,
            json.dumps({"error": {"message": echo, "code": None}}).encode(),
            "application/json",
            **headers,
        )

    def stream(self) -> None:
        provider, word = self.provider, self.provider.word
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if word("empty") is not None:
            self.frame({"choices": []})
        if not self.chat():
            self.say({"text": ""})
        else:
            self.say({"delta": {"role": "assistant", "content": ""}})
        called = word("call") is not None
        for index, text in enumerate([] if called else provider.spoken()):
            self.misbehave(index)
            self.say({"delta": {"content": text}} if self.chat() else {"text": text})
        self.misbehave(len(provider.spoken()))
        if called:
            self.call()
        end = {"finish_reason": "tool_calls" if called else "stop"}
        self.say({"delta": {}, **end} if self.chat() else {"text": "", **end})
        if word("no-usage") is None:
            self.frame(
                {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}}
            )
        if word("no-done") is None:
            self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chat(self) -> bool:
        return self.path.endswith("/chat/completions")

    def call(self) -> None:
        name = self.provider.asked[-1].body["tools"][0]["function"]["name"]
        first = {"index": 0, "id": "call_7", "type": "function", "function": {"name": name, "arguments": ""}}
        self.say({"delta": {"content": None, "tool_calls": [first]}})
        for piece in ('{"city": ', '"Oslo"}'):
            self.say({"delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}})

    def say(self, choice: dict[str, Any]) -> None:
        self.frame(
            {"choices": [{"index": 0, "finish_reason": None, "logprobs": None, **choice}], "usage": None}
        )

    def misbehave(self, index: int) -> None:
        word = self.provider.word
        if word("cut") == str(index):
            raise Cut
        if word("early") == str(index):
            self.chunk(b"")
            raise Cut
        if index == 1 and word("pause"):
            self.provider.gone.wait(float(word("pause") or 0))
        if word("stall") == str(index):
            self.provider.gone.wait()
            raise Cut
        if word("junk") == str(index):
            self.chunk(b"data: {not json\n\n")
        if word("long") == str(index):
            self.chunk(b"data: " + b"x" * 10_000_000 + b"\n\n")
        if word("error") == str(index):
            self.frame(
                {"error": {"message": "The server had an error", "type": "server_error", "code": None}}
            )

    def frame(self, value: dict[str, Any]) -> None:
        if self.provider.word("comments") is not None:
            self.chunk(b": keep-alive\n\nevent: message\nid: 1\n")
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        single = self.provider.word("bytes") is not None and data
        for piece in [bytes([b]) for b in data.replace(b"\n", b"\r\n")] if single else [data]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def raw(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of the game."""


@contextlib.contextmanager
def hosted_provider(*words: str, certificate: Path | None = None) -> Iterator[HostedProvider]:
    """One that listens until the block ends. `certificate` is a PEM file of both: it speaks TLS then."""
    provider = HostedProvider(words)
    with Server(("127.0.0.1", 0), type("Its", (Routes,), {"provider": provider})) as server:
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        provider.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield provider
        finally:
            provider.gone.set()
            server.shutdown()
            thread.join(10)


@contextlib.contextmanager
def nobody() -> Iterator[HostedProvider]:
    """A provider that is down: its port is taken, and nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield HostedProvider((), f"http://127.0.0.1:{taken.getsockname()[1]}/v1")


def main() -> None:
    with hosted_provider(*sys.argv[1:]) as provider:
        print(provider.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
