"""The whole program over a scripted engine: `python -m tests.fakes.serve_scripted [flags]`.

The engine stays in its loading phase until SIGUSR1 when LOADING is set.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from prometheus_client import CollectorRegistry

from sidecar import logs
from sidecar.api import create_app
from sidecar.events import Events
from sidecar.gate import Gate
from sidecar.hosted import open_hosted
from sidecar.listening import listening
from sidecar.metrics import Metrics
from sidecar.registry import load_registry
from sidecar.serve import Parts, run
from sidecar.service import Service
from sidecar.settings import Settings, load
from sidecar.shelf import only
from tests.fakes.engine import ScriptedEngine, loading
from tests.fakes.live import MODEL


class WaitingEngine(ScriptedEngine):
    """Ready only when told to."""

    async def start(self) -> None:
        if os.environ.get("LOADING"):
            self.set_state(loading())
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.set_state)

    async def stop(self) -> None:
        await super().stop()
        print("engine stopped", flush=True)


def parts(settings: Settings) -> Parts:
    metrics = Metrics(CollectorRegistry())
    events, hosted = Events(settings.events_path), open_hosted(settings, 256, metrics)
    engine = WaitingEngine()
    service = Service(only(MODEL, engine), MODEL, Gate(), metrics, events=events, hosted=hosted)
    app = create_app(service, metrics, api_key=settings.api_key)
    return Parts(app, service, metrics, load_registry(settings.profiles_path).select(None))


def main() -> int:
    settings = load(sys.argv[1:], os.environ)
    logs.configure(settings.log_format)
    with listening(settings.host, settings.port) as listener:
        return asyncio.run(run(settings, parts(settings), listener))


if __name__ == "__main__":
    sys.exit(main())
