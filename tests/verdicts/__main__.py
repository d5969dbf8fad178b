"""`make verdicts CASES=FILE`: try cases of security groups in the lab, and compare what becomes of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.verdicts import trial
from tests.verdicts.cases import Case, CasesError, load
from tests.world.hosts.datapath import UnavailableError
from tests.world.lab import Lab

SAMPLE = Path(__file__).with_name("sample.json")
_USAGE = "usage: make verdicts CASES=FILE, a list of cases in the format of tests/verdicts/sample.json"
_HOSTS = 3


def failures(lab: Lab, cases: Sequence[Case]) -> Iterator[str]:
    """Try cases in a fresh lab, some at a time; say what is not as expected, a line each."""
    for first in range(0, len(cases), trial.BATCH):
        if first:
            lab.reset()
        for one in trial.run(lab, cases[first : first + trial.BATCH]):
            if one.verdict != one.case.expect:
                yield f"{one.case.name}: {one.sent}; expected {one.case.expect}, {one.outcome}"


def tell(lab: Lab, cases: Sequence[Case]) -> int:
    """Print what is not as expected, and how many cases are; the exit code."""
    failed = 0
    for line in failures(lab, cases):
        print(line, flush=True)
        failed += 1
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main() -> int:
    """Try the cases of the file that the command line names, or those of the sample."""
    if len(sys.argv) > 2 or sys.argv[1:2] == ["--help"]:
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        cases = load(Path(sys.argv[1]) if sys.argv[1:] else SAMPLE)
        with Lab(_HOSTS) as lab:
            return tell(lab, cases)
    except (CasesError, UnavailableError) as why:
        print(f"verdicts: {why}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
