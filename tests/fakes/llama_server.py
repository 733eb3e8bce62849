"""A llama-server without a model, and every way in which one can be wrong. The standard library alone.

What it does from its start on is in FAKE_LLAMA, words with spaces between:

    never-ready      /health says 503 for ever          deaf           it listens and answers nothing
    die              FAKE_LLAMA_STDERR, exit code 1     die-at-props   ends when asked for /props
    die-once:FILE    the same if FILE is not there      stubborn       ignores SIGTERM
    orphan           starts a process that stays        bad-props      /props of another shape
    no-props         /props is no route                 old-flags      --help knows no --ctx-size
    other-program    --help says something else         endless        --help never comes to an end
    no-tools         its chat template shows no functions
    small:100        a context of so many tokens        card           --list-devices shows one
    record:FILE      writes each body it is sent, as a JSON line with its route
    patience:0.05    closes a connection that is idle for so many seconds, without a word
    crowd:FILE       writes how many connections are open each time that there is one more

What it answers is in the prompt: `[say:some words]`, one word a token, and

    [crash:2]  ends before word 2       [stop:2]   stops its own process (SIGSTOP)
    [mute:2]   this stream falls silent [stuck:2]  its loop does: no stream, no /metrics
    [early:2]  ends without a last frame [cut:2]   closes the connection
    [junk:2]   a frame that is no JSON  [long:2]   a line of ten megabytes
    [error:2]  an error as a frame      [status:500] [html] [half] instead of an answer
    [call:name:{"a": 1}]  a call of a tool, on the chat route
"""

from __future__ import annotations

import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "The capital of France is Paris."
HELP = """\
-h,    --help                           show this
       --version                        show version and build info
       --list-devices                   show the devices
-m,    --model FNAME                    the model
-mm,   --mmproj FILE                    the projector
       --host HOST                      where to listen
       --port PORT                      where to listen
-a,    --alias STRING                   its name
-c,    --ctx-size N                     size of the prompt context
-np,   --parallel N                     slots
-t,    --threads N                      threads
-b,    --batch-size N                   batch
-ub,   --ubatch-size N                  batch
-dev,  --device <dev1,dev2,..>          devices
-ngl,  --gpu-layers, --n-gpu-layers N   layers
       --metrics                        figures
       --jinja                          templates
       --embedding, --embeddings        vectors
       --pooling {none,mean,cls,last,rank}   of vectors
"""
WORDS = os.environ.get("FAKE_LLAMA", "").split()
STUCK = threading.Event()
FOR_EVER = threading.Event()


def word(name: str) -> str | None:
    """What stands behind `name:`; empty where nothing does."""
    return next((w.partition(":")[2] for w in WORDS if w.partition(":")[0] == name), None)


def asked() -> None:
    """The three questions before the start."""
    if "--help" in sys.argv:
        if word("endless") is not None:
            while True:
                print("--help " * 1000)
        text = "usage: other [-h]" if word("other-program") is not None else HELP
        print(text.replace("--ctx-size", "--size").replace("-c,", "-x,") if word("old-flags") == "" else text)
        sys.exit(0)
    if "--version" in sys.argv:
        print("version: 1 (fake)", file=sys.stderr)
        sys.exit(0)
    if "--list-devices" in sys.argv:
        print("Available devices:" + ("\n  CUDA0: A card (1 MiB, 1 MiB free)" if word("card") == "" else ""))
        sys.exit(0)


def last_words() -> None:
    """What a dying program says."""
    sys.stderr.write(os.environ.get("FAKE_LLAMA_STDERR", ""))
    sys.stderr.flush()


