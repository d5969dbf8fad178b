"""What security groups let pass, with real packets: the sample, the edges of what rules say, and cases by chance."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sampling import OPTION, Sampler
from tests.verdicts.__main__ import SAMPLE, failures
from tests.verdicts.cases import Case, load
from tests.verdicts.chance import by_chance
from tests.verdicts.edges import edges
from tests.verdicts.trial import BATCH
from tests.world.lab import Lab

_REPOSITORY = Path(__file__).parents[2]
CASES = [*load(SAMPLE), *edges(), *by_chance(63, seed=14)]
MORE = by_chance(4 * BATCH, seed=15)


def batches(cases: list[Case]) -> pytest.MarkDecorator:
    """Let a test run for some cases at a time, so that several labs can share them."""
    parts = [cases[first : first + BATCH] for first in range(0, len(cases), BATCH)]
    return pytest.mark.parametrize("batch", parts, ids=[f"{part[0].name} and on" for part in parts])


@batches(CASES)
def test_every_packet_passes_or_not_as_the_rules_say(lab: Lab, batch: list[Case]) -> None:
    wrong = list(failures(lab, batch))
    assert not wrong, "\n".join(wrong)


@batches(MORE)
def test_what_chance_makes_passes_or_not_as_the_rules_say(lab: Lab, sampler: Sampler, batch: list[Case]) -> None:
    if not sampler.whole:
        pytest.skip(f"{OPTION} runs it")
    wrong = list(failures(lab, batch))
    assert not wrong, "\n".join(wrong)


def test_a_wrong_expectation_is_told_and_counted(tmp_path: Path) -> None:
    """The tool can fail: a NIC without groups is open, whatever the case says."""
    packet = {"direction": "in", "remote": "192.168.0.12", "protocol": "tcp", "port": 22}
    case = {"name": "mine", "groups": {}, "nic": {"SECURITY_GROUPS": ""}, "packet": packet, "expect": "drop"}
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([case]))
    command = [sys.executable, "-m", "tests.verdicts", str(file)]
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines == [
        "mine: tcp 192.168.0.12 port 40000 to 192.168.0.10 port 22 (in, VM on h1, other end on h2); "
        "expected drop, seen pass",
        "0 passed, 1 failed",
    ]
    assert done.returncode == 1
