"""List what an operation would change, so that it can be printed, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, ParamSpec

from ..errors import AwsOvsError
from ..journal import explain
from .deadline import OverError

_P = ParamSpec("_P")


class Change(NamedTuple):
    """One change: to what, what, and how. One that is not `expected` to succeed is left out of a dry run.

    `apply` may return what it did, if that was not known before.
    """

    target: str
    text: str
    apply: Callable[[], object]
    expected: bool = True


class Problem(NamedTuple):
    """What keeps a thing from being as it should, and what to do."""

    target: str
    what: str
    remedy: str

    @property
    def text(self) -> str:
        """Join what and remedy as an error does."""
        return f"{self.what}; {self.remedy}"

    def __str__(self) -> str:
        return f"{self.target}: {self.text}"


class SeveralErrors(Exception):  # noqa: N818 - it is no error itself, and nobody prints it
    """Carry the errors of a change that concerns several things; each becomes a problem."""

    def __init__(self, errors: Iterable[AwsOvsError]) -> None:
        super().__init__()
        self.errors = list(errors)


class LeadLostError(AwsOvsError):
    """Another front-end leads since this one has begun."""


def unforeseen(error: Exception, doing: str) -> AwsOvsError:
    """Make an error of an exception that nobody has foreseen; its traceback is in the journal."""
    what, _, remedy = explain(error, doing).partition("; ")
    return AwsOvsError(what, remedy)


class Plan:
    """Changes in their order, and problems.

    Attributes:
        changes: what is to be done.
        problems: what is wrong, and is not changed.
        incomplete: why a world could not be read, when there are changes that go without.
        foreseen: what changes will fail with if the world stays as it is; for a dry run, as the changes themselves say it.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.problems: list[Problem] = []
        self.incomplete: AwsOvsError | None = None
        self.foreseen: list[Problem] = []

    def change(self, target: str, text: str, do: Callable[_P, object], *arguments: _P.args, **named: _P.kwargs) -> None:
        """Add a change: `do` makes it with its arguments, `text` tells people."""
        self.changes.append(Change(target, text, lambda: do(*arguments, **named)))

    def attempt(
        self, target: str, text: str, do: Callable[_P, object], *arguments: _P.args, **named: _P.kwargs
    ) -> None:
        """Add a change that will fail if the world stays as it is."""
        self.changes.append(Change(target, text, lambda: do(*arguments, **named), expected=False))

    def foresee(self, target: str, error: AwsOvsError) -> None:
        """Add what a change will fail with if the world stays as it is."""
        self.foreseen.append(Problem(target, error.what, error.remedy))

    def problem(self, target: str, what: str, remedy: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(target, what, remedy))

    def error(self, target: str, error: AwsOvsError) -> None:
        """Add an error as a problem."""
        self.problem(target, error.what, error.remedy)


def _keep_lead(leads: Callable[[], bool]) -> None:
    if not leads():
        what = "another front-end leads since this run began, so it has ended before its next change"
        raise LeadLostError(what, "see its journal with 'journalctl -t aws_ovs'; the rest is done there")


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

    def carry_out(self, name: str, plan: Plan, leads: Callable[[], bool]) -> bool:
        """Apply the changes of a stage one by one; one that fails becomes a problem and the others go on.

        Args:
            name: of the stage.
            plan: what it wants.
            leads: asked before each change.

        Returns:
            True when something was or may have been changed.

        Raises:
            OverError: the time of the run is over.
            LeadLostError: another front-end leads.
        """
        self.problems += plan.problems + (plan.foreseen if self.dry_run else [])
        changes = [change for change in plan.changes if change.expected or not self.dry_run]
        for number, change in enumerate(changes, 1):
            self._tell(f"{name} {number}/{len(changes)}: {change.target}: {change.text}")
            try:
                did: object = None
                if not self.dry_run:
                    _keep_lead(leads)
                    did = change.apply()
                self.done.append((change.target, did if isinstance(did, str) else change.text))
            except (OverError, LeadLostError):
                raise
            except AwsOvsError as error:
                self.problems.append(Problem(change.target, error.what, error.remedy))
            except SeveralErrors as several:
                self.problems += [Problem(change.target, error.what, error.remedy) for error in several.errors]
            except Exception as error:  # noqa: BLE001 - it is this change's trouble, not the run's
                wrong = unforeseen(error, f"{change.target}: {change.text}")
                self.problems.append(Problem(change.target, wrong.what, wrong.remedy))
        return bool(changes) and not self.dry_run

    def error(self, target: str, error: AwsOvsError) -> None:
        """Add an error as a problem, once: when a world is not there, every stage says so."""
        if all(str(error) != problem.text for problem in self.problems):
            self.problems.append(Problem(target, error.what, error.remedy))
