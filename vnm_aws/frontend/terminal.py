"""Lay out what `oneaws` prints: tables like those of OpenNebula's own commands, and progress."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Collection, Sequence

_EVERY_S = 0.1


def table(head: Sequence[str], lines: Sequence[Sequence[object]], right: Collection[str] = ()) -> str:
    """Lay out a table with a head, as wide as it must be.

    Args:
        head: names of the columns.
        lines: their values.
        right: columns of numbers, which are aligned to the right.
    """
    rows = [list(head), *([str(value) for value in line] for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def cell(text: str, column: int) -> str:
        return text.rjust(widths[column]) if head[column] in right else text.ljust(widths[column])

    return "\n".join(" ".join(cell(text, column) for column, text in enumerate(row)).rstrip() for row in rows)


class Progress:
    """Say on stderr what is being done: a line each when asked, else one that is rewritten, and only on a terminal."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._rewrites = sys.stderr.isatty() and not verbose
        self._last = 0.0

    def __call__(self, line: str) -> None:
        if self._verbose:
            print(line, file=sys.stderr, flush=True)
        elif self._rewrites and time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave no line behind."""
        if self._last:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
