"""Every recorded operation, played on the lab, and the VM checked afterwards with real packets."""

from __future__ import annotations

import json

import pytest

from tests.lab.support.replay import documents, replay
from tests.world.lab import Lab
from tests.world.recording import FRONTEND, RECORDINGS, load

NAMES = sorted(path.parent.name for path in RECORDINGS.glob("*/sequence.json"))


def of_a_vm(name: str) -> bool:
    """True for operations of VMs; the others are the front-end's."""
    return FRONTEND not in {step["runs_on"] for step in json.loads((RECORDINGS / name / "sequence.json").read_text())}


@pytest.mark.parametrize("name", [name for name in NAMES if of_a_vm(name)])
def test_a_recorded_operation_leaves_the_vm_as_promised(fresh_lab: Lab, name: str) -> None:
    recording = load(name)
    checks = list(replay(fresh_lab, recording))
    assert [str(check) for check in checks if not check.passed] == []
    assert len(checks) > (3 if documents(recording) else 0)
