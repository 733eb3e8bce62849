"""`llm-sidecar doctor [--json]`: the findings, as people and as programs read them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sidecar.doctor.facts import Finding
from sidecar.doctor.look import facts
from sidecar.doctor.start import findings
from sidecar.settings import load

PROG = "llm-sidecar doctor"


def doctor(argv: Sequence[str], environ: Mapping[str, str], *, in_container: bool) -> int:
    """1 where something would make a start fail, else 0. In a container nobody misses Docker."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--json", action="store_true", help="The findings as JSON.")
    wanted, _ = flags.parse_known_args(argv)
    found = findings(facts(load(argv, environ, PROG, beside=(flags,)), in_container=in_container))
    print(json.dumps([asdict(one) for one in found], indent=2) if wanted.json else show(found))
    return 1 if any(one.level == "failure" for one in found) else 0


def show(found: Sequence[Finding]) -> str:
    """The findings as a person reads them: a line each, and what to do below it."""
    lines = []
    for one in found:
        lines.append(f"{one.level:<8} {one.name:<8} {one.text}")
        if one.fix and one.level != "ok":
            lines.append(f"{'':<8} {'':<8} -> {one.fix}")
    return "\n".join(lines)
