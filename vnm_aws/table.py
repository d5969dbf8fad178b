"""Lay tables out, like those of OpenNebula's own commands."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(head: Sequence[str], lines: Sequence[Sequence[object]], right: Collection[str] = (), gap: str = " ") -> str:
    """Lay out a table with a head, as wide as it must be.

    Args:
        head: names of the columns.
        lines: their values.
        right: columns of numbers, which are aligned to the right.
        gap: what is between columns.
    """
    rows = [list(head), *([str(value) for value in line] for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def cell(text: str, column: int) -> str:
        return text.rjust(widths[column]) if head[column] in right else text.ljust(widths[column])

    return "\n".join(gap.join(cell(text, column) for column, text in enumerate(row)).rstrip() for row in rows)
