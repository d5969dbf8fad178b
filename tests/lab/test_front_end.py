"""The front-end half as installed, with real hosts: over ssh they get their peers, and Elastic IPs follow a VM."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.support import checks
from tests.world.front_end import FrontEnd
from tests.world.lab import Lab
from tests.world.recording import load, substitute
from tests.world.vpc.vpc import CLIENT

ELASTIC_IP = "54.10.20.41"
NETWORK = """
NAME = "public"
VN_MAD = "aws_ovs"
BRIDGE = "ovsbr0"
AWS_EIP_POOL = "tag:Pool=web"
NETWORK_ADDRESS = "192.168.0.0"
NETWORK_MASK = "255.255.255.0"
GATEWAY = "192.168.0.1"
"""


@pytest.fixture
def front_end(fresh_lab: Lab) -> Iterator[FrontEnd]:
    """A front-end that has done nothing yet; the hosts know no peers."""
    for host in fresh_lab.hosts.values():
        host.run(["aws-ovs", "peers"], stdin='{"peers": []}')
    with FrontEnd(fresh_lab) as started:
        yield started


def test_hosts_register_and_get_their_peers_over_ssh(fresh_lab: Lab, front_end: FrontEnd) -> None:
    front_end.create_network(NETWORK)
    front_end.sshds["h3"].reachable = False
    failed = front_end.oneaws("reconcile", code=1)
    assert "1 of 3 hosts did not take the peer list (h3: " in failed.stderr
    assert fresh_lab.tunnels("h2") == {"h1": "up", "h2": "self", "h3": "down"}
    assert fresh_lab.tunnels("h3") == {}
    front_end.sshds["h3"].reachable = True
    front_end.oneaws("reconcile")
    assert fresh_lab.tunnels("h3") == {"h1": "up", "h2": "up", "h3": "self"}
    assert front_end.oneaws("reconcile").stdout == "Nothing to change.\n"

    for name in fresh_lab.hosts:
        assert "down" not in fresh_lab.tunnels(name).values()
        front_end.monitor(name)
    shown = json.loads(front_end.oneaws("mesh", "show", "--json").stdout)["hosts"]
    assert [(one["NAME"], one["LIST"], one["UP"], one["DOWN"], one["ERROR"]) for one in shown] == [
        (name, "ok", 2, 0, None) for name in ("h1", "h2", "h3")
    ]

    # Made anew, with the same name and address, it knows nothing; OpenNebula says that it is back.
    fresh_lab.hosts["h2"].run(["aws-ovs", "peers"], stdin='{"peers": []}')
    front_end.hook("host_state", front_end.oned.document("HOST", front_end.host_id("h2")))
    assert fresh_lab.tunnels("h2") == {"h1": "up", "h2": "self", "h3": "up"}

    # It loses its list, just after it was told.
    fresh_lab.hosts["h2"].run(["sh", "-c", "sleep 1; rm /var/lib/aws_ovs/peers.json"])
    front_end.monitor("h2")
    shown = json.loads(front_end.oneaws("mesh", "show", "--json").stdout)["hosts"]
    assert {one["NAME"]: one["LIST"] for one in shown} == {"h1": "ok", "h2": "behind", "h3": "ok"}
    lines = json.loads(front_end.oneaws("check", "--nodes", "--json", code=1).stdout)
    said = {(line["CHECK"], line["DETAIL"]) for line in lines}
    assert ("host h1", "its own check finds nothing wrong") in said
    assert ("host h2", "this node has no peer list; run 'oneaws mesh sync --all' on the front-end") in said
    assert front_end.oneaws("reconcile").stdout == "1 of 3 hosts (h2): send the list of 3 peers\n"
    assert fresh_lab.hosts["h2"].run(["cat", "/var/lib/aws_ovs/peers.json"]).stdout.count("vtep") == 3


def test_started_by_root_it_acts_as_oneadmin(fresh_lab: Lab, front_end: FrontEnd) -> None:
    """With oneadmin's key for the hosts and credentials for oned, and oneadmin's next run is not locked out."""
    front_end.create_network(NETWORK)
    done = front_end.run(["oneaws", "reconcile"], env=front_end.worlds())
    assert "send the list of 3 peers" in done.stdout
    assert set(front_end.run(["find", "/var/lib/one/aws_ovs", "-printf", r"%u\n"]).stdout.split()) == {"oneadmin"}
    assert front_end.oneaws("reconcile").stdout == "Nothing to change.\n"
    assert fresh_lab.tunnels("h1") == {"h1": "self", "h2": "up", "h3": "up"}


def test_an_elastic_ip_follows_its_vm(fresh_lab: Lab, front_end: FrontEnd) -> None:
    fresh_lab.ec2.allocate_eip(ELASTIC_IP, {"Pool": "web"})
    front_end.oneaws("host", "sync")
    vnet_id = front_end.create_network(NETWORK)
    (line,) = front_end.elastic_ips()
    assert (line["EXTERNAL_IP"], line["STATUS"]) == (ELASTIC_IP, "ok")
    given = {"AWS_PRIVATE_IP": line["PRIVATE_IP"], "EXTERNAL_IP": ELASTIC_IP, "AWS_ALLOCATION_ID": line["ALLOCATION"]}
    values = {"10.0.0.41": line["PRIVATE_IP"], "eipalloc-0a1": line["ALLOCATION"]}  # recorded: ours

    front_end.oneaws("reconcile")
    target = next(name for name in fresh_lab.hosts if name != line["HOST"])
    deploy = substitute(load("deploy"), hosts={"h1": target}, values=values)
    fresh_lab.play(deploy, follow=False)
    front_end.run_vm(1, target, vnet_id, int(line["AR"]), given)
    assert _reached(fresh_lab, 1) == CLIENT

    elsewhere = next(name for name in fresh_lab.hosts if name not in (target, line["HOST"]))
    migrate = substitute(load("live-migrate"), hosts={"h1": target, "h2": elsewhere}, values=values)
    fresh_lab.play(migrate, follow=False)
    assert _reached(fresh_lab, 1) != CLIENT
    front_end.migrate_vm(1, elsewhere)
    assert _reached(fresh_lab, 1) == CLIENT
    (line,) = front_end.elastic_ips()
    assert (line["HOST"], line["VM"], line["STATUS"]) == (elsewhere, [1], "ok")
    assert front_end.oneaws("reconcile").stdout == "Nothing to change.\n"


def _reached(lab: Lab, vm_id: int) -> str:
    """Whom the VM sees when a client in the Internet fetches a page at its Elastic IP."""
    lab.vpc.settle()
    with checks.Web() as web:
        web.guest(lab.guest(vm_id), {80})
        return checks.fetch_in(lab, ELASTIC_IP)
