"""`python -m watchdog`: guard the sidecar, or answer one question about it.

Imports as little as the question needs: the container's health check runs this every half minute.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NoReturn

from watchdog.config import Config, ConfigError, add_flags, load

EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_SOFTWARE, EX_CONFIG = 64, 65, 66, 70, 78
HEALTH_S = 5.0
PAUSE_S = 60
QUESTIONS = frozenset({"--once", "--self-test", "--replay", "--health"})

_CODES = """\
exit codes:
   0  all is well, or told to stop
   1  --health: not healthy
  64  the command line can not be understood
  65  --replay: a line of the file can not be understood
  66  --replay: no such file
  69  the Docker Engine does not answer
  70  a fault of this program
  71  the port of /health, /metrics and /events can not be used
  75  no reading now (--once, --self-test); lost its own view of the card (WATCHDOG_READER=nvml)
  77  no permission for the Docker socket
  78  a setting can not be used: its value, a container that is not there (--once, --self-test),
      a limit that is above the card's memory
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EX_USAGE, f"{self.prog}: {message} (--help lists the flags)\n")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit code. Every failure is one line on standard error."""
    flags = vars(_parser().parse_args(argv))
    try:
        config = load(flags, environ)
    except ConfigError as error:
        return _fail(EX_CONFIG, str(error))
    if flags["health"]:
        return health(config)
    if flags["replay"] is not None:
        return replay(config, flags["replay"])
    return _watch(config, single=flags["once"] or flags["self_test"])


def health(config: Config) -> int:
    """What the running watchdog says of itself; 0 when it is healthy."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.status_address, config.status_address)  # noqa: S104
    connection = http.client.HTTPConnection(address, config.status_port, timeout=HEALTH_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        said = json.loads(answer.read(65536))
        print(f"{said['status']}: {said['message']}")
        return 0 if answer.status == 200 else 1
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        return _fail(1, f"no watchdog answers at {address}:{config.status_port}: {error}")
    finally:
        connection.close()


def replay(config: Config, path: str) -> int:
    """Print what would have been done over recorded readings."""
    from watchdog import replay as recorded

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = recorded.parse(file)
    except OSError as error:
        return _fail(EX_NOINPUT, f"--replay={path}: {error.strerror}")
    except (recorded.ReplayError, UnicodeDecodeError) as error:
        return _fail(EX_DATAERR, f"--replay={path}: {error}")
    for line in recorded.table(recorded.replay(config.limits(), rows)):
        print(line)
    return 0


def _watch(config: Config, *, single: bool) -> int:
    from watchdog import logs, service

    logs.configure(config.log_format)
    try:
        if single:
            print(service.once(config))
            return 0
        return service.serve(config)
    except service.StartFailure as error:
        return _fail(error.exit_code, str(error))
    except Exception:  # ours, and worth a report with its traceback
        traceback.print_exc()
        return EX_SOFTWARE


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m watchdog",
        description="Restart the sidecar when its card's memory stays over the budget.",
        epilog=_CODES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--once", action="store_true", help="Look once, print what is seen, and end.")
    mode.add_argument("--self-test", action="store_true", help="The same: check everything a start needs.")
    mode.add_argument(
        "--replay",
        metavar="CSV",
        help="Print what would have been done over recorded readings: lines of "
        "time_s,gpu,used_mib[,own_mib][,phase][,boot], where used_mib may be ? or lost.",
    )
    mode.add_argument("--health", action="store_true", help="Ask the running watchdog whether it is healthy.")
    add_flags(parser)
    return parser


def _fail(code: int, message: str) -> int:
    print(f"watchdog: {message}", file=sys.stderr)
    return code


def _pause() -> None:
    """Docker forgets its back-off once a container has lived ten seconds, and would start us for ever."""
    print(
        f"watchdog: waiting {PAUSE_S} s before the exit, so that a restart policy does not spin",
        file=sys.stderr,
    )
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal.sigtimedwait(signals, PAUSE_S)


if __name__ == "__main__":
    exit_code = main(sys.argv[1:], os.environ)
    if exit_code == EX_CONFIG and os.getpid() == 1 and not QUESTIONS.intersection(sys.argv):
        _pause()
    sys.exit(exit_code)
