"""What a guest must not do to the guests beside it and to the nodes, and what it may: whole stories with packets."""

from __future__ import annotations

import time

from tests.lab.support import ethernet, wire
from tests.lab.support.segment import document, start
from tests.world.lab import Lab


def test_a_guest_speaks_no_bfd_to_a_node_and_its_own_reaches_guests(fresh_lab: Lab) -> None:
    """BFD messages that a guest has forged change no tunnel, and are a packet like any other to the guest they are for."""
    lab = fresh_lab
    start(lab, document(1, "192.168.7.10"), "h1")
    start(lab, document(2, "192.168.7.11"), "h2")
    for name, host in lab.hosts.items():  # as an older version has made the tunnels
        for peer in lab.hosts.values():
            if peer is not host:
                tunnel = "vx-" + bytes(map(int, peer.instance.private_ip.split("."))).hex()
                host.run(["ovs-vsctl", "remove", "Interface", tunnel, "bfd", "check_tnl_key"])
        host.run(["aws-ovs", "restore"])
        assert "down" not in lab.tunnels(name).values()
    states = "ovs-vsctl --format=csv --columns=name,bfd_status find Interface type=vxlan"
    before = lab.hosts["h2"].run(states.split()).stdout
    forged = [
        ethernet.ethernet(
            "02:00:c0:a8:07:0b", "02:00:c0:a8:07:0a", 0x0800,
            ethernet.udp4("192.168.7.10", "192.168.7.11", (49152, 3784), ethernet.bfd(state) + wire.mark(state), ttl=255),
        )
        for state in (0, 1, 2, 3)
    ]  # fmt: skip
    with wire.Watch() as watch:
        watch.card("guest", lab.guest(2), "eth0")
        wire.send(lab.guest(1), "eth0", forged)
        time.sleep(0.5)
        assert lab.hosts["h2"].run(states.split()).stdout == before
    assert watch.seen["guest"] == [0, 1, 2, 3]
