"""When an ovs-vswitchd is said to get no packets."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from vnm_aws.overlay import upcalls

SHOWN = """\
system@ovs-system:
  lookups: hit:{} missed:{} lost:{}
  flows: 0
  masks: hit:0 total:0 hit/pkt:0.00
  port 0: ovs-system (internal)
"""
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("seconds", "shown", "lost"),
    [
        (4, SHOWN.format(0, 19, 19), 19),
        (4, SHOWN.format(0, 19, 23), 23),
        (4, SHOWN.format(0, 0, 0), 0),
        (4, SHOWN.format(14, 9, 0), 0),
        (4, SHOWN.format(14, 20, 19), 0),
        (4, "", 0),  # there is only a datapath in user space, or no kernel module
        (10, SHOWN.format(0, 19, 19), 0),
        (4000, SHOWN.format(0, 19, 19), 0),
    ],
)
def test_only_one_that_started_too_early_and_never_got_a_packet(
    monkeypatch: pytest.MonkeyPatch, seconds: int, shown: str, lost: int
) -> None:
    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert argv[0] == "ovs-dpctl"
        return subprocess.CompletedProcess(argv, 0, shown, "")

    monkeypatch.setattr(subprocess, "run", run)
    assert upcalls.lost(seconds * TICKS) == lost
