"""Ranges of addresses and ports as flows can match them: as numbers with masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

_PORT_BITS = 16


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that overlap or touch each other."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def blocks(first: int, last: int, bits: int) -> Iterator[tuple[int, int]]:
    """Split a range of numbers of so many bits into as few prefixes as there can be: the first number and the length."""
    while first <= last:
        size = first & -first or 1 << bits  # the largest block that may begin here
        while first + size - 1 > last:
            size >>= 1
        yield first, bits + 1 - size.bit_length()
        first += size


@lru_cache(64)
def spans(ports: tuple[tuple[int, int], ...]) -> list[str]:
    """Write the numbers with masks that ranges of ports are made of."""
    parts = [part for first, last in merged(ports) for part in blocks(first, last, _PORT_BITS)]
    return [f"{first:#x}/{0xFFFF << _PORT_BITS - length & 0xFFFF:#x}" for first, length in parts]
