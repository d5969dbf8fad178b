"""What a test arranges for the calls that come: failures, the death of the caller, a moment to change something."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Literal

from tests.world.killing import end

from .wire import INTERNAL, OneError

When = Literal["before", "after"]


class CallerKilledError(Exception):
    """The caller is dead: there is nobody to reply to."""


class Control:
    """The arrangements, and the record of calls."""

    def __init__(self) -> None:
        # Re-entrant, for what a test does within a callback may do more of it.
        self._lock = threading.RLock()
        self._forget_arrangements()

    def _forget_arrangements(self) -> None:
        self._calls: list[tuple[str, bool]] = []
        self._kills: list[tuple[int, When, int]] = []
        self._failures: dict[str, list[OneError]] = defaultdict(list)
        self._callbacks: dict[str, list[Callable[[], None]]] = defaultdict(list)

    def calls(self) -> list[str]:
        """List the methods called since forget_calls(): failed calls too, but none that was not authenticated."""
        with self._lock:
            return [method for method, _ in self._calls]

    def mutating_calls(self) -> list[str]:
        """List those of them that change something when they succeed."""
        with self._lock:
            return [method for method, mutates in self._calls if mutates]

    def forget_calls(self) -> None:
        """Begin the record of calls anew."""
        with self._lock:
            self._calls.clear()

    def kill_at(self, n: int, when: When, pid: int) -> None:
        """Kill a process at the n-th call from now on, the first being 1; nobody gets a reply to that call.

        Args:
            when: "before" the call takes effect, or "after", but before the reply.
        """
        with self._lock:
            self._kills.append((n, when, pid))

    def fail_next(self, method: str, code: int = INTERNAL, times: int = 1, text: str = "Internal error") -> None:
        """Let the next `times` calls of a method ("one.vn.add_ar") fail without effect, with a code of wire."""
        with self._lock:
            self._failures[method].extend([OneError(code, text)] * times)

    def before(self, method: str, callback: Callable[[], None]) -> None:
        """Run a function once, just before the next call of a method does its work."""
        with self._lock:
            self._callbacks[method].append(callback)

    def _perform(self, method: str, mutates: bool, work: Callable[[], int | str]) -> int | str:
        """Do the work of a call, and what is arranged for it. Raises CallerKilledError when that kills the caller."""
        with self._lock:
            waiting = self._callbacks[method]
            callback = waiting.pop(0) if waiting else None
        if callback is not None:
            callback()
        with self._lock:
            self._calls.append((method, mutates))
            self._kills = [(count - 1, when, pid) for count, when, pid in self._kills if count > 0]
            due = [(when, pid) for count, when, pid in self._kills if count == 0]
            _kill([pid for when, pid in due if when == "before"])
            try:
                if self._failures[method]:
                    raise self._failures[method].pop(0)
                return work()
            finally:
                _kill([pid for when, pid in due if when == "after"])


def _kill(pids: list[int]) -> None:
    for pid in pids:
        end(pid)
    if pids:
        raise CallerKilledError
