"""`.env.template` and the README's tables, from the code: `python -m tools.env_template`.

Each program has its own table of settings and never imports the other's; here they meet.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from sidecar import settings
from sidecar.registry import load_registry
from watchdog import config

ROOT = Path(__file__).parents[1]
TEMPLATE, README = ROOT / ".env.template", ROOT / "README.md"
# (name, default, what it does): read by the compose files alone.
COMPOSE = (
    ("GPU_DEVICE", "0", "Which card the containers get: its index or its UUID."),
    ("PRELOAD_MODEL", "0", "1 makes the profile's model part of the image when that is built."),
    ("TORCH_WHEEL", "", "The address of torch's CPU wheel with #sha256=..., for a smaller CPU image."),
    ("BASE_IMAGE", "python:3.11-slim-bookworm", "The Python image that the images are built on."),
    ("PROXY_BASE_IMAGE", "debian:bookworm-slim", "The Debian image of the hardened overlay's proxy."),
    ("GPU_SERVER_1_PROFILE", "stheno-q4_k_m", "The profile of gpu-server-1."),
    ("GPU_SERVER_1_DEVICE", "0", "The card of gpu-server-1: its index or its UUID."),
    ("GPU_SERVER_1_PORT", "8080", "Where gpu-server-1 is published."),
    ("GPU_SERVER_1_METRICS_PORT", "9091", "Where the metrics of gpu-server-1 are published."),
    ("GPU_SERVER_2_PROFILE", "stheno-q4_k_m", "The profile of gpu-server-2."),
    ("GPU_SERVER_2_DEVICE", "1", "The card of gpu-server-2: its index or its UUID."),
    ("GPU_SERVER_2_PORT", "8081", "Where gpu-server-2 is published."),
    ("GPU_SERVER_2_METRICS_PORT", "9092", "Where the metrics of gpu-server-2 are published."),
    ("LITELLM_PORT", "4000", "Where the stack's door to both servers is published."),
    ("LITELLM_MASTER_KEY", "", "The door's key, sk-...; without one it is published to this machine alone."),
    ("GPU_SERVER_FALLBACK", "", "FALLBACK of the GPU servers themselves; in the stack it is the door's."),
    ("FALLBACK_TIMEOUT", "60", "For how many seconds a hosted provider may be silent, at the stack's door."),
    ("PROMETHEUS_PORT", "9090", "Where the stack's Prometheus is published."),
    ("GRAFANA_PORT", "3000", "Where the stack's Grafana is published."),
    ("GRAFANA_PASSWORD", "admin", "The password of Grafana's user admin."),
    ("GRAFANA_IMAGE", "grafana/grafana:12.1.1", "The image of Grafana."),
    ("PLAIN_IMAGE", "debian:bookworm-slim", "The Debian image that the stack's Prometheus is built on."),
    ("LLM_USER", "10001:10001", "Who the GPU servers are: the owner of LLM_CACHE_DIR."),
    ("ENGINE_IMAGE", "", "An image to take llama-server from; it is compiled when not set."),
    ("CUDA_ARCHITECTURES", "61;86;89;120", "For which cards llama-server is compiled; fewer are quicker."),
    ("SERVICE_NAME", "orion-llamaccp", "compose.orion.yaml: the project, the container and the image."),
    ("SERVICE_VERSION", "0.1.0", "compose.orion.yaml: the tag of the image."),
    ("LLAMACPP_HOST_PORT", "8080", "compose.orion.yaml: where it is published."),
    ("APP_NET_EXTERNAL", "false", "compose.orion.yaml: true when the network app-net is there already."),
)

# The one line that is set: every service has a profile and comes up by its name, so that the stack is the
# stack alone; without a profile `down` and `logs` would mean nobody.
SIDECAR = """\
# Whom plain `docker compose up`, `down`, `ps` and `logs` mean: the sidecar and its watchdog.
COMPOSE_PROFILES=sidecar
"""


def template() -> str:
    """The whole file."""
    compose = "\n".join(f"# {text}\n# {name}={_quoted(default)}\n" for name, default, text in COMPOSE)
    return (
        f"{settings.env_template()}\n"
        "# ---- The watchdog; it reads VRAM_BUDGET and DRAIN_SECONDS above, too.\n\n"
        f"{config.env_rows().rstrip()}\n\n"
        f"# ---- Read by the compose files alone.\n\n{SIDECAR}\n{compose}"
    )


def profiles_table() -> str:
    """The README's table of what is shipped."""
    lines = ["| profile | engine | what it is |", "|---|---|---|"]
    for profile in load_registry(settings.DEFAULT_REGISTRY).profiles.values():
        engine = "llama-server" if profile.backend == "llamacpp" else profile.backend
        lines.append(f"| `{profile.name}` | {engine} | {profile.display_name}. {profile.description} |")
    return "\n".join(lines) + "\n"


def _quoted(default: str) -> str:
    # Bash, which reads the file too, would cut it at a semicolon.
    return default and shlex.quote(default)


def with_tables(readme: str) -> str:
    """The README with its tables as they must be."""
    tables = {
        "profiles": profiles_table(),
        "settings": settings.readme_table(),
        "watchdog": config.readme_table(),
    }
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- {name}:[^>]*-->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
        found = marked.search(readme)
        assert found, name
        readme = readme.replace(found[0], f"{found[1]}{table.strip()}\n{found[3]}")
    return readme


if __name__ == "__main__":
    TEMPLATE.write_text(template(), encoding="utf-8")
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
