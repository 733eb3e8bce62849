"""`.env.template` and the README's tables, from the code: `python -m tools.env_template`.

Each program has its own table of settings and never imports the other's; here they meet.
"""

from __future__ import annotations

import re
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
)


def template() -> str:
    """The whole file."""
    compose = "\n".join(f"# {text}\n# {name}={default}\n" for name, default, text in COMPOSE)
    return (
        f"{settings.env_template()}\n"
        "# ---- The watchdog; it reads VRAM_BUDGET and DRAIN_SECONDS above, too.\n\n"
        f"{config.env_rows().rstrip()}\n\n"
        f"# ---- Read by the compose files alone.\n\n{compose}"
    )


def profiles_table() -> str:
    """The README's table of what is shipped."""
    lines = ["| profile | engine | what it is |", "|---|---|---|"]
    for profile in load_registry(settings.DEFAULT_REGISTRY).profiles.values():
        engine = "llama-server" if profile.backend == "llamacpp" else profile.backend
        lines.append(f"| `{profile.name}` | {engine} | {profile.display_name}. {profile.description} |")
    return "\n".join(lines) + "\n"


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
