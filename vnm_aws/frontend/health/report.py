"""Keep what a check of everything says: lines with a name, a status and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import AwsOvsError
from ...journal import explain
from ..objects import Host

OK, WARNING, PENDING, FAILED = "ok", "warning", "pending", "failed"


class Report:
    """Lines, in the order in which things were looked at.

    Attributes:
        lines: a dictionary each, as programs read it.
    """

    def __init__(self) -> None:
        self.lines: list[dict[str, str]] = []

    def add(self, check: str, status: str, detail: object) -> None:
        """Add a line; an error is a sentence with a remedy."""
        self.lines.append({"CHECK": check, "STATUS": status, "DETAIL": str(detail)})

    def look(self, check: str, look: Callable[[], str]) -> bool:
        """Add what `look` returns, or what it raises; say whether all is well."""
        try:
            self.add(check, OK, look())
        except Exception as error:  # noqa: BLE001 - what one look runs into keeps no other from being made
            self.add(check, FAILED, explain(error, f"check {check}"))
            return False
        return True

    def part(self, check: str, look: Callable[[], object]) -> None:
        """Let `look` add lines of its own; what it raises is one more."""
        try:
            look()
        except Exception as error:  # noqa: BLE001 - likewise
            self.add(check, FAILED, explain(error, f"check {check}"))

    def errors(self, check: str, errors: Sequence[AwsOvsError], otherwise: str, status: str = FAILED) -> None:
        """Add errors, or that all is well."""
        for error in errors:
            self.add(check, status, error)
        if not errors:
            self.add(check, OK, otherwise)


def named(hosts: Sequence[Host]) -> str:
    """Name the first hosts of many."""
    names = [host.name for host in hosts]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"host{'s' if len(names) > 1 else ''} {' '.join(names[:5])}{more}"
