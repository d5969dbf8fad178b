"""The life of a VM with a real oned: it calls the installed driver by OpenNebula's own drivers, over ssh, on real hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.support import checks
from tests.world.lab import Lab
from tests.world.real_oned import installed
from tests.world.real_oned.front_end import RealFrontEnd
from tests.world.vpc.vpc import CLIENT

ELASTIC_IP = "54.10.20.41"
PUBLIC = """
NAME = "public"
VN_MAD = "aws_ovs"
BRIDGE = "ovsbr0"
AWS_EIP_POOL = "tag:Pool=web"
NETWORK_ADDRESS = "192.168.0.0"
NETWORK_MASK = "255.255.255.0"
GATEWAY = "192.168.0.1"
"""
PRIVATE = """
NAME = "private"
VN_MAD = "aws_ovs"
NETWORK_ADDRESS = "172.16.0.0"
NETWORK_MASK = "255.255.255.0"
AR = [ TYPE = "IP4", IP = "172.16.0.10", SIZE = "10" ]
"""


@pytest.fixture
def front_end(fresh_lab: Lab) -> Iterator[RealFrontEnd]:
    """A front-end with a real oned that knows the lab's hosts; they know their peers."""
    if not installed.wanted():
        pytest.skip("it needs a real oned: run `make test-oned`")
    try:
        found = installed.find()
    except installed.UnavailableError as missing:
        pytest.exit(str(missing), installed.NOT_RUN)
    fresh_lab.ec2.allocate_eip(ELASTIC_IP, {"Pool": "web"})
    with RealFrontEnd(fresh_lab, found) as started:
        started.oneaws("host", "sync")
        for name in fresh_lab.hosts:
            started.monitor(name)
        yield started


def test_the_life_of_a_vm(fresh_lab: Lab, front_end: RealFrontEnd) -> None:
    private = front_end.create_network(PRIVATE)
    vlan_id = front_end.tree("one.vn.info", private).findtext("VLAN_ID")
    assert vlan_id, "vnet_create chose none"
    front_end.oneaws("reconcile")
    # A network's bridge stays where a VM has used it, so only the second VM can leave a host as it was.
    _live(fresh_lab, front_end, private)
    before = _dumps(fresh_lab)
    _live(fresh_lab, front_end, private)
    assert _dumps(fresh_lab) == before
    assert front_end.actions == 2 * ["deploy", "deploy", "migrate", "cancel", "cancel"]
    front_end.delete_network(private)


def _live(lab: Lab, front_end: RealFrontEnd, network: int) -> None:
    """Let a VM start on h1, move to h2, and end; it reaches another on h3, which ends, too."""
    first = front_end.deploy("h1", f'NETWORK_ID="{network}"', f"first{len(front_end.actions)}")
    other = front_end.deploy("h3", f'NETWORK_ID="{network}"', f"other{len(front_end.actions)}")
    assert _ping(lab, first, other)
    front_end.migrate_vm(first, "h2")
    assert lab.guest(first).host is lab.hosts["h2"]
    assert _ping(lab, first, other)
    assert f"one-{first}-" not in lab.dump("h1")
    assert f"one-{first}-" in lab.dump("h2")
    for vm_id in (first, other):
        front_end.terminate(vm_id)


def _dumps(lab: Lab) -> dict[str, str]:
    return {name: lab.dump(name) for name in lab.hosts}


def test_an_elastic_ip_follows_its_vm(fresh_lab: Lab, front_end: RealFrontEnd) -> None:
    public = front_end.create_network(PUBLIC)
    _hook(front_end, "vnet_ready", "one.vn.info", public)
    (line,) = front_end.elastic_ips()
    assert (line["EXTERNAL_IP"], line["STATUS"]) == (ELASTIC_IP, "ok")
    front_end.oneaws("reconcile")

    target, elsewhere = (name for name in fresh_lab.hosts if name != line["HOST"])
    vm_id = front_end.deploy(target, f'NETWORK_ID="{public}"', "web")
    _hook(front_end, "vm_running", "one.vm.info", vm_id)
    assert _reached(fresh_lab, vm_id) == CLIENT
    front_end.migrate_vm(vm_id, elsewhere)
    _hook(front_end, "vm_running", "one.vm.info", vm_id)
    assert _reached(fresh_lab, vm_id) == CLIENT
    assert (
        front_end.tree("one.vm.info", vm_id).findtext("USER_TEMPLATE/AWS_EIP_STATUS")
        == f"OK: {ELASTIC_IP} on {elsewhere}"
    )
    front_end.terminate(vm_id)


def _hook(front_end: RealFrontEnd, name: str, method: str, number: int) -> None:
    """Run a hook as the hook manager does, with the object's document."""
    front_end.hook(name, str(front_end.daemon.call(method, number)).encode())


def _ping(lab: Lab, vm_id: int, other: int) -> bool:
    (card,) = lab.guest(other).cards
    address = card.addresses[0].partition("/")[0]
    return "1 received" in lab.guest(vm_id).run(["ping", "-c1", "-W3", address], check=False).stdout


def _reached(lab: Lab, vm_id: int) -> str:
    """Whom the VM sees when a client in the Internet fetches a page at its Elastic IP."""
    lab.vpc.settle()
    with checks.Web() as web:
        web.guest(lab.guest(vm_id), {80})
        return checks.fetch_in(lab, ELASTIC_IP)
