"""The scrape configuration, the alerts, the dashboard: by their text, by promtool, by a real Prometheus.

Debian's prometheus is enough: `PROMETHEUS_PATH=$(tools/prometheus-from-debian.sh)`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import httpx
import pytest
import yaml

from sidecar.budget import MIB, Plan
from sidecar.engine import Ready
from sidecar.generation import EngineStats
from sidecar.gpu import GpuReading
from sidecar.metrics import OUTCOMES
from sidecar.metrics_port import metrics_port
from sidecar.pressure import Budgets
from sidecar.standing import PHASES
from tests.e2e.program import ROOT, free_port, until
from tests.fakes.engine import CAPACITY, ScriptedEngine
from tests.fakes.live import Live, live_server
from tests.watchdog.test_loop import World
from tests.watchdog.timeline import GPU, OVER
from tools.dashboard.__main__ import FILE, text
from tools.dashboard.panels import ROWS
from tools.metrics_doc import DOCUMENT, GROUPS
from watchdog.observation import Card
from watchdog.status import StatusServer

PROMETHEUS = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
QUERIES = [
    pytest.param(panel.title, expr, id=f"{panel.title}: {legend}")
    for panels in ROWS.values()
    for panel in panels
    for expr, legend in panel.queries
]
# Under the load of this test these are above zero at some moment.
MOVING = {
    "KV memory reserved", "Requests", "Tokens a second", "Generations a second, by outcome",
    "Refused a second, by code", "Length of a request", "First token", "Between tokens", "Whole answers",
    "Waiting for a turn", "Where the time goes", "Up for", "Memory", "Of the budget",
}  # fmt: skip
PLAN = Plan(2048.0, 100.0, 1.0, 0.0, 1.0, pages=4, page_tokens=16, context=64)


def tool(name: str) -> str:
    """Where the program is; the test is left out where it is not."""
    folder = os.environ.get("PROMETHEUS_PATH")
    found = shutil.which(name, path=folder or None)
    if found is None:
        assert folder is None, f"PROMETHEUS_PATH={folder} has no {name}"
        pytest.skip(f"needs {name}: PROMETHEUS_PATH=$(tools/prometheus-from-debian.sh)")
    return found


def known_names() -> set[str]:
    """Every series that there is, those of a histogram too."""
    found = set(re.findall(r"(?m)^\| `(watchdog_\w+)`", DOCUMENT.read_text("utf-8")))
    for metric in (metric for group in GROUPS.values() for metric in group):
        ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        found |= {metric.name + end for end in ends}
    return found


def named(expr: str) -> set[str]:
    """The series that an expression asks for."""
    words = re.sub(r"\{[^}]*\}|\[[^\]]*\]|(by|on|without|ignoring) *\([^)]*\)", " ", expr)
    return set(
        re.findall(r"\b(?:vllm:|llm_sidecar_|watchdog_|inference_|gpu_|active_|process_|fallback_)\w+", words)
    )


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_nothing_is_asked_for_that_is_not_there() -> None:
    asked = {rule["alert"]: rule["expr"] for rule in alerts()}
    asked |= {param.id: param.values[1] for param in QUERIES if param.id}
    asked |= {metric.name: metric.query for group in GROUPS.values() for metric in group}
    known = known_names()
    assert {who: named(expr) - known for who, expr in asked.items() if named(expr) - known} == {}
    assert sum(bool(named(expr)) for expr in asked.values()) == len(asked) - 1  # one asks for `up` alone


def test_the_codes_and_phases_of_the_alerts_exist() -> None:
    for rule in alerts():
        for label, words in re.findall(r'(status|code|phase)=~?"([^"]+)"', rule["expr"]):
            known = PHASES if label == "phase" else OUTCOMES
            for word in words.split("|"):
                assert any(re.fullmatch(word, name) for name in known), f"{rule['alert']}: {word}"


def test_every_alert_says_what_to_do_and_is_played() -> None:
    played = (ROOT / "tests" / "deploy" / "rules_test.yml").read_text()
    for rule in alerts():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"].keys() == {"summary", "action"}
        assert f'alertname="{rule["alert"]}"' in played


def test_the_dashboard_is_made_from_its_table() -> None:
    assert FILE.read_text("utf-8") == text()


def test_panels_lie_side_by_side_and_belong_to_the_source_that_is_provisioned() -> None:
    taken: set[tuple[int, int]] = set()
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    for panel in json.loads(text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == source["uid"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/llm-sidecar.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_promtool_finds_nothing_wrong_and_plays_every_alert() -> None:
    promtool = tool("promtool")
    for words in (
        ("check", "config", str(PROMETHEUS / "prometheus.yml")),
        ("check", "rules", str(PROMETHEUS / "rules.yml")),
        ("test", "rules", str(ROOT / "tests" / "deploy" / "rules_test.yml")),
    ):
        done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Asked:
    """A Prometheus that scrapes five times a second."""

    url: str

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(
            f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=10
        ) as answer:
            return json.load(answer)["data"]

    def last_seconds(self, expr: str) -> list[list[float]]:
        """The values of each series in the last three seconds."""
        now = time.time()
        ends = {"start": f"{now - 3:.3f}", "end": f"{now:.3f}", "step": "0.2"}
        found = self.get("/api/v1/query_range", query=expr, **ends)["result"]
        return [[float(value) for _, value in series["values"]] for series in found]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A sidecar under load and a watchdog, scraped as docker/prometheus says, on other ports."""
    prometheus = tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with _sidecar() as (live, port), _watchdog() as guard, _load(live):
        targets = {"llm-sidecar": port, "vram-watchdog": guard}
        shutil.copy(PROMETHEUS / "rules.yml", folder)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(_here(targets)))
        own = free_port()
        command = [
            prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{own}", "--log.level=error",
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=folder)
        try:
            found = Asked(f"http://127.0.0.1:{own}")
            until(lambda: _scraped(found), "scrapes for three seconds", 60)
            yield found
        finally:
            process.terminate()
            process.wait(20)


