"""`llm-sidecar COMMAND`: what can be done with a model beside serving it.

Every command takes the server's own flags and variables. A failure is one line and an exit code,
never a traceback; Ctrl-C at any time is 0.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.profiles import Profile
    from sidecar.settings import Settings

EXIT_USAGE = 64
EXIT_BUG = 70
# Exits that another start will not mend: a restart policy would spin on them.
LASTING = (75, 78)
PAUSE_SECONDS = 60
USAGE = """\
usage: llm-sidecar COMMAND [flags]

  serve      serve the model (what `python server.py` does)
  download   fetch the model's files; nothing is asked of the network for what is here
  check      count the files that are here anew: whole, and their sums right; of a URL: does it answer
  quantize   make a GPTQ checkpoint of a 16-bit model (its flags: llm-sidecar quantize --help)
  warm       load the model once: download it, compile its kernels, answer nothing
  profiles   every model of the registry, and whether it fits this machine
  plan       explain a profile: every value and what set it, and the child's command line
  events     what happened to the memory and the engine, and why (--follow goes on with it)
  doctor     what is here, what is missing, and what to do about it
  soak       the worst load for some minutes: memory, leaks, what failed
  bench      how fast a server of OpenAI's API answers, this one or any other

Every other command takes the flags of the server: llm-sidecar serve --help
plan, download and check take the profile's NAME: llm-sidecar plan hermes-3-8b-gptq
check takes a server's address too: llm-sidecar check http://127.0.0.1:8000
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command that the arguments name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else EXIT_USAGE
    command = COMMANDS.get(arguments[0])
    if command is None:
        print(f"llm-sidecar: no command {arguments[0]!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return EXIT_USAGE
    return run("llm-sidecar", command, arguments[1:])


def run(name: str, command: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run the command; whatever goes wrong is a line on stderr and an exit code.

    As a container's process, a service that can not start waits before it says so to Docker.
    """
    try:
        code = _guarded(name, command, argv)
    except KeyboardInterrupt:
        return 0
    if command in (serve, _serve) and code in LASTING and _restarted_at_once():
        _pause()
    return code


def _guarded(name: str, command: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    # Imported late, where Ctrl-C during the imports is caught too.
    from sidecar.errors import StartError

    try:
        return command(argv)
    except StartError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        return error.exit_code
    except Exception:
        logging.getLogger("sidecar").exception("%s ended unexpectedly", name)
        return EXIT_BUG


def serve(argv: Sequence[str]) -> int:
    """Serve until a signal comes, as `server.py`."""
    return _served(argv, "server.py")


def _serve(argv: Sequence[str]) -> int:
    return _served(argv, "llm-sidecar serve")


def _served(argv: Sequence[str], prog: str) -> int:
    from sidecar.errors import ConfigError
    from sidecar.settings import load

    settings = load(argv, os.environ, prog)
    # Last, since it takes longest: what can not be used is said at once.
    from sidecar.serve import serve as serve_until_told

    code = serve_until_told(settings)
    if code == ConfigError.exit_code:
        from sidecar.plan_command import show_refused

        show_refused(settings)
    return code


def _download(argv: Sequence[str]) -> int:
    from sidecar import file_check
    from sidecar.progress import shown
    from sidecar.settings import PROFILE_NAME, load

    settings = load(argv, os.environ, "llm-sidecar download", name=PROFILE_NAME)
    profile = _selected(settings)
    with shown(print) as show:
        said = file_check.download(profile, settings.cache_dir, partial(show, "download"))
    print(said)
    return 0


def _check(argv: Sequence[str]) -> int:
    from sidecar import file_check, server_check
    from sidecar.progress import shown
    from sidecar.settings import load

    name = "The profile, as --profile says it; or a server's address, as http://127.0.0.1:8000."
    urls = {word: url for word in argv if (url := server_check.base_url(word))}
    settings = load([word for word in argv if word not in urls], os.environ, "llm-sidecar check", name=name)
    if urls:
        verdicts = [server_check.check(url, settings.api_key) for url in urls.values()]
        print(*(verdict.text for verdict in verdicts), sep="\n")
        return max(verdict.code for verdict in verdicts)
    profile = _selected(settings)
    with shown(print) as show:
        lines = list(file_check.check(profile, settings.cache_dir, partial(show, "check")))
    print(*lines, sep="\n")
    return 0


def _selected(settings: Settings) -> Profile:
    """The profile of these settings, as it would be served."""
    from sidecar.registry import load_registry

    return load_registry(settings.profiles_path).select(settings.profile, settings.overrides())


def _quantize(argv: Sequence[str]) -> int:
    from sidecar.quantize import quantize

    return quantize(argv, os.environ)


def _warm(argv: Sequence[str]) -> int:
    from sidecar.engine import Failed
    from sidecar.progress import shown
    from sidecar.serve import warm
    from sidecar.settings import load

    with shown(print) as show:
        state = asyncio.run(warm(load(argv, os.environ, "llm-sidecar warm"), show))
    if isinstance(state, Failed):
        print(f"The model could not be loaded: {state.reason}", file=sys.stderr)
        return state.exit_code or 1
    print("The model loads; what a first start waits for is done.")
    return 0


def _profiles(argv: Sequence[str]) -> int:
    from sidecar.profiles_command import profiles

    return profiles(argv, os.environ)


def _plan(argv: Sequence[str]) -> int:
    from sidecar.plan_command import plan

    return plan(argv, os.environ)


def _events(argv: Sequence[str]) -> int:
    from sidecar.events_command import events

    return events(argv, os.environ)


def _doctor(argv: Sequence[str]) -> int:
    from sidecar.doctor.command import doctor

    return doctor(argv, os.environ, in_container=_in_container())


def _soak(argv: Sequence[str]) -> int:
    from sidecar.soak.command import soak

    return soak(argv, os.environ)


def _bench(argv: Sequence[str]) -> int:
    from sidecar.bench.command import bench

    return bench(argv, os.environ)


def _restarted_at_once() -> bool:
    """Whether a container's restart policy would start us again: as process 1, or as the child of
    the init that Docker puts there."""
    return os.getpid() == 1 or (os.getppid() == 1 and _in_container())


def _in_container() -> bool:
    return os.path.exists("/.dockerenv")


def _pause() -> None:
    """Docker starts a process that lived ten seconds again at full speed (moby, restartmanager.go)."""
    import signal

    print(
        f"waiting {PAUSE_SECONDS} s before the exit, so that a restart policy does not spin", file=sys.stderr
    )
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal.sigtimedwait(signals, PAUSE_SECONDS)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": _serve,
    "download": _download,
    "check": _check,
    "quantize": _quantize,
    "warm": _warm,
    "profiles": _profiles,
    "plan": _plan,
    "events": _events,
    "doctor": _doctor,
    "soak": _soak,
    "bench": _bench,
}
