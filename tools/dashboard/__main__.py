"""docker/grafana/dashboards/llm-sidecar.json, from the table of panels: `python -m tools.dashboard`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tools.dashboard.panels import ROWS, Panel

FILE = Path(__file__).parents[2] / "docker" / "grafana" / "dashboards" / "llm-sidecar.json"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24


def dashboard() -> dict[str, Any]:
    """The whole file."""
    return {
        "uid": "llm-sidecar",
        "title": "LLM Sidecar",
        "description": "Memory against its budget, load, latency, the engine and the watchdog.",
        "tags": ["llm"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "annotations": {"list": [_alerts()]},
        "templating": {"list": [_instance()]},
        "panels": list(_placed(ROWS)),
    }


def text() -> str:
    """As it is written."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _placed(rows: dict[str, tuple[Panel, ...]]) -> Iterable[dict[str, Any]]:
    """Row after row, panels side by side as long as there is room."""
    y, number = 0, 1
    for title, panels in rows.items():
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": _at(0, y, COLUMNS, 1),
        }
        y, x, number = y + 1, 0, number + 1
        for panel in panels:
            if x + panel.width > COLUMNS:
                y, x = y + 8, 0
            yield _panel(number, panel, _at(x, y, panel.width, 8))
            x, number = x + panel.width, number + 1
        y += 8


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
        for index, (expr, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "targets": targets,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": panel.unit, "min": 0, "mappings": _mappings(panel.names)}
    if panel.kind == "timeseries":
        mode = "normal" if panel.stacked else "none"
        found["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": mode, "group": "A"},
        }
    if panel.kind == "gauge":
        lines = ((None, "green"), (0.96, "yellow"), (0.98, "orange"), (1.0, "red"))
        steps = [{"value": value, "color": color} for value, color in lines]
        found |= {"max": 1.1, "thresholds": {"mode": "absolute", "steps": steps}}
    return found


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    last = {"calcs": ["lastNotNull"], "values": False}
    return {"reduceOptions": last, "textMode": "name" if panel.title == "Phase" else "value_and_name"}


def _mappings(names: Sequence[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    words = {str(value): {"text": name, "index": value} for value, name in enumerate(names)}
    return [{"type": "value", "options": words}]


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}",
    }


def _instance() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "Sidecar",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(llm_sidecar_ready, instance)", "refId": "instance"},
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
    }


def main() -> int:
    """Write it."""
    FILE.write_text(text(), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
