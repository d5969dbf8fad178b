"""Lay out what `oneaws` prints: tables like those of OpenNebula's own commands, and progress."""

from __future__ import annotations

import shutil
import sys
import time

from ..table import printable

_EVERY_S = 0.1


class Progress:
    """Say on stderr what is being done: a line each when asked, else one that is rewritten, and only on a terminal."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._rewrites = sys.stderr.isatty() and not verbose
        self._last = 0.0

    def __call__(self, line: str) -> None:
        line = printable(line)
        if self._verbose:
            print(line, file=sys.stderr, flush=True)
        elif self._rewrites and time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave no line behind."""
        if self._last:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
