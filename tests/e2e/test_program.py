"""The program as one starts, watches and stops it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import openai
import psutil
import pytest

from tests.e2e.program import CLEAN, Program, finished, free_port, program, until

LONG = {"prompt": "Tell me a story.", "max_tokens": 1900, "logit_bias": {"0": -100, "2": -100}}


def test_the_ready_screen_says_it_all(server: Program) -> None:
    printed = server.printed()
    for words in (server.url, "embedded", "cpu", "plan", "tokens at once", "Paris", "tokens/s"):
        assert words in printed
    assert "Traceback" not in printed


def test_the_printed_curl_works_when_pasted(server: Program) -> None:
    line = next(line for line in server.printed().splitlines() if line.strip().startswith("curl -s"))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True)
    assert "Paris" in json.loads(done.stdout)["generated_text"]


def test_the_api_process_never_imports_torch(server: Program) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "libtorch" in Path(f"/proc/{server.worker().pid}/maps").read_text()


def test_health_in_the_words_of_both_seeds(server: Program) -> None:
    status, body = server.get("/health")
    assert status == 200
    assert (body["status"], body["model_loaded"], body["device"]) == ("ok", True, "cpu")
    assert re.fullmatch(r"\d+\.\d\d", body["memory_allocated_gb"])


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("waiting", [False, True])
def test_a_closed_connection_frees_its_place(server: Program, streamed: bool, waiting: bool) -> None:
    """Running or queued: the pages are worth 16 contexts, so the 17th long request waits."""
    others = [begin(server, True) for _ in range(17 if waiting else 0)]
    if waiting:
        until(lambda: server.active() >= 16, "a full house")
    running_before = server.active()
    connection = begin(server, streamed)
    if not waiting:
        until(lambda: server.active() > running_before, "running")
    for other in [connection, *others]:
        other.close()
    assert until(lambda: server.active() == 0, "all places free", 5) < 1.0
    assert server.post("/generate", prompt="What is the capital of France?")[0] == 200


def begin(server: Program, streamed: bool) -> socket.socket:
    """A long request on a socket of its own, of which nothing is read."""
    body = json.dumps({**LONG, "stream": streamed}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + body)
    return connection


def test_json_lines_are_json_lines_from_the_first_to_the_last(tmp_path: Path) -> None:
    with program(tmp_path, LOG_FORMAT="json", HOST="0.0.0.0") as own:
        until(lambda: '"message": "ready"' in own.printed(), "the ready line")
        own.process.send_signal(signal.SIGTERM)
        own.process.wait(20)
        lines = [json.loads(line) for line in own.printed().splitlines()]
    ready = next(line for line in lines if line["message"] == "ready")
    assert "Paris" in ready["facts"]["answer"]
    assert any("API_KEY" in line["message"] for line in lines)


def test_a_killed_worker_is_a_typed_error_and_comes_back(tmp_path: Path) -> None:
    with program(tmp_path) as own:
        until(own.ready, "ready")
        client = openai.OpenAI(base_url=own.url + "/v1", api_key="none", max_retries=0)
        stream = client.completions.create(model="embedded", stream=True, **LONG)  # type: ignore[call-overload]
        next(stream)
        own.worker().kill()
        with pytest.raises(openai.APIError) as broken:
            for _ in stream:
                pass
        assert broken.value.code == "engine_crashed"
        until(lambda: not own.ready(), "noticed", 5)
        status, body = own.get("/health")
        assert (status, body["status"], body["model_loaded"]) == (503, "error", False)
        assert own.get("/livez")[0] == 200
        until(own.ready, "back")
        assert "Paris" in own.post("/generate", prompt="What is the capital of France?")[1]["generated_text"]
        assert "Traceback" not in own.printed()


def test_it_answers_its_phase_at_once_and_ctrl_c_is_clean(tmp_path: Path) -> None:
    with program(tmp_path) as own:
        assert until(lambda: own.get("/livez")[0] == 200, "alive") < 3.0
        status, body = own.get("/startupz")
        assert (status, body["phase"] in ("start", "download", "load", "warmup")) == (503, True)
        assert own.post("/generate", prompt="x")[0] == 503
        assert until(own.ready, "ready") < 30.0
        worker = own.worker()
        own.process.send_signal(signal.SIGINT)
        assert own.process.wait(15) == 0
        until(lambda: not psutil.pid_exists(worker.pid), "the worker is gone", 5)
        assert "Traceback" not in own.printed()


def test_ctrl_c_while_loading(tmp_path: Path) -> None:
    with program(tmp_path) as own:
        until(lambda: own.get("/livez")[0] == 200, "alive")
        own.process.send_signal(signal.SIGINT)
        assert own.process.wait(15) == 0
        assert "Traceback" not in own.printed()


def test_a_killed_server_takes_its_worker_along(tmp_path: Path) -> None:
    with program(tmp_path) as own:
        until(lambda: own.get("/livez")[0] == 200, "alive")
        until(lambda: bool(psutil.Process(own.process.pid).children()), "a worker")
        worker = own.worker()
        own.process.kill()
        own.process.wait()
        until(lambda: not psutil.pid_exists(worker.pid), "the worker is gone", 10)


def test_the_command_line_of_seed_002_is_understood_and_refused_for_its_reason(tmp_path: Path) -> None:
    """8- and 4-bit loading needs CUDA: on another machine the start ends with one line that says so."""
    from sidecar.embedded import MODEL_DIR

    port = str(free_port())
    code, out, err = finished(
        "--model_path", str(MODEL_DIR), "--port", port, "--host", "0.0.0.0", "--load_in_4bit", DEVICE="cpu"
    )
    assert code == 78
    assert "load_in_4bit uses bitsandbytes, which needs CUDA" in out + err
    assert "Warning: 0.0.0.0" in out + err
    assert "Traceback" not in out + err


def test_a_load_that_can_not_succeed_ends_the_start(tmp_path: Path) -> None:
    """No tokenizer: the library's own words, in one line, and no second try."""
    from tests.engines import tiny

    folder = tiny.checkpoint(tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    code, out, err = finished(
        "--model_path", str(folder), "--port", str(free_port()), "--context_size", "256"
    )
    assert code == 70
    assert "The model could not be loaded: " in out
    assert "starting again" not in out + err
    assert "Traceback" not in out


def test_a_taken_port_is_named_before_anything_is_loaded(server: Program) -> None:
    began = time.monotonic()
    code, _, err = finished("--port", str(server.port))
    assert (code, err.count("\n")) == (71, 1)
    assert str(server.port) in err
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PORT": "eight"}, "PORT"),
        ({"CONTEXT_SIZE": "-1"}, "CONTEXT_SIZE"),
        ({"VRAM_BUDGET": "10752"}, "VRAM_BUDGET"),
        ({"LLM_PROFILE_NAME": "embeded"}, "embedded"),
        ({"N_CTX": "512", "CONTEXT_SIZE": "1024"}, "N_CTX"),
        ({"LLM_PROFILES_CONFIG_PATH": "/nowhere.yaml"}, "LLM_PROFILES_CONFIG_PATH"),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line(environ: dict[str, str], words: str) -> None:
    code, _, err = finished(**environ)
    assert (code, err.count("\n")) == (78, 1)
    assert words in err


def test_help() -> None:
    code, out, _ = finished("--help")
    assert code == 0
    for flag in ("--port", "--model_path", "--load_in_4bit", "--host"):
        assert flag in out.replace("--model-path", "--model_path")


def test_a_404_and_a_415_answer_with_a_curl(server: Program) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for path, headers, status in (
        ("/generat", {"content-type": "application/json"}, 404),
        ("/generate", {}, 415),
    ):
        connection.request("POST", path, b'{"prompt": "x"}', headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == status
        assert f"curl -s -X POST http://127.0.0.1:{server.port}/generate" in text
    connection.close()


def test_make_serve_ends_with_0_on_ctrl_c(tmp_path: Path) -> None:
    """What `make serve` runs, on a terminal: Ctrl-C reaches the server's own process group."""
    import pty

    port = free_port()
    pid, terminal = pty.fork()
    if pid == 0:
        import os

        os.chdir(Path(__file__).parents[2])
        os.execvpe("make", ["make", "--no-print-directory", "serve"], {**CLEAN, "PORT": str(port)})
    shown = bytearray()
    deadline = time.monotonic() + 60
    import os

    while b"Listening on" not in shown and time.monotonic() < deadline:
        shown += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # the terminal's other end is closed
        pass
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown.decode(errors="replace")
    assert b"Traceback" not in shown
    assert b"Error" not in shown
