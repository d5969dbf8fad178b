"""Make what people read: lines that do nothing to a terminal, and tables like those of OpenNebula's own commands."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def printable(text: str) -> str:
    """Escape what a terminal or a log would act upon: control characters, line breaks, what turns the direction of text."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def table(head: Sequence[str], lines: Sequence[Sequence[object]], right: Collection[str] = (), gap: str = " ") -> str:
    """Lay out a table with a head, as wide as it must be, of printable text.

    Args:
        head: names of the columns.
        lines: their values.
        right: columns of numbers, which are aligned to the right.
        gap: what is between columns.
    """
    rows = [list(head), *([printable(str(value)) for value in line] for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def cell(text: str, column: int) -> str:
        return text.rjust(widths[column]) if head[column] in right else text.ljust(widths[column])

    return "\n".join(gap.join(cell(text, column) for column, text in enumerate(row)).rstrip() for row in rows)
