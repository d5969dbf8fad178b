"""Remember which problems were told, so that a timer which runs every two minutes does not fill the journal with one sentence."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable

from .. import files
from ..errors import AwsOvsError

_AGAIN_S = 86400
_PASSING = re.compile(r"\d{4}-?\d{2}-?\d{2}T[\d:.]+Z?|\b\d+(?= s\b)|(?<=pid )\d+")
"""Points in time, durations and process IDs, which differ each time although the problem is the same."""


def untold(state_directory: str, kind: str, problems: Iterable[str], everything: bool) -> list[str]:
    """Choose the problems that are to be told: they are new, or were told a day ago; and remember them.

    Args:
        state_directory: where it is remembered.
        kind: of run.
        problems: all that the run has.
        everything: a run of this kind sees all problems, so those of before that it has not are over.
    """
    problems = list(problems)
    path = os.path.join(state_directory, f"told-{kind}.json")
    now, before = time.time(), _read(path)
    known = {key: when for key, when in before.items() if now - _AGAIN_S < when <= now}
    new = [problem for problem in problems if _key(problem) not in known]
    present = {_key(problem): known.get(_key(problem), now) for problem in problems}
    after = present if everything else known | present
    if after != before and os.path.isdir(state_directory):  # nobody but its owner is to make it
        try:
            files.replace(path, json.dumps(after, indent=1))
        except AwsOvsError:
            return problems  # what cannot be remembered is told each time
    return new


def _key(problem: str) -> str:
    return _PASSING.sub("…", problem)


def _read(path: str) -> dict[str, float]:
    try:
        with open(path, encoding="utf-8") as file:
            return {str(key): float(when) for key, when in json.load(file).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
