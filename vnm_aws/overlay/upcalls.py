"""Whether ovs-vswitchd handles the packets for which the datapath knows no flow yet; two things keep it from that."""

from __future__ import annotations

import os
import re

from .ovsdb import Ovsdb, as_dict, ovs_set, select

_WAIT = "flow-restore-wait"
"""ovs-vswitchd looks at this key of other_config while it waits; once it has begun, only when it starts again."""
_TOO_EARLY_S = 10


def waits(db: Ovsdb) -> bool:
    """Tell whether ovs-vswitchd has been told to leave new packets alone until all flows are there."""
    ((row,),) = db.transact([select("Open_vSwitch", [], ["other_config"])])
    return as_dict(row["other_config"]).get(_WAIT) == "true"


def release(db: Ovsdb) -> None:
    """Let ovs-vswitchd begin, whoever has told it to wait: it waits on all bridges of the host, also on those of others."""
    mutation = [["other_config", "delete", ovs_set([_WAIT])]]
    db.transact([{"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": mutation}])


def lost(start_ticks: int) -> int:
    """Count packets that the kernel could not hand over because nobody listens.

    It is so with an ovs-vswitchd 3.1 that was started too early; `start_ticks` says when, in clock ticks since boot. The
    answer is 0 when that is not so, or not for sure: others lose packets too, while ovs-vswitchd is away.
    """
    import subprocess  # costs 7 ms, and a VM's start does not need it

    if start_ticks >= _TOO_EARLY_S * os.sysconf("SC_CLK_TCK"):
        return 0
    argv = ["ovs-dpctl", "--timeout=5", "show", "system@ovs-system"]
    counters = re.search(r"missed:(\d+) lost:(\d+)", subprocess.run(argv, capture_output=True, text=True).stdout)
    missed, dropped = (int(counters[1]), int(counters[2])) if counters else (0, 0)
    return dropped if dropped >= missed else 0
