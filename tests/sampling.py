"""Choose a few of many cases that are alike, for tests of which the whole takes too long to be run each time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
OPTION = "--every-effect"
_EVERY = 4


class Sampler(NamedTuple):
    """Chooses the same cases each time.

    Attributes:
        whole: it chooses all.
    """

    whole: bool

    def of(self, cases: Sequence[T], kind: Callable[[T], Hashable] = lambda _: None, every: int = _EVERY) -> list[T]:
        """Choose the first case, the last, the first of each kind, and one of every few.

        Args:
            cases: all of them.
            kind: tells what a case is an example of.
            every: one of so many is chosen.
        """
        if self.whole:
            return list(cases)
        kinds: dict[Hashable, int] = {}
        for number, case in enumerate(cases):
            kinds.setdefault(kind(case), number)
        chosen = {*range(0, len(cases), every), *kinds.values(), *range(len(cases))[-1:]}
        return [cases[number] for number in sorted(chosen)]
