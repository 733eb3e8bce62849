"""Composition: a configuration becomes the running guard; and what is checked before it starts."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial

from watchdog import container, loop, report
from watchdog.config import Config
from watchdog.engine import Engine
from watchdog.journal import Journal
from watchdog.loop import Parts
from watchdog.observation import Container, Observation, Unknown
from watchdog.observer import Observer
from watchdog.probe import Probe
from watchdog.readers import ExecReader, NvmlReader, Reader
from watchdog.restarter import Restarter
from watchdog.status import StatusServer
from watchdog.tally import Tally

EX_UNAVAILABLE, EX_OSERR, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 69, 71, 75, 77, 78
_EXIT = {"docker_permission": EX_NOPERM, "docker_forbidden": EX_NOPERM}
_NO_CONTAINER = frozenset({"missing", "ambiguous"})


class StartFailure(Exception):
    """One line, and the exit code that goes with it (sysexits.h)."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def build(config: Config, stop: threading.Event) -> Parts:
    """All parts, connected; nothing has been asked yet."""
    limits = config.limits()
    engine = Engine(config.docker_host, config.docker_api_version)
    reader: Reader
    if config.reader == "nvml":
        reader = NvmlReader(Probe("the driver", stop), config.probe_timeout_s)
    else:
        reader = ExecReader(engine, Probe("nvidia-smi", stop), config.probe_timeout_s)
    tell = partial(report.ask, config.control_socket)
    find = partial(container.find, engine, config.service, config.project)
    observer = Observer(find, reader, tell, limits, clock, Probe("the Docker Engine", stop))
    return Parts(
        limits=limits,
        clock=clock,
        observe=observer.look,
        restart=Restarter(engine, config.stop_s, stop).restart,
        report=tell,
        journal=Journal(),
        # A look at its slowest: the engine, two readings, the sidecar's report, three asks.
        tally=Tally(limits, clock, time.time, config.dry_run, 2 * config.probe_timeout_s + 30),
        stop=stop,
        dry_run=config.dry_run,
        reads_locally=config.reader == "nvml",
        ask=lambda boot_id, ask: report.ask_for(config.control_socket, boot_id, limits.limit_mib, ask),
    )


def clock() -> float:
    """Seconds that only go forward, a suspended machine's included: an old streak must expire."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def check(config: Config, seen: Observation, *, strict: bool) -> str:
    """The start-up self-test, as one line about what was found. Raises StartFailure.

    Strict for a person who asks. As a service only what no waiting can cure ends the start: there
    may be no sidecar yet, and a card may be unreadable now and fine in a minute.
    """
    target = seen.target
    if isinstance(target, Unknown) and target.cause not in _NO_CONTAINER:
        raise StartFailure(_EXIT.get(target.cause, EX_UNAVAILABLE), f"DOCKER_HOST: {target.text}")
    if isinstance(target, Unknown):
        if strict:
            wanted = "the Compose service of one container of COMPOSE_PROJECT_NAME"
            said = f"WATCHDOG_SERVICE={config.service!r} can not be used: {target.text}"
            raise StartFailure(EX_CONFIG, f"{said}; accepted: {wanted}")
        return f"waiting: {target.text}"
    if target.state != "running":
        return _unready(EX_TEMPFAIL, f"{target.name} is {target.state}", strict=strict)
    if isinstance(seen.look, Unknown) and seen.look.cause == "no_gpu":
        return f"nothing to watch: {seen.look.text}"
    if not seen.cards:
        why = seen.unknowns[0]
        code = _EXIT.get(why.cause, EX_TEMPFAIL)
        return _unready(code, f"WATCHDOG_READER={config.reader}: {why.text}", strict=strict)
    totals = [card.total_mib for card in seen.cards.values() if card.total_mib is not None]
    if totals and config.limit_mib >= max(totals):
        raise StartFailure(
            EX_CONFIG,
            f"VRAM_BUDGET={config.limit_mib:.0f}MiB can not be used: no card here has more than "
            f"{max(totals):.0f} MiB; accepted: less than {max(totals):.0f}MiB",
        )
    return _found(target, seen, config)


def serve(config: Config) -> int:
    """Guard until SIGTERM or SIGINT; the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parts = build(config, stop)
    try:
        server = StatusServer(config.status_address, config.status_port, parts.tally, parts.journal)
    except OSError as error:
        where = f"{config.status_address}:{config.status_port}"
        raise StartFailure(EX_OSERR, f"WATCHDOG_STATUS_PORT: {where} can not be used: {error}") from None
    server.start()
    try:
        # Told to stop while it looked: what it then failed to see is no failure to start.
        found = check(config, parts.observe(), strict=False) if not stop.is_set() else ""
        parts.journal.record("started", f"{found}{' (dry run)' if config.dry_run else ''}")
        loop.run(parts)
    except StartFailure:
        if not stop.is_set():
            raise
    finally:
        server.close()
    if stop.is_set():
        parts.journal.record("stopped", "told to stop")
        return 0
    parts.journal.record("leaving", "this container lost its view of the card; Docker gives it a new one")
    return EX_TEMPFAIL


def once(config: Config) -> str:
    """One look, for a person; the line that tells it. Raises StartFailure."""
    return check(config, build(config, threading.Event()).observe(), strict=True)


def _unready(exit_code: int, text: str, *, strict: bool) -> str:
    if strict:
        raise StartFailure(exit_code, text)
    return f"waiting: {text}"


def _found(target: Container, seen: Observation, config: Config) -> str:
    limits, cards = config.limits(), []
    for gpu, card in seen.cards.items():
        total = "" if card.total_mib is None else f" of {card.total_mib:.0f}"
        own = "" if card.own_mib is None else f", own {card.own_mib:.0f} ({card.witness})"
        verdict = "over" if limits.is_over(card) else "over, but not by the sidecar"
        verdict = verdict if card.used_mib > limits.limit_mib else "under"
        cards.append(f"{gpu} {card.used_mib:.0f}{total} MiB{own}: {verdict} {limits.limit_mib:.0f}")
    cards += [f"{unknown.text}" for unknown in seen.unknowns]
    return f"watching {target.name} through {config.reader}: {'; '.join(cards)}"
