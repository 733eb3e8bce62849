"""Progress on standard error: a bar on a terminal, a plain line now and then anywhere else."""

import sys
import time


class Progress:
    """Shows how far `total` steps have come; call `show` as often as you like."""

    def __init__(self, label: str, total: int, every_s: float = 20.0) -> None:
        self.label, self.total = label, total
        self.terminal = sys.stderr.isatty()
        self.every_s = 0.2 if self.terminal else every_s
        self.started = self.last = time.monotonic()

    def show(self, done: int, note: str = "") -> None:
        """Say that `done` steps are done, unless that was said a moment ago."""
        now = time.monotonic()
        if now - self.last < self.every_s and done < self.total:
            return
        self.last = now
        line = f"{self.label} {done}/{self.total} {now - self.started:.0f}s {note}"
        if self.terminal:
            filled = 30 * done // max(1, self.total)
            end = "\n" if done >= self.total else ""
            line = f"\r[{'#' * filled}{'.' * (30 - filled)}] {line}\x1b[K{end}"
        print(line, end="" if self.terminal else "\n", file=sys.stderr, flush=True)
