"""The program as one starts, watches and stops it."""

from __future__ import annotations

import email.utils
import http.client
import json
import re
import signal
import subprocess
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.program import CLEAN, Program, finished, free_port, program, serving, until


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
    assert "libtorch" in Path(f"/proc/{server.child().pid}/maps").read_text()


def test_whoever_has_nothing_to_do_hardly_wakes_and_knows_the_date(server: Program) -> None:
    """Of the thread that serves; 12 times a second where uvicorn looks for its end ten times."""
    status = Path(f"/proc/{server.process.pid}/status")

    def woken() -> int:
        return int(re.findall(r"^voluntary_ctxt_switches:\t(\d+)", status.read_text(), re.M)[0])

    before = woken()
    time.sleep(4)  # not waited for anything: this is the span in which its wake-ups are counted
    assert woken() - before < 4 * 6
    with urllib.request.urlopen(f"{server.url}/livez", timeout=5) as answer:
        said = email.utils.parsedate_to_datetime(answer.headers["date"])
    assert abs(said.timestamp() - time.time()) < 3


def test_json_lines_are_json_lines_from_the_first_to_the_last(tmp_path: Path) -> None:
    with program(tmp_path, LOG_FORMAT="json", HOST="0.0.0.0") as own:
        until(lambda: '"message": "ready"' in own.printed(), "the ready line", 100)
        own.process.send_signal(signal.SIGTERM)
        own.process.wait(20)
        lines = [json.loads(line) for line in own.printed().splitlines()]
    ready = next(line for line in lines if line["message"] == "ready")
    assert "Paris" in ready["facts"]["answer"]
    assert any("API_KEY" in line["message"] for line in lines)


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


def test_without_torch_the_start_says_what_to_take(tmp_path: Path) -> None:
    """As in the images of llama.cpp: all packages but torch, which nobody finds."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if not found.name.startswith("torch"):
            (packages / found.name).symlink_to(found)
    reason = "backend `transformers` needs torch, which is not installed here; take a profile with"
    for entry, code in ((("server.py",), 78), (("-m", "sidecar", "plan", "embedded"), 78)):
        with program(tmp_path, entry=("-S", *entry), PYTHONPATH=str(packages)) as own:
            assert own.process.wait(60) == code
            assert reason in own.printed()
            assert "Traceback" not in own.printed()


@pytest.mark.llama
def test_what_does_not_fit_is_refused_with_the_arithmetic(tmp_path: Path) -> None:
    small = {**serving("embedded-gguf"), "MEMORY_BUDGET": "32MiB", "PORT": str(free_port())}
    code, out, err = finished(**small)
    assert code == 78
    assert "does not fit: process, weights and workspace are" in out
    for part in ("process", "weights", "workspace", "keys and values", "margin", "use a budget of"):
        assert part in err
    code, out, err = finished(**small, LOG_FORMAT="json")
    assert (code, out) == (78, "")
    (plan,) = json.loads(err.splitlines()[-1])["plan"]["plans"]
    assert plan["fits"] is False


def test_a_taken_port_is_named_before_anything_is_loaded(server: Program) -> None:
    # A model that is not there is what looking for it would end with.
    code, _, err = finished("--port", str(server.port), "--model_path", "/nowhere")
    assert (code, err.count("\n")) == (71, 1)
    assert str(server.port) in err


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
