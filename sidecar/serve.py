"""Composition: settings -> profile -> engine -> service -> application -> listener.

The port is taken before anything is loaded, so that a second start fails at once and the phase
can be asked for within moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from sidecar import control, descriptors, logs
from sidecar.announce import announce, loaded, warn_if_open, warn_if_prompts_leave
from sidecar.api import create_app
from sidecar.api.connection import http_config
from sidecar.control import Control
from sidecar.engine import Engine, Failed, ServiceState
from sidecar.events import Events
from sidecar.gate import Gate
from sidecar.hosted import open_hosted
from sidecar.listening import listening
from sidecar.metrics import Metrics
from sidecar.metrics_port import metrics_port
from sidecar.pressure import Budgets
from sidecar.profiles import Profile
from sidecar.progress import Show
from sidecar.registry import Registry, load_registry
from sidecar.service import Service
from sidecar.settings import Settings
from sidecar.shelf import ServedModel, Shelf

log = logging.getLogger("sidecar.serve")

LINGER_SECONDS = 0.3
# A thread that reads a large body gives way after so long. At Python's own 5 ms the loop, which asks
# for its turn again after every system call, would hardly move beside it.
SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that `build` has put together."""

    app: FastAPI
    service: Service
    metrics: Metrics
    profile: Profile


def build(settings: Settings, events: Events | None = None) -> Parts:
    """Put the parts together. Loads nothing; StartError when a part can not be made.

    Without `events` what happens is only kept in memory: the file is the serving process's alone.
    """
    events = events or Events()
    registry = load_registry(settings.profiles_path)
    profile = registry.select(settings.profile, settings.overrides())
    metrics = Metrics(CollectorRegistry())
    service = Service(
        _shelf(registry, profile, settings, events),
        served_model(profile),
        Gate(settings.max_queue, settings.queue_timeout_s, settings.queue_patience_s),
        metrics,
        autoload=settings.autoload,
        drain_s=settings.drain_s,
        log_prompts=settings.log_prompts,
        events=events,
        budgets=Budgets(settings.vram_budget_mib, settings.memory_budget_mib),
        hosted=open_hosted(settings, profile.default_max_tokens, metrics),
    )
    app = create_app(
        service,
        metrics,
        api_key=settings.api_key,
        reached_at=settings.reached_at,
        allowed_hosts=settings.allowed_hosts,
    )
    return Parts(app, service, metrics, profile)


def served_model(profile: Profile) -> ServedModel:
    """What the API says of a profile."""
    hosts = tuple(profile.llamacpp.image_hosts) if profile.llamacpp else ()
    return ServedModel(
        id=profile.model_id,
        aliases=(profile.name,),
        title=profile.display_name,
        tools=profile.supports_tools,
        vision=profile.supports_vision,
        embeddings=profile.supports_embeddings,
        image_hosts=hosts,
    )


def _shelf(registry: Registry, first: Profile, settings: Settings, events: Events) -> Shelf:
    """Every profile of the registry, and the one that is served first as it was overridden.

    MODEL_ID and MODEL_PATH are about the first one; what else was said stands over every profile.
    """
    # Late, so that what only reads settings does not pay for the engines' imports.
    from sidecar.engines import open_engine

    others = settings.overrides().without_model
    profiles = {served_model(first): first}
    for name, profile in registry.profiles.items():
        if name != first.name:
            profiles[served_model(profile)] = profile

    def open_model(model: ServedModel) -> Engine:
        profile = profiles[model]
        chosen = profile if profile is first else registry.select(profile.name, others)
        return open_engine(chosen, settings, events)

    return Shelf(tuple(profiles), open_model)


