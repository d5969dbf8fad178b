"""A node with running VMs gets a driver that knows security groups: they come into force with the next action on the VM."""

from __future__ import annotations

import time

from tests.lab.support import checks
from tests.lab.support.alive import Neighbours, unhealthy
from tests.lab.support.groups import EXCHANGE, ended, grouped, inbound, outbound, ready, update
from tests.lab.support.pings import A_EIP, PUBLIC, A, pinging
from tests.lab.test_migration import STREAM
from tests.lab.test_migration import ended as streams_ended
from tests.lab.test_operations import internet_pings
from tests.lab.test_update import DEPLOY, DOCUMENT, KEPT, lost
from tests.world.lab import Lab
from tests.world.vpc.vpc import CLIENT, SERVER

IN, OUT = 7000, 7001
GROUPED = grouped(DOCUMENT, inbound("TCP", str(IN)), outbound("TCP", str(OUT)), outbound("UDP", str(OUT)))

# What the version before groups did not write.
_OLDER = """
import json, sys
document = json.load(open(sys.argv[1]))
for port in document["ports"]:
    for key in ("rules", "picks_up_until", "slot", "floats"):
        del port[key]
json.dump(document, open(sys.argv[1], "w"))
"""


def test_groups_come_into_force_with_the_next_action_and_cut_nothing(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    Neighbours(lab)
    lab.play(DEPLOY)
    host.run(["/usr/bin/python3", "-c", _OLDER, KEPT])
    with checks.Web() as servers:
        for spawn in (lab.guest(1).spawn, lab.guest(3).spawn, lab.vpc.internet_spawn):
            for port in (IN, OUT):
                servers.serve(spawn([*STREAM, "listen", str(port)]))
            servers.serve(spawn([*EXCHANGE, "answer", str(OUT)]))
        running = {
            f"{name}, data {direction}": spawn([*STREAM, "connect", source, target, str(port), direction])
            for name, spawn, source, target, port in (
                ("Internet → VM", lab.vpc.internet_spawn, CLIENT, PUBLIC, IN),
                ("VM → Internet", lab.guest(1).spawn, A_EIP, SERVER, OUT),
                ("VM on h3 → VM", lab.guest(3).spawn, "192.168.0.103", A, IN),
                ("VM → VM on h3", lab.guest(1).spawn, A, "192.168.0.103", OUT),
            )
            for direction in ("out", "in")
        }
        asking = {"UDP VM → Internet": lab.guest(1).spawn([*EXCHANGE, "ask", A_EIP, SERVER, str(OUT)])}
        for process in (*running.values(), *asking.values()):
            ready(process)
        pings = pinging(lab)
        host.run(["rm", "/run/aws_ovs/node.json"])  # another version restores the node
        host.run(["aws-ovs", "restore"])
        time.sleep(1)
        assert max(lost(pings).values()) <= 5, "until then all is as it was"
        assert update(lab, "h1", GROUPED) == ""
        assert not internet_pings(lab, PUBLIC)
        assert checks.ping(lab.guest(1), A, "192.168.0.103", count=1) == "no answer"
        assert checks.fetch_in(lab, PUBLIC, OUT).startswith("nothing")
        time.sleep(1)
        udp = ended(asking)["UDP VM → Internet"]
        assert udp["silence"] < 1
        assert [str(check) for check in streams_ended(running) if not check.passed] == []
    assert unhealthy(lab) == []
