"""What the terminal says while the service starts: progress, then one screen of facts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator

from sidecar.api.auth import is_loopback
from sidecar.api.hints import QUESTION, curl
from sidecar.engine import Failed, Loading, Ready, Unloaded
from sidecar.errors import RequestError, SidecarError
from sidecar.generation import Delta, Done, GenerationRequest, Message, Sampling, Usage
from sidecar.listening import url_of
from sidecar.profiles import Profile
from sidecar.progress import Show, shown
from sidecar.providers import providers
from sidecar.service import Service
from sidecar.settings import Settings

log = logging.getLogger("sidecar.serve")

LOOK_SECONDS = 0.1
ANSWER_TOKENS = 32


def warn_if_open(settings: Settings) -> None:
    """Say so when everybody on the network may use the model."""
    if settings.api_key is None and not is_loopback(settings.reached_at):
        _teller(settings)(
            f"Warning: {settings.reached_at} can be reached from other machines and no API_KEY is "
            "set: everybody there may use the model."
        )


def warn_if_prompts_leave(settings: Settings) -> None:
    """Say so when prompts may be sent to hosted providers, and to which."""
    if asked := ", then ".join(f"{one.name} ({one.base_url}, {one.model})" for one in providers(settings)):
        _teller(settings)(
            "Warning: FALLBACK=1: where this engine can not answer, prompts are sent to "
            f"{asked}; {settings.fallback_per_hour} an hour at most."
        )


async def announce(
    service: Service, profile: Profile, settings: Settings, listener: socket.socket
) -> Ready | Failed | Unloaded:
    """Follow the loading, then tell the address, the facts, one answer and a curl; how it ended.

    With JSON lines for a log all of it is lines of the log: what reads them takes nothing else.
    """
    url, tell = address(settings, listener), _teller(settings)
    tell(f"Listening on {url} (loading {profile.display_name or profile.name}; GET /health)")
    with shown(tell) as show:
        state = await loaded(service, show)
    if isinstance(state, Failed):
        tell(f"The model could not be loaded: {state.reason}")
    if not isinstance(state, Ready):
        return state
    facts = (*_facts(state, profile), ("answer", await ask(service)))
    if settings.log_format == "json":
        log.info("ready", extra={"url": url, "facts": dict(facts)})
        return state
    say(f"\n  Ready      {url}")
    for name, value in facts:
        say(f"  {name:<10} {value}")
    say(f"\n  {curl(url, '/generate', needs_key=settings.api_key is not None)}\n")
    return state


def _teller(settings: Settings) -> Callable[[str], None]:
    return say if settings.log_format == "plain" else log.info


def address(settings: Settings, listener: socket.socket) -> str:
    """The URL that works from this machine; of a container, from the machine that it is published on."""
    return url_of(settings.reached_at, settings.publish_port or listener.getsockname()[1])


async def ask(service: Service) -> str:
    """One question, and what came back: the answer and the speed, or what went wrong."""
    chat: tuple[Message, ...] = (Message("user", QUESTION),)
    for prompt in (chat, QUESTION):
        try:
            return await _answer(service, prompt)
        except RequestError as error:
            # A model without a chat template still completes text.
            problem = error.message
        except SidecarError as error:
            return f"none ({error.message})"
    return f"none ({problem})"


async def _answer(service: Service, prompt: str | tuple[Message, ...]) -> str:
    request = GenerationRequest(
        "self-test-at-start", prompt, ANSWER_TOKENS, Sampling(temperature=0.0), deadline_s=60.0
    )
    began, text, usage = time.monotonic(), "", Usage(0, 0)
    async with contextlib.aclosing(service.stream(request)) as events:
        async for event in events:
            if isinstance(event, Delta):
                text += event.text
            elif isinstance(event, Done):
                usage = event.usage
    speed = usage.completion_tokens / max(1e-6, time.monotonic() - began)
    shown = " ".join(text.split())[:200]
    return f'"{QUESTION}" -> "{shown}" ({speed:.0f} tokens/s)'


def _facts(state: Ready, profile: Profile) -> Iterator[tuple[str, str]]:
    capacity = state.capacity
    yield "profile", f"{profile.name} (model {profile.model_id})"
    yield "device", state.device
    yield from state.about
    yield (
        "capacity",
        f"{_counted(capacity.slots, 'request')} at once, context {capacity.context} tokens, "
        f"{_counted(capacity.pages, 'page')} of {capacity.page_tokens} tokens",
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


async def loaded(service: Service, show: Show) -> Ready | Failed | Unloaded:
    """Follow the loading to its end; `show` hears how far it is. Unloaded: somebody called it off."""
    while isinstance(state := service.state(), Loading):
        show(state.phase, state.progress, state.detail)
        await asyncio.sleep(LOOK_SECONDS)
    return state


def say(text: str) -> None:
    """A line for the person at the terminal, if there is one; the log goes to standard error."""
    try:
        print(text, flush=True)
    except OSError:
        # Nobody reads any more (`| head -1`). What is still buffered would fail again at the exit.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