def _scraped(found: Asked) -> bool:
    try:
        counts = found.last_seconds('sum_over_time(up{job=~"llm-sidecar|vram-watchdog"}[3s])')
    except OSError:
        return False
    return len(counts) == 2 and all(max(series) >= 12 for series in counts)


def _here(ports: dict[str, int]) -> dict[str, Any]:
    """The shipped file with the two targets that there are, and shorter times."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "1s"}
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in ports]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    return config


@contextmanager
def _sidecar() -> Iterator[tuple[Live, int]]:
    engine = ScriptedEngine(state=Ready("cpu", CAPACITY, (), PLAN))
    engine.told = EngineStats(resident_bytes=40 * MIB, heard_at=time.monotonic())
    with live_server(engine, budgets=Budgets(memory_mib=2048.0)) as live:
        metrics = live.service.metrics
        metrics.gpu.latest = (GpuReading(0, "a card", "GPU-1", 5 * 1024**3, 8 * 1024**3, 61.0),)
        with metrics_port("127.0.0.1", 0, metrics) as port:
            assert port is not None
            yield live, port


@contextmanager
def _watchdog() -> Iterator[int]:
    world = World()
    world.play([OVER] * 20, 6)
    world.tally.cards = {GPU: Card(OVER, 24576.0, own_mib=OVER)}
    server = StatusServer("127.0.0.1", 0, world.tally, world.journal)
    server.start()
    try:
        yield server.server_address[1]
    finally:
        server.close()


@contextmanager
def _load(live: Live) -> Iterator[None]:
    """Six clients on four slots, whose answers are held twice a second; one that is refused."""
    over = Event()

    def ask(body: dict[str, Any]) -> None:
        with httpx.Client(base_url=live.url, timeout=30) as http:
            while not over.is_set():
                http.post("/v1/completions", json=body)
                over.wait(0.02)

    def release() -> None:
        while not over.wait(0.5):
            live.engine.release()

    held = {"prompt": "some words [hold:2][say:one two three four five]", "max_tokens": 8}
    refused = {"prompt": "words", "max_tokens": CAPACITY.context}
    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(ask, body) for body in [held] * 6 + [refused]]
        clients.append(pool.submit(release))
        try:
            yield
        finally:
            over.set()
            until(lambda: _let_go(live, clients), "the clients are done", 30)
    for client in clients:
        client.result()


def _let_go(live: Live, clients: list[Any]) -> bool:
    live.engine.release()
    return all(client.done() for client in clients)


@pytest.mark.parametrize(("title", "expr"), QUERIES)
def test_every_query_of_the_dashboard_has_an_answer(asked: Asked, title: str, expr: str) -> None:
    expr = expr.replace("$instance", ".+").replace("$__rate_interval", "2s")

    def told() -> bool:
        """Every series has a number now; where there is a load, one that is above nothing."""
        found = asked.last_seconds(expr)
        values = [value for series in found for value in series if math.isfinite(value)]
        last = all(math.isfinite(series[-1]) for series in found)
        return bool(found) and last and (title not in MOVING or max(values) > 0)

    until(told, f"{title}: {expr}", 30)


def test_what_counts_moves(asked: Asked) -> None:
    for expr in ("vllm:generation_tokens_total", "inference_requests_total", "process_cpu_seconds_total"):
        until(lambda: max(len(set(s)) for s in asked.last_seconds(expr)) > 2, expr, 30)  # noqa: B023 - at once


def test_every_example_of_the_document_is_understood(asked: Asked) -> None:
    for metric in (metric for group in GROUPS.values() for metric in group):
        assert "result" in asked.get("/api/v1/query", query=metric.query)


def test_every_alert_is_evaluated_without_an_error(asked: Asked) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = asked.get("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()), "an evaluation", 30)
    assert [rule["lastError"] for rule in rules() if rule["health"] != "ok"] == []
    assert len(rules()) == len(alerts())
