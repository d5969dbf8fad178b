"""Where guests' packets may go outside their network: the Internet, other VMs, answers, and what AWS_VPC_ACCESS opens.

Host h3 is no peer here: it is another instance of the VPC, such as a database or the front-end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from lxml import etree

from tests.lab.support import checks, promise
from tests.world.guests.guest import Guest
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import SERVER

DOCUMENT = load("deploy").steps[-1].xml or b""
SHARED = promise.settled(load("deploy-ports").steps[-1].xml or b"")
NODE, PEER, INSTANCE = "10.0.0.11", "10.0.0.12", "10.0.0.13"
_ANSWERED = "ok"
_REFUSED = "nothing"


def vm(vm_id: int, private_ip: str = "", **attributes: str) -> bytes:
    """A VM with one NIC in the network of the recording that has VNI 100, and attributes of its own."""
    document = promise.other_vm(DOCUMENT, 1, vm_id, f"192.168.0.{100 + vm_id}")

    def change(root: etree._Element) -> None:
        nic = root.find("TEMPLATE/NIC")
        assert nic is not None
        elastic = {"AWS_PRIVATE_IP": private_ip, "EXTERNAL_IP": f"54.10.20.{40 + vm_id}"} if private_ip else {}
        values = {"DNS": "", **attributes, **elastic}
        for key, value in values.items():
            element = nic.find(key)
            (etree.SubElement(nic, key) if element is None else element).text = value

    return promise.changed(document, change)


VMS = {
    1: ("h1", vm(1, "10.0.0.41")),
    2: ("h1", vm(2, "10.0.0.42")),
    3: ("h2", vm(3, "10.0.0.43")),
    4: ("h1", vm(4)),
    6: ("h1", vm(6, AWS_VPC_ACCESS="YES")),
    7: ("h1", vm(7, "10.0.0.47", AWS_VPC_ACCESS="10.0.0.13")),
    8: ("h1", vm(8, AWS_VPC_ACCESS="10.9.0.0/16, 10.0.0.64/26", DNS=f"{INSTANCE} 2001:db8::1")),
    9: ("h2", vm(9)),
    5: ("h1", SHARED),
}


GRANTS = ["0 GATEWAY 192.168.0.1", "11 GATEWAY 192.168.0.1", "1 GATEWAY 192.168.0.1", "0 AWS_PRIVATE_IP 10.0.0.41"]
"""What the networks of `VMS` let all their NICs do."""


def told(lab: Lab, **lists: list[str]) -> str:
    """A peer list without h3."""
    peers = [{"name": name, "vtep": lab.hosts[name].instance.private_ip} for name in ("h1", "h2")]
    public = [lab.hosts[name].instance.public_ip for name in ("h1", "h2")]
    private = [f"10.0.0.{number}" for number in (41, 42, 43, 45, 47)]
    usual = {"vpc_cidrs": ["10.0.0.0/16"], "node_addresses": public, "private_ips": private}
    return json.dumps({"peers": peers, **usual, **lists})


def tell(lab: Lab, text: str) -> None:
    """Send h1 and h2 a peer list."""
    for name in ("h1", "h2"):
        lab.hosts[name].run(["aws-ovs", "peers"], stdin=text)


@pytest.fixture(scope="module")
def cloud(lab: Lab) -> Iterator[Lab]:
    """A lab with all of `VMS`; web servers at INSTANCE and in VM 2, 3 and 5."""
    lab.reset()
    for host, document in VMS.values():
        lab.play(promise.deploy(document, host))
    tell(lab, told(lab))
    with checks.Web() as servers:
        for port in ("53", "80"):
            servers.serve(lab.hosts["h3"].spawn([*checks.WEB, port]))
        servers.serve(lab.hosts["h2"].spawn([*checks.WEB, "80"]))
        servers.internet(lab)
        for vm_id, ports in ((1, {80}), (2, {80}), (3, {80}), (5, {1, 3, 10})):
            servers.guest(lab.guest(vm_id), ports)
        yield lab


def pings(guest: Guest, target: str) -> str:
    """Ping once from a guest's only address, or from its first."""
    done = guest.run(["ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", target], check=False)
    return _ANSWERED if ", 0 received" not in done.stdout else _REFUSED


def fetches(guest: Guest, address: str, port: int = 80) -> str:
    """Fetch a page: as whom the server saw the guest."""
    argv = ["curl", "-s", "--connect-timeout", "1", "--max-time", "3", f"http://{address}:{port}/"]
    return guest.run(argv, check=False).stdout.strip() or _REFUSED


