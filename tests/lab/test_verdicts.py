"""What security groups let pass, with real packets: the sample, the edges of what rules say, and cases by chance."""

from __future__ import annotations

import pytest

from tests.sampling import OPTION, Sampler
from tests.verdicts.__main__ import SAMPLE, failures, tell
from tests.verdicts.cases import Case, load
from tests.verdicts.chance import by_chance
from tests.verdicts.edges import edges
from tests.verdicts.trial import BATCH
from tests.world.lab import Lab

CASES = [*load(SAMPLE), *edges(), *by_chance(63, seed=14)]
MORE = by_chance(4 * BATCH, seed=15)


def batches(cases: list[Case]) -> pytest.MarkDecorator:
    """Let a test run for some cases at a time, so that several labs can share them."""
    parts = [cases[first : first + BATCH] for first in range(0, len(cases), BATCH)]
    return pytest.mark.parametrize("batch", parts, ids=[f"{part[0].name} and on" for part in parts])


@batches(CASES)
def test_every_packet_passes_or_not_as_the_rules_say(fresh_lab: Lab, batch: list[Case]) -> None:
    wrong = list(failures(fresh_lab, batch))
    assert not wrong, "\n".join(wrong)


@batches(MORE)
def test_what_chance_makes_passes_or_not_as_the_rules_say(fresh_lab: Lab, sampler: Sampler, batch: list[Case]) -> None:
    if not sampler.whole:
        pytest.skip(f"{OPTION} runs it")
    wrong = list(failures(fresh_lab, batch))
    assert not wrong, "\n".join(wrong)


def test_a_wrong_expectation_is_told_and_counted(fresh_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """The tool can fail: a NIC without groups is open, whatever the case says."""
    right = edges()[0]
    wrong = right._replace(name="mine", nic={**right.nic, "SECURITY_GROUPS": ""})
    assert tell(fresh_lab, [right, wrong]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "mine: tcp 192.168.0.36 port 40000 to 192.168.0.10 port 22 (in, VM on h2, other end on h3); "
        "expected drop, seen pass",
        "1 passed, 1 failed",
    ]
