"""The part of docs/benchmarks.md about two sidecars behind one door."""

from __future__ import annotations

from typing import Any

from tools.bench.figures import number


def stack_part(stack: dict[str, Any] | None) -> str:
    """Its lines; the same results give the same text."""
    title = "## Two sidecars behind one door"
    if stack is None:
        return f"{title}\n\nNot measured here: `python -m tools.bench --stack` fills this in."
    m, t, first, kills = stack["machine"], stack["throughput"], stack["first"], stack["kills"]
    rows = [
        (
            f"{t['clients']} streaming clients, one sidecar behind the door",
            f"{number(t['one_words_per_s'])} words/s",
        ),
        (
            f"the same, two sidecars, whose engines can {number(t['engines_words_per_s'])}",
            f"{number(t['two_words_per_s'])} words/s, {number(t['ratio'])} times",
        ),
        (
            "the most that the door passes on, engines without a pace",
            f"{number(t['most_words_per_s'])} words/s",
        ),
        ("a stream of one word, asked of a sidecar itself, median", f"{number(first['direct_ms'])} ms"),
        (
            "what the door adds to it, median (p95)",
            f"{number(first['added_ms'])} ms ({number(first['added_p95_ms'])} ms)",
        ),
        (f"requests while a sidecar was killed {kills['kills']} times", str(kills["requests"])),
        ("of them answered with an error before they streamed", f"**{kills['not_begun_errors']}**"),
        ("streams of the one that was killed, ended by an error event", str(kills["begun_errors"])),
        ("streams that merely stopped", f"**{kills['merely_stopped']}**"),
    ]
    intro = (
        f"LiteLLM before sidecars whose engines have a pace ({t['pace_ms']} ms a word, 4 places each); "
        f"measured {m['date']} on {m['cores']} cores of {m['cpu']}, which clients, door and sidecars share; "
        f"others kept {m['busy_by_others_cores']:.2f} cores busy."
    )
    table = ["| what | figure |", "|---|---:|", *(f"| {what} | {figure} |" for what, figure in rows)]
    return "\n".join([title, "", intro, "", *table])