def refused_by_the_vpc(lab: Lab) -> dict[str, int]:
    """IPv4 packets that the VPC has dropped, by the reason."""
    return {reason: count for reason, count in lab.vpc.drops().items() if reason != "not-ip"}


def answers(ask: Callable[[Guest, str], str], guest: Guest, *targets: str) -> dict[str, str]:
    """Ask for all targets at the same time."""
    with ThreadPoolExecutor(len(targets)) as pool:
        return dict(zip(targets, pool.map(lambda target: ask(guest, target), targets), strict=True))


@pytest.mark.parametrize("vm_id", [1, 4])
def test_private_addresses_are_closed(cloud: Lab, vm_id: int) -> None:
    left, guest = refused_by_the_vpc(cloud), cloud.guest(vm_id)
    targets = (INSTANCE, NODE, PEER, "10.0.0.1", "169.254.169.254", "169.254.87.1", "198.18.0.1", "192.168.7.7")
    for ask in (pings, fetches):
        assert answers(ask, guest, *targets) == dict.fromkeys(targets, _REFUSED)
    assert refused_by_the_vpc(cloud) == left, "a packet left the node"


def test_public_addresses_of_nodes_are_closed(cloud: Lab) -> None:
    targets = [cloud.hosts[host].instance.public_ip for host in ("h1", "h2")]
    for vm_id in (1, 4, 6):
        assert answers(pings, cloud.guest(vm_id), *targets) == dict.fromkeys(targets, _REFUSED)


def test_the_internet_is_open(cloud: Lab) -> None:
    for vm_id in VMS:
        assert pings(cloud.guest(vm_id), SERVER) == _ANSWERED, vm_id
    assert fetches(cloud.guest(4), SERVER) == cloud.hosts["h1"].instance.public_ip


def test_an_open_network_reaches_the_vpc_but_no_node(cloud: Lab) -> None:
    assert fetches(cloud.guest(6), INSTANCE) == NODE
    targets = (NODE, PEER, "169.254.169.254", "198.18.0.1")
    assert answers(pings, cloud.guest(6), *targets) == dict.fromkeys(targets, _REFUSED)


def test_a_network_that_names_prefixes_reaches_those(cloud: Lab) -> None:
    assert fetches(cloud.guest(7), INSTANCE) == "10.0.0.47"
    assert pings(cloud.guest(7), "10.0.0.1") == _REFUSED
    assert pings(cloud.guest(8), INSTANCE) == _REFUSED


def test_dns_servers_of_the_network_are_reached_on_port_53_only(cloud: Lab) -> None:
    assert fetches(cloud.guest(8), INSTANCE, 53) == NODE
    assert fetches(cloud.guest(8), INSTANCE, 80) == _REFUSED
    assert fetches(cloud.guest(4), INSTANCE, 53) == _REFUSED


def test_a_vm_answers_who_came_to_it_but_does_not_call_back(cloud: Lab) -> None:
    instance, peer, guest = cloud.hosts["h3"], cloud.hosts["h2"], cloud.guest(1)
    for caller, address in ((instance, INSTANCE), (peer, PEER)):
        assert caller.run(["curl", "-s", "--max-time", "3", "http://10.0.0.41/"], check=False).stdout.strip() == address
        assert ", 0 received" not in caller.run(["ping", "-n", "-c", "2", "-W", "1", "10.0.0.41"], check=False).stdout
        assert fetches(guest, address) == _REFUSED
        assert pings(guest, address) == _REFUSED


def test_shared_ports_answer_who_came_to_them(cloud: Lab) -> None:
    for external, is_open in ((9001, True), (9010, True), (9002, False), (9011, False)):
        url = f"http://10.0.0.45:{external}/"
        seen = cloud.hosts["h3"].run(["curl", "-s", "--max-time", "1", url], check=False).stdout.strip()
        assert (seen == INSTANCE) == is_open, external


@pytest.mark.parametrize(
    ("vm_id", "target", "seen_as"),
    [
        (1, "10.0.0.42", "10.0.0.41"),
        (1, "10.0.0.43", "10.0.0.41"),
        (4, "10.0.0.42", NODE),
        (4, "10.0.0.43", NODE),
        (9, "10.0.0.43", PEER),
        (9, "10.0.0.42", PEER),
        (2, "10.0.0.42", "10.0.0.42"),
    ],
)
def test_the_private_address_of_another_vm_is_reached(cloud: Lab, vm_id: int, target: str, seen_as: str) -> None:
    assert pings(cloud.guest(vm_id), target) == _ANSWERED
    assert fetches(cloud.guest(vm_id), target) == seen_as


