"""The percentiles of one report, or of two beside each other, as a picture.

matplotlib draws it where it is installed; nothing else here needs it, so it is no dependency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sidecar.bench.figures import SHARES, TIMES
from sidecar.errors import ConfigError

ENDINGS = (".png", ".svg", ".pdf")


def check(path: str) -> None:
    """ConfigError where a picture could not be drawn later: said before minutes of load."""
    if not path.endswith(ENDINGS) or not Path(path).parent.is_dir():
        raise ConfigError(
            f"--plot {path[:200]!r} can not be used; accepted: a file of {', '.join(ENDINGS)} "
            "in a folder that is there"
        )
    try:
        import matplotlib.figure  # noqa: F401 - whether it is there
    except ImportError:
        raise ConfigError(
            "--plot needs matplotlib, which is not installed here; "
            "`.venv/bin/python -m pip install matplotlib` brings it"
        ) from None


def draw(path: str, reports: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """One panel for each kind of time, one bar for each percentile and report."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(TIMES))
    width = 0.8 / len(reports)
    for panel, (key, title) in zip(panels, TIMES.items(), strict=True):
        for index, (name, report) in enumerate(reports):
            spread = report[key] or dict.fromkeys(SHARES, 0.0)
            places = [place + index * width for place in range(len(SHARES))]
            panel.bar(places, [spread[share] * 1e3 for share in SHARES], width, label=name)
        middle = (len(reports) - 1) * width / 2
        panel.set_xticks([place + middle for place in range(len(SHARES))], list(SHARES))
        panel.set_title(title)
        panel.set_ylabel("ms")
    if len(reports) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(reports))
    speeds = ", ".join(f"{name}: {report['tokens_per_s']:.4g} tokens/s" for name, report in reports)
    figure.suptitle(speeds)
    figure.savefig(path)
