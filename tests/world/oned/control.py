"""What a test arranges for the calls that come: failures, the death of the caller, a moment to change something."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.world.killing import end

from .wire import Call, OneError

When = Literal["before", "after"]


class CallerKilledError(Exception):
    """The caller is dead: there is nobody to reply to."""


@dataclass
class _Kill:
    countdown: int
    when: When
    pid: int


class Control:
    """The arrangements, and the record of calls. Whoever uses it holds the lock of its Oned."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._kills: list[_Kill] = []
        self._failures: dict[str, list[OneError]] = defaultdict(list)
        self._callbacks: dict[str, list[Callable[[], None]]] = defaultdict(list)

    def kill_at(self, number: int, when: When, pid: int) -> None:
        """Arrange a kill at the number-th call from now, 1 for the next."""
        if number < 1 or when not in ("before", "after") or pid < 1:
            raise ValueError(f"kill_at needs a call number from 1, before or after, and a PID: {number}, {when}, {pid}")
        self._kills.append(_Kill(number, when, pid))

    def fail_next(self, method: str, error: OneError, times: int) -> None:
        """Arrange that the next calls of a method fail."""
        self._failures[method].extend([error] * times)

    def before(self, method: str, callback: Callable[[], None]) -> None:
        """Arrange that a function runs before the next call of a method does."""
        self._callbacks[method].append(callback)

    def callback(self, method: str) -> Callable[[], None] | None:
        """The function to run before this call, once."""
        waiting = self._callbacks[method]
        return waiting.pop(0) if waiting else None

    def arrived(self, call: Call) -> list[_Kill]:
        """Record a call; the kills that are due after it. Raises CallerKilledError when one was due before it."""
        self.calls.append(call)
        for kill in self._kills:
            kill.countdown -= 1
        due = [kill for kill in self._kills if kill.countdown == 0]
        self._kills = [kill for kill in self._kills if kill.countdown > 0]
        self._kill([kill for kill in due if kill.when == "before"])
        return [kill for kill in due if kill.when == "after"]

    def check_failure(self, method: str) -> None:
        """Raise the failure that is arranged for this call."""
        waiting = self._failures[method]
        if waiting:
            raise waiting.pop(0)

    def finished(self, due: list[_Kill]) -> None:
        """Carry out the kills after a call. Raises CallerKilledError when there was one."""
        self._kill(due)

    def _kill(self, due: list[_Kill]) -> None:
        for kill in due:
            end(kill.pid)
        if due:
            raise CallerKilledError