def serve(settings: Settings) -> int:
    """Serve until a signal comes; the exit code."""
    logs.configure(settings.log_format, prompts=settings.log_prompts)
    sys.setswitchinterval(SWITCH_SECONDS)
    with (
        listening(settings.host, settings.port) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        parts = build(settings, Events(settings.events_path))
        _keep()
        return runner.run(run(settings, parts, listener))


def _keep() -> None:
    """What is there before the first request stays: the collector of cycles need not look through it again.

    Else each of its full rounds holds every stream up for as long as it takes to visit all modules: 45 ms,
    which are spent here once.
    """
    gc.collect()
    gc.freeze()


async def warm(settings: Settings, show: Show) -> ServiceState:
    """Load the model once and let go of it: what a first start would wait for is done then."""
    service = build(settings).service
    await service.start()
    try:
        return await loaded(service, show)
    finally:
        await service.stop()


class Listener(uvicorn.Server):
    """uvicorn without its own signals, which would close the door before the drain, and without its ticks."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Close the door."""
        self.should_exit = True
        self._leaving.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are `Stop`'s."""
        yield

    async def main_loop(self) -> None:
        """Keep the date of answers. With uvicorn's ten looks a second an idle sidecar works twice as much."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leaving.wait()


class Stop:
    """SIGTERM and SIGINT: the first begins the drain, the second ends it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def ring(self) -> None:
        """One signal came."""
        (self.insisted if self.asked.is_set() else self.asked).set()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to both signals inside the block."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.ring)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


async def run(settings: Settings, parts: Parts, listener: socket.socket) -> int:
    """Load, announce, serve, drain, stop; the exit code."""
    stop = Stop()
    server = Listener(http_config(parts.app))
    descriptors.allow_many()
    warn_if_open(settings)
    warn_if_prompts_leave(settings)
    with stop.on_signals(), metrics_port(settings.host, settings.metrics_port, parts.metrics):
        async with control.listening(parts.service, settings.control_socket) as watchdog:
            parts.service.events.begin()
            await parts.service.start()
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            watching = asyncio.create_task(parts.metrics.gpu.run())
            looking = asyncio.create_task(parts.service.pressure.run())
            loading = announce(parts.service, parts.profile, settings, listener)
            refused = asyncio.create_task(_refused(loading))
            await _first(serving, refused, stop.asked)
            draining = None
            if not refused.done():
                draining = asyncio.create_task(_drain(parts.service, settings.drain_s, watchdog))
                await _first(draining, stop.insisted)
            await parts.service.stop()
            if draining is not None:  # whom a second signal cut is counted too
                await draining
            server.leave()
            await serving
            # A container's port is relayed by a process of Docker's, which ends with the container and
            # takes with it what it has not passed on: answers whose status line had already arrived.
            await asyncio.sleep(LINGER_SECONDS)
            exit_code = refused.result() if refused.done() else 0
            await _cancelled(watching, looking, refused)
    return exit_code


async def _drain(service: Service, seconds: float, watchdog: Control | None) -> None:
    running = f"{service.gate.running} running and {service.gate.waiting} waiting"
    service.events.record("stop", f"stopping: {running} may finish within {seconds:g} s", by="signal")
    result = await service.drain(seconds)
    service.events.record("stopped", f"drained: {result.finished} answers finished, {result.cut} cut")
    if watchdog is not None:
        watchdog.drained(result)


async def _refused(loading: Awaitable[ServiceState]) -> int:
    """The exit code of a load that only the operator can mend; of any other, never."""
    try:
        state = await loading
    except Exception:  # what is said of the service must not end it
        log.exception("the start could not be announced")
    else:
        if isinstance(state, Failed) and state.exit_code is not None:
            return state.exit_code
    never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    return await never


async def _first(*awaited: asyncio.Task[Any] | asyncio.Event) -> None:
    """Wait until one task is done or one event is set; tasks go on, whoever came first."""
    rung = [asyncio.create_task(one.wait()) for one in awaited if isinstance(one, asyncio.Event)]
    tasks = [one for one in awaited if isinstance(one, asyncio.Task)]
    await asyncio.wait({*tasks, *rung}, return_when=asyncio.FIRST_COMPLETED)
    await _cancelled(*rung)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            log.error("a task beside the server failed", exc_info=result)
