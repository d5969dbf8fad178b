"""Bound what a run may take: a world that hangs must not keep the next run from its turn."""

from __future__ import annotations

import math
import time

from ..errors import AwsOvsError

_SHORTEST_S = 1


class OverError(AwsOvsError):
    """The time of the run is over. What it has done stays, and the next run goes on from there."""


class Deadline:
    """Begin to count.

    Args:
        seconds: what the run may take, from now on.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Say that nothing new may begin when the time is over.

        Raises:
            OverError: it is.
        """
        if time.monotonic() >= self._end:
            what = f"this run has taken {self._seconds:.0f} s, all that run_timeout allows, and did not do the rest"
            raise OverError(what, "run 'oneaws reconcile', which goes on from here, or wait for the timer to do so")

    def left(self, most: float) -> float:
        """Count the seconds that one step may wait: `most`, or less when less is left."""
        return max(_SHORTEST_S, min(most, self._end - time.monotonic()))
