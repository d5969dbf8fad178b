"""What an operation would change, as a list that can be printed, and what it finds wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..errors import AwsOvsError


class Change(NamedTuple):
    """One change: to what, what, and how."""

    target: str
    text: str
    apply: Callable[[], object]


class Problem(NamedTuple):
    """What keeps a thing from being as it should, and what to do."""

    target: str
    text: str


class Plan:
    """Changes in their order, and problems."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.problems: list[Problem] = []

    def change(self, target: str, text: str, apply: Callable[[], object]) -> None:
        """Add a change."""
        self.changes.append(Change(target, text, apply))

    def problem(self, target: str, text: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(target, text))


class Outcome:
    """What was done, or with a dry run would be, and what was or went wrong.

    Args:
        dry_run: change nothing.
        tell: is told each stage that begins, and each change before it is made.
    """

    def __init__(self, dry_run: bool = False, tell: Callable[[str], None] = lambda line: None) -> None:
        self.dry_run = dry_run
        self.done: list[tuple[str, str]] = []
        self.problems: list[Problem] = []
        self._tell = tell

    def carry_out(self, name: str, plan: Plan) -> bool:
        """Apply the changes one by one; one that fails becomes a problem and the others go on.

        Args:
            name: of the stage.
            plan: its changes and problems.

        Returns:
            True when something was or may have been changed.
        """
        self.problems += plan.problems
        for number, change in enumerate(plan.changes, 1):
            self._tell(f"{name} {number}/{len(plan.changes)}: {change.target}: {change.text}")
            try:
                if not self.dry_run:
                    change.apply()
                self.done.append((change.target, change.text))
            except AwsOvsError as bad:
                self.problems.append(Problem(change.target, str(bad)))
        return bool(plan.changes) and not self.dry_run

    def problem(self, target: str, text: str) -> None:
        """Add a problem, once: when a world is not there, every stage says so."""
        if all(text != one.text for one in self.problems):
            self.problems.append(Problem(target, text))
