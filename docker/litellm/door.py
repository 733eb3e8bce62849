"""One door before several servers: completes config.yaml from the environment, then becomes LiteLLM.

GPU_SERVER_1_URL and GPU_SERVER_1_PROFILE are the first server, GPU_SERVER_2_... the second, and so on.
`--health` is the container's health check.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import yaml
from rules import HOSTED

HERE = Path(__file__).parent
CONFIG_ERROR = 78
# How often a request is repeated where a hosted provider may be asked, too.
PATIENCE = 2
# How long a hosted provider may be silent before the next one is asked, in seconds.
BEGIN_S, LONGEST_S = 60, 400
QUANTISATION = re.compile(r"-i?q\d\w*$")
PROVIDERS = (
    ("together", "Together AI", "https://api.together.xyz/v1"),
    ("openai", "OpenAI", "https://api.openai.com/v1"),
)
# LiteLLM fetches its price list from the network at every start, and answers every web page, without these.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_CORS_ORIGINS": "http://localhost",
    "LITELLM_MODE": "PRODUCTION",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
}


class DoorError(Exception):
    """One line for the person who starts it: what can not be used, and what to do."""


def completed(base: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """LiteLLM's whole configuration. Keys stay in the environment and are named only.

    Raises DoorError for a setting that can not be used.
    """
    servers = list(_servers(environ))
    hosted = list(_hosted(environ))
    names = list(dict.fromkeys(server["model_name"] for server in servers))
    # Each is asked once: what it is like the second time is what the next one is there for.
    behind = [{"model": provider["model_name"], "num_retries": 0} for provider in hosted]
    # A stream that broke before its first word is not repeated by LiteLLM, but it asks what stands here: the
    # same servers once more. A bare name would count as asked already.
    most: int = base["router_settings"]["num_retries"]
    # Who has somebody else to ask does not wait long for a server to come back, and not twice.
    retries, once_more = (min(PATIENCE, most), 0) if behind else (most, most)
    fallbacks = [{name: [{"model": name, "num_retries": once_more}, *behind]} for name in names]
    policy = {name: min(times, retries) for name, times in base["router_settings"]["retry_policy"].items()}
    router = {
        **base["router_settings"], "num_retries": retries, "retry_policy": policy, "fallbacks": fallbacks,
    }  # fmt: skip
    return {**base, "model_list": servers + hosted, "router_settings": router}


def public_name(profile: str) -> str:
    """What a profile's model is called at the door: `stheno` for `stheno-q4_k_m` and for `stheno-q5_k_m`."""
    return QUANTISATION.sub("", profile)


def permitted(environ: Mapping[str, str]) -> dict[str, str]:
    """What LiteLLM must be told about its key. Raises DoorError for a door that is open to everybody."""
    if environ.get("LITELLM_MASTER_KEY"):
        return {}
    address = environ.get("PUBLISH_ADDRESS") or "127.0.0.1"
    if not _is_loopback(address):
        raise DoorError(
            f"PUBLISH_ADDRESS={address} and no LITELLM_MASTER_KEY: everybody could use the servers; set one "
            '("sk-" and 32 characters that nobody can guess), or publish on 127.0.0.1'
        )
    return {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}


def _servers(environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    number = 1
    while url := environ.get(f"GPU_SERVER_{number}_URL"):
        profile = environ.get(f"GPU_SERVER_{number}_PROFILE")
        if not profile:
            raise DoorError(
                f"GPU_SERVER_{number}_URL is set and GPU_SERVER_{number}_PROFILE is not; set both"
            )
        key = "os.environ/API_KEY" if environ.get("API_KEY") else "none"
        yield {
            "model_name": public_name(profile),
            "litellm_params": {"model": f"openai/{profile}", "api_base": f"{url}/v1", "api_key": key},
            "model_info": {"id": f"gpu-server-{number}", "readyz": f"{url}/readyz"},
        }
        number += 1
    if number == 1:
        raise DoorError("GPU_SERVER_1_URL is not set: there is no server behind this door")


def _hosted(environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    told = environ.get("FALLBACK") or "0"
    if told not in ("0", "1"):
        raise DoorError(f"FALLBACK={told[:80]!r} can not be used; accepted: 1 or 0")
    if told == "0":
        return
    with_key = [provider for provider in PROVIDERS if environ.get(f"{provider[0].upper()}_API_KEY")]
    if not with_key:
        raise DoorError(
            "FALLBACK=1 and neither TOGETHER_API_KEY nor OPENAI_API_KEY is set: there is nobody to fall back "
            "to; set one of them with its model, or FALLBACK=0"
        )
    begin_s = _begin_s(environ)
    for name, title, url in with_key:
        upper = name.upper()
        model = environ.get(f"{upper}_MODEL")
        if not model:
            raise DoorError(
                f"{upper}_API_KEY is set and {upper}_MODEL is not: say which model of {title} answers in our "
                "place, or unset the key"
            )
        params = {
            "model": f"openai/{model}",
            "api_base": environ.get(f"{upper}_BASE_URL") or url,
            "api_key": f"os.environ/{upper}_API_KEY",
            "timeout": begin_s,
            "stream_timeout": begin_s,
        }
        yield {"model_name": HOSTED + name, "litellm_params": params, "model_info": {"id": HOSTED + name}}


def _begin_s(environ: Mapping[str, str]) -> int:
    told = environ.get("FALLBACK_TIMEOUT") or str(BEGIN_S)
    if not (told.isascii() and told.isdigit() and len(told) < 10 and 1 <= int(told) <= LONGEST_S):
        raise DoorError(
            f"FALLBACK_TIMEOUT={told[:80]!r} can not be used; accepted: whole seconds from 1 to {LONGEST_S}"
        )
    return int(told)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def main(environ: Mapping[str, str]) -> None:
    """Write the configuration, and become LiteLLM."""
    base = yaml.safe_load((HERE / "config.yaml").read_text("utf-8"))
    try:
        config, more = completed(base, environ), permitted(environ)
    except DoorError as error:
        print(f"door: {error}", file=sys.stderr)
        sys.exit(CONFIG_ERROR)
    written = Path(environ.get("DOOR_CONFIG") or Path(gettempdir()) / "litellm.yaml")
    written.write_text(yaml.safe_dump(config), "utf-8")
    # Blank is not set, here as everywhere.
    own = {name: value for name, value in environ.items() if value} | QUIET | more | {"PYTHONPATH": str(HERE)}
    program = str(Path(sys.executable).with_name("litellm"))
    where = ["--host", environ.get("HOST") or "127.0.0.1", "--port", environ.get("PORT") or "4000"]
    os.execve(program, [program, "--config", str(written), *where], own)


def healthy(environ: Mapping[str, str]) -> int:
    """0 when LiteLLM answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{environ.get('PORT') or 4000}/health/readiness", timeout=4):
            return 0
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(healthy(os.environ) if "--health" in sys.argv else main(os.environ))
