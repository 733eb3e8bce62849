"""`config/llm_profiles.schema.json`, for editors, from the code: `python -m tools.profile_schema`.

What one key alone can tell is in it; how keys go together, `llm-sidecar plan` says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sidecar.profiles import NAME, Profile

SCHEMA = Path(__file__).parents[1] / "config" / "llm_profiles.schema.json"


def schema() -> dict[str, Any]:
    """The JSON schema of a registry file."""
    made = Profile.model_json_schema(ref_template="#/$defs/{model}")
    blocks = made.pop("$defs")
    del made["properties"]["name"]  # the key above the profile
    made["required"].remove("name")
    for block in (made, *blocks.values()):
        _without_titles(block)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Registry of profiles",
        "description": "Every model that can be served, by name.",
        "type": "object",
        "required": ["profiles"],
        "properties": {
            "profiles": {
                "type": "object",
                "patternProperties": {f"^{NAME.pattern}$": {"$ref": "#/$defs/Profile"}},
                "additionalProperties": False,
            }
        },
        "$defs": {"Profile": made, **blocks},
    }


def text() -> str:
    """The file, as it is written."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _without_titles(block: dict[str, Any]) -> None:
    """A key's name in capitals tells nobody anything."""
    for key in block["properties"].values():
        key.pop("title", None)


if __name__ == "__main__":
    SCHEMA.write_text(text(), encoding="utf-8")
