"""The rows of the hosted fallback in the table of settings (`sidecar.settings_table`)."""

from __future__ import annotations

from sidecar.settings_parse import Setting, truth, whole

# Other programs read variables of these names too: what is wrong in one stops the start with FALLBACK=1
# alone (`sidecar.providers`), so no parser says no here.
KEYS = "1 to 512 printable characters without spaces"
MODELS = "the name of a model, as the provider spells it"
URLS = "an https address; http for this machine alone"


def _account(name: str, title: str) -> tuple[Setting, ...]:
    model, url = f"Which model of {title} answers in our place.", f"Where {title} is asked."
    return (
        Setting(
            f"{name}_api_key", (f"{name.upper()}_API_KEY",), str, KEYS, f"The key of {title}, for FALLBACK."
        ),
        Setting(f"{name}_model", (f"{name.upper()}_MODEL",), str, MODELS, model),
        Setting(f"{name}_base_url", (f"{name.upper()}_BASE_URL",), str, URLS, url),
    )


FALLBACK: tuple[Setting, ...] = (
    Setting(
        "fallback",
        ("FALLBACK",),
        truth,
        "1 or 0",
        "Where the engine can not answer, ask Together AI, then OpenAI: prompts leave this machine then.",
        "fallback",
        switch=True,
    ),
    Setting(
        "fallback_per_hour",
        ("FALLBACK_PER_HOUR",),
        whole(1, 1_000_000),
        "a number from 1 to 1000000",
        "How many requests may be sent to hosted providers in any hour.",
        "fallback_per_hour",
    ),
    *_account("together", "Together AI"),
    *_account("openai", "OpenAI"),
)