def flag(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


class Cut(Exception):
    """The connection ends here."""


class Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = float(word("patience") or 0) or None

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if word("deaf") is not None:
            FOR_EVER.wait()
        path = self.path
        if path == "/health":
            ready = word("never-ready") is None
            self.say(200 if ready else 503, {"status": "ok"} if ready else error(503, "Loading model"))
        elif path == "/metrics":
            while STUCK.is_set():
                time.sleep(0.05)
            self.raw(200, b"llamacpp:requests_processing 0\n", "text/plain")
        elif path == "/props" and word("no-props") is None:
            if word("die-at-props") is not None:
                last_words()
                os._exit(1)
            slots = int(flag("--parallel", "1"))
            context = int(word("small") or int(flag("--ctx-size", "512")) // slots)
            props: dict[str, Any] = {"default_generation_settings": {"n_ctx": context}, "total_slots": slots}
            self.say(200, {"default_generation_settings": [7]} if word("bad-props") is not None else props)
        else:
            self.say(404, error(404, "File Not Found"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if file := word("record"):
            with open(file, "a") as kept:
                kept.write(json.dumps({"route": self.path, "body": body}) + "\n")
        routes = {
            "/tokenize": self.tokenize,
            "/apply-template": self.template,
            "/completion": self.completion,
            "/v1/chat/completions": self.chat,
            "/v1/embeddings": self.embeddings,
        }
        key = self.headers.get("authorization")
        if key != f"Bearer {os.environ['LLAMA_API_KEY']}":
            self.say(401, error(401, "Invalid API Key"))
        elif (route := routes.get(self.path)) is None:
            self.say(404, error(404, "File Not Found"))
        else:
            try:
                route(body)
            except Cut:
                self.close_connection = True

    def tokenize(self, body: dict[str, Any]) -> None:
        self.say(200, {"tokens": [byte + 3 for text in body["content"] for byte in text.encode()]})

    def template(self, body: dict[str, Any]) -> None:
        text = "".join(f"<{turn['role']}>{turn['content']}" for turn in body["messages"])
        if "no-tools" not in WORDS:
            text = "".join(f"<tool>{tool['function']['name']}" for tool in body.get("tools", ())) + text
        if "[refuse]" in text:
            self.say(500, error(500, "roles must alternate"))
        else:
            self.say(200, {"prompt": text})

    def embeddings(self, body: dict[str, Any]) -> None:
        if any("[crash" in str(text) for text in body["input"]):
            last_words()
            os._exit(3)
        rows = [
            {"embedding": [float(len(text)), 0.5], "index": index, "object": "embedding"}
            for index, text in enumerate(body["input"])
        ]
        tokens = sum(len(text) for text in body["input"])
        self.say(200, {"object": "list", "data": rows[::-1], "usage": {"prompt_tokens": tokens}})

    def completion(self, body: dict[str, Any]) -> None:
        prompt = bytes(token - 3 for token in body["prompt"]).decode()
        spoken = words(prompt)[: body["n_predict"]]
        reason = "limit" if len(spoken) < len(words(prompt)) else "eos"
        timings = {"cache_n": 1, "prompt_n": len(body["prompt"]) - 1, "predicted_n": len(spoken)}
        self.begin(prompt)
        self.frame({"content": "", "tokens": [0], "stop": False, "tokens_predicted": 0})
        for index, text in enumerate(spoken):
            self.misbehave(prompt, index)
            self.frame({"content": text, "stop": False, "tokens_predicted": index + 1})
        self.misbehave(prompt, len(spoken))
        self.frame({
            "content": "", "stop": True, "stop_type": reason, "tokens_predicted": len(spoken),
            "timings": timings,
        })  # fmt: skip
        self.chunk(b"")

    def chat(self, body: dict[str, Any]) -> None:
        prompt = json.dumps(body["messages"], ensure_ascii=False)
        self.begin(prompt)
        self.delta({"role": "assistant", "content": None})
        if found := re.search(r"\[call:(\w+):(\{.*?\})\]", prompt.replace('\\"', '"')):
            self.call(found[1], found[2])
            spoken, reason = [found[2]], "tool_calls"
        else:
            spoken, reason = words(prompt), "stop"
            for index, text in enumerate(spoken):
                self.misbehave(prompt, index)
                self.delta({"content": text})
        self.delta({}, reason)
        self.frame({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(spoken)}})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def call(self, name: str, arguments: str) -> None:
        first = {"index": 0, "id": "R4nd0m", "type": "function", "function": {"name": name, "arguments": ""}}
        self.delta({"tool_calls": [first]})
        for piece in arguments:
            self.delta({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})

    def delta(self, delta: dict[str, Any], reason: str | None = None) -> None:
        self.frame({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def begin(self, prompt: str) -> None:
        """The head of a stream, or what comes in its place."""
        if found := re.search(r"\[status:(\d+)\]", prompt):
            self.say(int(found[1]), error(int(found[1]), "refused by script"))
            raise Cut
        if "[html]" in prompt:
            self.raw(502, b"<html>Bad Gateway</html>", "text/html")
            raise Cut
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if "[half]" in prompt:
            self.wfile.write(b"fff\r\ndata: {")
            raise Cut

    def misbehave(self, prompt: str, index: int) -> None:
        for name in re.findall(rf"\[(\w+):{index}\]", prompt):
            if name == "crash":
                last_words()
                os._exit(3)
            elif name == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                FOR_EVER.wait()  # it may be another thread that the signal comes to first
            elif name == "mute":
                FOR_EVER.wait()
            elif name == "stuck":
                STUCK.set()
                FOR_EVER.wait()
            elif name == "early":
                self.chunk(b"")
                raise Cut
            elif name == "cut":
                raise Cut
            elif name == "junk":
                self.chunk(b"data: {not json\n\n")
            elif name == "long":
                self.chunk(b"data: " + b"x" * 10_000_000 + b"\n\n")
            elif name == "error":
                self.frame(error(500, "Context size has been exceeded."))
                raise Cut

    def frame(self, value: dict[str, Any]) -> None:
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def say(self, status: int, value: dict[str, Any]) -> None:
        self.raw(status, json.dumps(value).encode(), "application/json")

    def raw(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def words(prompt: str) -> list[str]:
    found = re.search(r"\[say:([^\]]*)\]", prompt)
    return re.findall(r"\s*\S+", found[1] if found else ANSWER)


def error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "type": "server_error"}}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.crowd, self.counting = 0, threading.Lock()

    def process_request_thread(self, *words: Any) -> None:
        with self.counting:
            self.crowd += 1
            if file := word("crowd"):
                with open(file, "a") as kept:
                    kept.write(f"{self.crowd}\n")
        try:
            super().process_request_thread(*words)
        finally:
            with self.counting:
                self.crowd -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of the game."""


def main() -> None:
    asked()
    once = word("die-once")
    if word("die") is not None or (once and not os.path.exists(once)):
        last_words()
        if once:
            with open(once, "w"):
                pass
        sys.exit(1)
    if word("stubborn") is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if word("orphan") is not None:
        subprocess.Popen(["sleep", "1000"])
    socketserver.TCPServer.allow_reuse_address = True
    with Server(("127.0.0.1", int(flag("--port", "0"))), Routes) as server:
        server.serve_forever(0.05)


if __name__ == "__main__":
    main()
