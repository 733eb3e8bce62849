"""Every way to set something, and every way to get it wrong."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.errors import ConfigError
from sidecar.overrides import Overrides
from sidecar.settings import Settings, env_template, load, readme_table
from sidecar.settings_parse import Setting, size_mib
from sidecar.settings_table import TABLE

ROOT = Path(__file__).parents[2]


def test_nothing_is_all_defaults() -> None:
    found = load([], {})
    assert found == Settings()
    assert (found.host, found.port, found.metrics_port) == ("127.0.0.1", 8000, None)
    assert (found.model_path, found.n_gpu_layers, found.vram_budget_mib) == (None, None, 10752)


def test_every_field_has_one_row() -> None:
    assert [row.field for row in TABLE] == list(Settings.__dataclass_fields__)[:-1]
    names = [name for row in TABLE for name in row.names]
    assert len(names) == len(set(names))
    assert all(row.text.endswith(".") and row.accepts for row in TABLE)


def test_the_second_seeds_command_line() -> None:
    argv = ["--model_path", "/m", "--port", "8080", "--host", "0.0.0.0", "--load_in_4bit"]
    found = load(argv, {})
    assert (found.model_path, found.port, found.host) == (Path("/m"), 8080, "0.0.0.0")
    assert found.overrides() == Overrides(model_path=Path("/m"), quantization="4bit")


@pytest.mark.parametrize("flag", ["--model_path", "--model-path"])
def test_both_spellings(flag: str) -> None:
    assert load([flag, "/m"], {}).model_path == Path("/m")
    assert load([f"{flag}=/m"], {}).model_path == Path("/m")


def test_the_flag_wins_over_the_environment() -> None:
    assert load(["--port", "1"], {"PORT": "2"}).port == 1
    assert load([], {"PORT": "2"}).port == 2


@pytest.mark.parametrize("blank", ["", "  "])
def test_blank_is_not_set(blank: str) -> None:
    assert load([], {"PORT": blank, "CONTEXT_SIZE": blank, "N_CTX": "4096"}).context == 4096


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("CONTEXT_SIZE", "4096", "context", 4096),
        ("N_CTX", "4096", "context", 4096),
        ("LLAMACPP_CTX_SIZE_OVERRIDE", "4096", "context", 4096),
        ("N_GPU_LAYERS", "-1", "n_gpu_layers", -1),
        ("LLAMACPP_N_GPU_LAYERS_OVERRIDE", "40", "n_gpu_layers", 40),
        ("N_THREADS", "4", "threads", 4),
        ("LLAMACPP_THREADS_OVERRIDE", "4", "threads", 4),
        ("LLAMACPP_PARALLEL_OVERRIDE", "2", "parallel", 2),
        ("N_BATCH", "512", "batch_size", 512),
        ("LLAMACPP_BATCH_SIZE_OVERRIDE", "512", "batch_size", 512),
        ("CUDA_VISIBLE_DEVICES_OVERRIDE", "1,0", "cuda_visible_devices", "1,0"),
        ("LLM_CACHE_DIR", "/srv", "cache_dir", Path("/srv")),
        ("LLAMA_SERVER_PATH", "/bin/ls", "llama_server", "/bin/ls"),
        ("AUTOLOAD", "1", "autoload", True),
        ("AUTO_QUANTIZE", "0", "auto_quantize", False),
        ("METRICS_PORT", "9091", "metrics_port", 9091),
        ("MODEL_ID", "a/b@main:c/d.gguf", "model_id", "a/b@main:c/d.gguf"),
        ("MODEL_PATH", "/m/x.gguf", "model_path", Path("/m/x.gguf")),
    ],
)
def test_names_of_the_seeds(name: str, text: str, field: str, value: object) -> None:
    found = load([], {name: text})
    assert getattr(found, field) == value
    assert dict(found.origins) == {field: name}


def test_each_value_knows_what_set_it() -> None:
    found = load(["--port", "1", "--load-in-8bit"], {"PORT": "2", "N_CTX": "64", "HOST": " "})
    assert dict(found.origins) == {"context": "N_CTX", "load_in_8bit": "--load_in_8bit", "port": "--port"}


def test_hermes_ctx_is_for_hermes() -> None:
    environ = {"HERMES_CTX": "6144", "CONTEXT_SIZE": "4096"}
    assert load([], {"HERMES_CTX": "6144"}).context is None
    assert load([], environ).context == 4096
    assert load(["--profile", "hermes-3-8b-gptq"], {"HERMES_CTX": "6144"}).context == 6144
    with pytest.raises(ConfigError, match=r"CONTEXT_SIZE='4096' and HERMES_CTX='6144'"):
        load(["--profile", "hermes-3-8b-gptq"], environ)


def test_two_names_with_the_same_value_are_fine() -> None:
    assert load([], {"N_CTX": "4096", "CONTEXT_SIZE": "4096"}).context == 4096


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "80a"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "٣"),
        ("CONTEXT_SIZE", "6k"),
        ("CONTEXT_SIZE", "0"),
        ("VRAM_BUDGET", "10752"),
        ("VRAM_BUDGET", "10.5"),
        ("VRAM_BUDGET", "-1GiB"),
        ("MEMORY_BUDGET", "0MiB"),
        ("DEVICE", "gpu"),
        ("DEVICE", "cuda:"),
        ("LOG_PROMPTS", "maybe"),
        ("LOG_FORMAT", "xml"),
        ("QUEUE_TIMEOUT", "1h"),
        ("DRAIN_SECONDS", "nan"),
        ("MODEL_ID", "../../etc"),
        ("MODEL_ID", "http://x/y"),
        ("ALLOWED_HOSTS", "a b"),
        ("HOST", "a b"),
        ("LLM_PROFILE_NAME", "../x"),
        ("MAX_QUEUE", "1.5"),
        ("N_GPU_LAYERS", "-2"),
        ("N_GPU_LAYERS", "all"),
        ("LLAMACPP_PARALLEL_OVERRIDE", "0"),
        ("CUDA_VISIBLE_DEVICES_OVERRIDE", "0;1"),
        ("CUDA_VISIBLE_DEVICES_OVERRIDE", "first"),
        ("MODEL_ID", "owner/name:Q4_K_M"),
        ("MODEL_ID", "owner/name:../x.gguf"),
    ],
)
def test_a_bad_value_names_variable_value_and_what_is_accepted(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load([], {name: value})
    message = refused.value.message
    row = next(row for row in TABLE if name in row.names)
    assert message.startswith(f"{name}={value!r} ")
    assert row.accepts in message
    assert "\n" not in message
    assert refused.value.exit_code == 78


def taken(row: Setting, text: str) -> bool:
    try:
        load([], {row.names[0]: text})
    except ConfigError:
        return False
    return True


NUMBERS = [row for row in TABLE if taken(row, "16") and type(row.parse("16")) in (int, float)]


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row.names[0])
def test_what_is_said_to_be_accepted_is(row: Setting) -> None:
    """Every number has both its bounds in the message, and they are the ones that count."""
    bounds = re.search(r"from (-?\d+) to (\d+)|seconds, up to (?P<most>\d+)", row.accepts)
    assert bounds, row.accepts
    low, high = (0, int(bounds["most"])) if bounds["most"] else (int(bounds[1]), int(bounds[2]))
    found = [taken(row, str(number)) for number in (low - 1, low, high, high + 1)]
    assert found == [False, True, True, False]


@pytest.mark.parametrize(("text", "is_taken"), [("1MiB", 1), ("16384GiB", 1), ("0.9MiB", 0), ("16385GiB", 0)])
def test_sizes_have_the_bounds_that_are_said(text: str, is_taken: int) -> None:
    row = next(row for row in TABLE if row.field == "vram_budget_mib")
    assert "1MiB to 16384GiB" in row.accepts
    if is_taken:
        assert load([], {"VRAM_BUDGET": text}).vram_budget_mib >= 1
        return
    with pytest.raises(ConfigError, match="1MiB to 16384GiB"):
        load([], {"VRAM_BUDGET": text})


def test_a_bad_key_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        load([], {"API_KEY": "my secret"})
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--port", "x"], "--port: 'x' can not be used; accepted: a number"),
        (["--port"], "expected one argument"),
        (["--prot", "1"], "unrecognized arguments: --prot"),
        (["extra"], "unrecognized arguments: extra"),
        (["--vram_budget", "10"], "accepted: a size with its unit"),
    ],
)
def test_misuse_of_the_command_line_is_64_and_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        load(argv, {})
    printed = capsys.readouterr().err
    assert left.value.code == 64
    assert said in printed
    assert printed.count("\n") == 1


def test_eight_and_four_bits_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude"):
        load(["--load_in_8bit"], {"LOAD_IN_4BIT": "1"})
    assert load(["--load_in_8bit"], {"LOAD_IN_4BIT": "0"}).load_in_8bit


@pytest.mark.parametrize("text", ["10.5GiB", "10.5GB", "10752MiB", "10752 MB", "10.5gib"])
def test_sizes(text: str) -> None:
    assert size_mib(text) == 10752


def test_help_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        load(["--help"], {})
    printed = capsys.readouterr().out
    assert left.value.code == 0
    assert all(f"--{row.flag}" in printed for row in TABLE if row.flag)
    assert "[PORT]" in printed


def test_the_template_is_the_table() -> None:
    assert (ROOT / ".env.template").read_text().startswith(env_template())


def test_the_template_uncommented_is_accepted() -> None:
    lines = [line.removeprefix("# ") for line in env_template().splitlines()]
    pairs = [line.split("=", 1) for line in lines if line.split("=")[0].isupper() and "=" in line]
    found = load([], {name: value for name, value in pairs if name != "LLM_PROFILES_CONFIG_PATH"})
    assert {name for name, _ in pairs} == {row.names[0] for row in TABLE} | {"HF_TOKEN", "HERMES_CTX"}
    assert found == Settings()


def test_the_template_says_who_reads_it() -> None:
    head = env_template().split("\n\n")[0]
    assert "docker compose" in head
    assert "set -a; . ./.env; set +a" in head


def test_the_template_uncommented_is_read_by_bash(tmp_path: Path) -> None:
    """Line by line, as people uncomment them; the way that the template's head names."""
    lines = [line.removeprefix("# ") for line in env_template().splitlines()]
    given = [line for line in lines if re.match(r"[A-Z0-9_]+=", line)]
    (tmp_path / ".env").write_text("\n".join(given) + "\n")
    script = f"set -eu; set -a; . ./.env; set +a; exec {shlex.quote(sys.executable)} -c "
    script += shlex.quote("import json, os; print(json.dumps(dict(os.environ)))")
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    found = load([], json.loads(done.stdout) | {"LLM_PROFILES_CONFIG_PATH": ""})
    assert found == Settings()
    assert len(given) == len(TABLE) + 2


def test_the_template_quotes_what_bash_would_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.settings.default_of", lambda _: "two words; $HOME")
    assert "# MODEL_PATH='two words; $HOME'\n" in env_template()


def test_the_readme_has_every_name() -> None:
    table = readme_table()
    assert all(f"`{name}`" in table for row in TABLE for name in row.names)