@pytest.mark.parametrize(("vm_id", "seen_as"), [(1, "10.0.0.41"), (4, NODE), (9, PEER)])
def test_shared_ports_are_reached_from_other_vms(cloud: Lab, vm_id: int, seen_as: str) -> None:
    for external, is_open in ((9001, True), (9003, True), (9010, True), (9011, False)):
        assert (fetches(cloud.guest(vm_id), "10.0.0.45", external) == seen_as) == is_open, external


def test_a_node_that_was_told_nothing_takes_all_private_addresses_for_the_vpc(cloud: Lab) -> None:
    try:
        tell(cloud, told(cloud, vpc_cidrs=[], node_addresses=[], private_ips=[]))
        targets = (INSTANCE, PEER, "10.0.0.43", "172.16.5.5", "100.64.0.1")
        assert answers(pings, cloud.guest(4), *targets) == dict.fromkeys(targets, _REFUSED)
        assert pings(cloud.guest(4), "10.0.0.42") == _ANSWERED  # it is here
        assert pings(cloud.guest(4), SERVER) == _ANSWERED
    finally:
        tell(cloud, told(cloud))


def test_a_vpc_of_public_addresses_is_closed_too(cloud: Lab) -> None:
    try:
        tell(cloud, told(cloud, vpc_cidrs=["203.0.113.16/28"]))
        assert pings(cloud.guest(4), SERVER) == _REFUSED
        assert pings(cloud.guest(6), SERVER) == _ANSWERED
    finally:
        tell(cloud, told(cloud))
    assert pings(cloud.guest(4), SERVER) == _ANSWERED


def test_a_nic_may_do_only_what_its_network_grants_and_at_once(cloud: Lab) -> None:
    guest = cloud.guest(6)  # its NIC says AWS_VPC_ACCESS = YES
    try:
        tell(cloud, told(cloud, grants=GRANTS))
        assert fetches(guest, INSTANCE) == _REFUSED
        assert fetches(guest, SERVER) == cloud.hosts["h1"].instance.public_ip
        tell(cloud, told(cloud, grants=[*GRANTS, "0 AWS_VPC_ACCESS 0.0.0.0/0"]))
        assert fetches(guest, INSTANCE) == NODE
        assert pings(cloud.guest(4), INSTANCE) == _REFUSED, "what a network grants, a NIC need not have"
        assert fetches(cloud.guest(1), SERVER) == "54.10.20.41"  # so it knows the MAC of its gateway
        tell(cloud, told(cloud, grants=[line for line in GRANTS if not line.startswith("0 GATEWAY")]))
        assert pings(guest, SERVER) == _REFUSED, "nobody leaves a network without a gateway"
        assert fetches(cloud.guest(1), SERVER) == "54.10.20.41", "but who has an Elastic IP"
        cloud.hosts["h1"].run(["aws-ovs", "restore"])
        assert pings(guest, SERVER) == _REFUSED
    finally:
        tell(cloud, told(cloud))
    assert fetches(guest, INSTANCE) == NODE


def test_the_private_address_of_another_network_is_refused(cloud: Lab) -> None:
    try:
        tell(cloud, told(cloud, grants=[*GRANTS, "7 AWS_PRIVATE_IP 10.0.0.48"]))
        done = cloud.driver("h1", "pre", (), vm(10, "10.0.0.48"))
        assert done.returncode == 1
        assert "AWS_PRIVATE_IP 10.0.0.48 is an address of network 7, not of network 0" in done.stderr
        assert cloud.driver("h1", "pre", (), vm(10, "10.0.0.49")).returncode == 0, "nobody has granted it yet"
    finally:
        tell(cloud, told(cloud))


def test_restore_builds_the_same(cloud: Lab) -> None:
    cloud.hosts["h1"].run(["aws-ovs", "restore"])
    assert cloud.hosts["h1"].run(["aws-ovs", "check"]).returncode == 0
    assert pings(cloud.guest(4), INSTANCE) == _REFUSED
    assert fetches(cloud.guest(4), "10.0.0.42") == NODE
