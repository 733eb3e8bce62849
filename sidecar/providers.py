"""The hosted providers that are set: who may be asked, with which key, for which model."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from sidecar.errors import ConfigError
from sidecar.fallback import Provider
from sidecar.settings import Settings
from sidecar.settings_fallback import KEYS, MODELS, URLS

_KEY = r"[\x21-\x7e]{1,512}"
_MODEL = r"[\w./:@-]{1,256}"
_PORT = r"(:([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]))?"
# The prompt and the key go there: in the open to this machine alone, which is what tests need.
_HOST = r"(https://[\w.-]{1,253}|http://(127\.0\.0\.1|localhost|\[::1\]))"
_URL = rf"{_HOST}{_PORT}(/[\w./~-]{{0,200}})?"


def providers(settings: Settings) -> tuple[Provider, ...]:
    """Those with a key, in the order in which they are asked; none without FALLBACK=1. Raises ConfigError."""
    if not settings.fallback:
        return ()
    accounts = (
        ("together", settings.together_api_key, settings.together_model, settings.together_base_url),
        ("openai", settings.openai_api_key, settings.openai_model, settings.openai_base_url),
    )
    found = tuple(
        _provider(name, key, model, url, settings.port) for name, key, model, url in accounts if key
    )
    if not found:
        raise ConfigError(
            "FALLBACK=1 and neither TOGETHER_API_KEY nor OPENAI_API_KEY is set: there is nobody to fall back "
            "to; set one of them with its model, or FALLBACK=0"
        )
    return found


def _provider(name: str, api_key: str, model: str | None, base_url: str, own_port: int) -> Provider:
    upper = name.upper()
    if model is None:
        raise ConfigError(
            f"{upper}_API_KEY is set and {upper}_MODEL is not: say which of its models answers in our place, "
            "or unset the key"
        )
    if not re.fullmatch(_KEY, api_key, re.ASCII):
        raise ConfigError(f"{upper}_API_KEY=(not shown) can not be used; accepted: {KEYS}")
    if not re.fullmatch(_MODEL, model, re.ASCII):
        raise ConfigError(f"{upper}_MODEL={model[:80]!r} can not be used; accepted: {MODELS}")
    if not re.fullmatch(_URL, base_url, re.ASCII):
        raise ConfigError(f"{upper}_BASE_URL={base_url[:80]!r} can not be used; accepted: {URLS}")
    if base_url.startswith("http:") and urlsplit(base_url).port == own_port:
        raise ConfigError(f"{upper}_BASE_URL={base_url!r} is this server itself; name the provider's address")
    return Provider(name, base_url.rstrip("/"), model, api_key, more_samplers=name == "together")
