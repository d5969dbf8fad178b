"""Every frame of the table in frames.py, sent by each kind of guest, and where it arrives."""

from __future__ import annotations

import time
from typing import NamedTuple

from tests.lab.frames import FAR, RECEIVERS, ROWS, SENDERS, Nic, Row
from tests.lab.support import checks, segment, wire
from tests.world.lab import Lab

_SETTLE_S = 1.0


class Case(NamedTuple):
    """A frame: the row that it is of, who sends it, and its number."""

    row: Row
    sender: Nic
    number: int


CASES = [
    Case(row, sender, number)
    for number, (row, sender) in enumerate((row, sender) for row in ROWS for sender in row.senders)
]


def _marked(case: Case) -> bytes:
    """The frame of a case with its mark: in its payload, if that is UDP over IPv4, else behind its end."""
    frame, mark = case.row.frame(case.sender), wire.mark(case.number)
    return wire.with_payload(frame, mark) if wire.is_udp(frame) else frame.ljust(60, b"\0") + mark


def astray(lab: Lab, senders: tuple[Nic, ...] = SENDERS, receivers: tuple[Nic, ...] = RECEIVERS) -> list[str]:
    """Send the frames of some guests in a fresh lab: those that did not arrive where they should, or elsewhere too."""
    for nic in (*senders, *receivers):
        segment.start(lab, segment.document(nic.vm_id, nic.ip, **nic.settings), nic.host)
    for sender in senders:
        assert checks.reaches(checks.ping(lab.guest(sender.vm_id), sender.ip, FAR.ip, count=1))
    cases = [case for case in CASES if case.sender in senders]
    with wire.Watch() as watch:
        for nic in receivers:
            watch.card(nic.name, lab.guest(nic.vm_id), "eth0")
        watch.card("node", lab.hosts["h1"], "aws_gw")
        watch.add("internet", lab.vpc.internet_spawn(wire.watcher("")))
        for sender in senders:
            wire.send(lab.guest(sender.vm_id), "eth0", [_marked(case) for case in cases if case.sender is sender])
        time.sleep(_SETTLE_S * lab.hosts["h1"].slowness)
    wrong = []
    for case in cases:
        arrived = {name for name, numbers in watch.seen.items() if case.number in numbers}
        if arrived != case.row.arrives & watch.seen.keys():
            wanted, seen = (" ".join(sorted(names)) or "nobody" for names in (case.row.arrives, arrived))
            wrong.append(f"{case.row.what} ({case.sender.name}): {wanted}; arrived: {seen}")
    return wrong


def test_every_frame_arrives_where_it_may_and_nowhere_else(fresh_lab: Lab) -> None:
    wrong = astray(fresh_lab)
    assert not wrong, "\n".join(wrong)
    assert "down" not in fresh_lab.tunnels("h2").values()
