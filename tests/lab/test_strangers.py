"""What others have on a node stays theirs, and what others change of the driver's is put back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab.support import checks, promise
from tests.lab.support.breaks import CONFIGURATION, FOREIGN, REPAIRED
from tests.world.hosts.host import ENI, Host
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import CLIENT

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
OK = "ok: everything on this node is as it should be\n"
ELASTIC, PRIVATE = "54.10.20.41", "10.0.0.41"
_WITHIN_S = 10.0


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    """h1 with VM 1, a bridge of somebody else, and nobody who heals it unasked."""
    lab.reset()
    host = lab.hosts["h1"]
    kind = f"datapath_type={host.datapath_type}"
    host.run(["ovs-vsctl", "--may-exist", "add-br", FOREIGN, "--", "set", "Bridge", FOREIGN, kind])
    lab.play(DEPLOY)
    host.stop_watch()
    lab.tunnels("h1")
    yield host
    host.run(["ovs-vsctl", "--if-exists", "del-br", FOREIGN])


def on_bridge(bridge: str) -> bytes:
    """VM 7 with a NIC on that bridge."""
    return promise.other_vm(DOCUMENT, 1, 7, "192.168.0.77").replace(b"ovsbr0", bridge.encode())


def refusal(lab: Lab, bridge: str) -> str:
    """What `pre` says of a VM on that bridge, which it must refuse without any change."""
    before = lab.dump("h1")
    done = lab.driver("h1", "pre", (), on_bridge(bridge))
    assert done.returncode == 1, bridge
    assert lab.dump("h1") == before
    sentence = done.stderr.splitlines()[-1]
    assert "constraint" not in sentence
    assert "; give the network a BRIDGE that nobody else uses: 'onevnet update'" in sentence
    return sentence


_STRANGERS = {
    "ports of another driver's VMs": (
        f"for n in 50 51; do ip link add one-$n-0 type veth peer name g$n; ovs-vsctl add-port {FOREIGN} one-$n-0; done",
        FOREIGN,
        rf"bridge {FOREIGN} has 2 ports that this driver does not know \(one-50-0, one-51-0\), so it is somebody else's",
    ),
    "a port of a VM that another bridge has by our files": (
        f"ovs-vsctl del-port one-1-0 -- add-port {FOREIGN} one-1-0",
        FOREIGN,
        rf"bridge {FOREIGN} has a port that this driver does not know \(one-1-0\)",
    ),
    "an address of the node": (
        f"ip address add 192.168.60.1/24 dev {FOREIGN}",
        FOREIGN,
        rf"bridge {FOREIGN} has an address of this node \(192.168.60.1/24 dev {FOREIGN}\), which it talks by",
    ),
    "an IPv6 address of the node": (
        f"sysctl -qw net.ipv6.conf.{FOREIGN}.disable_ipv6=0; ip -6 address add fd00::1/64 dev {FOREIGN}",
        FOREIGN,
        rf"bridge {FOREIGN} has an address of this node \(fd00::1/64\)",
    ),
    "a controller": (
        f"ovs-vsctl set-controller {FOREIGN} tcp:127.0.0.1:6653",
        FOREIGN,
        f"bridge {FOREIGN} has a controller, so it is somebody else's",
    ),
    "flows of its own": (
        f"ovs-ofctl add-flow {FOREIGN} priority=5,arp,actions=drop",
        FOREIGN,
        f"bridge {FOREIGN} has flows of somebody else",
    ),
    "a fake bridge": (
        f"ovs-vsctl add-br vlan100 {FOREIGN} 100",
        "vlan100",
        f"BRIDGE vlan100 is a fake bridge: VLAN 100 of bridge {FOREIGN} of Open vSwitch",
    ),
    "a port": (
        f"ovs-vsctl add-port {FOREIGN} port9 -- set Interface port9 type=internal",
        "port9",
        f"BRIDGE port9 is a port of bridge {FOREIGN} of Open vSwitch",
    ),
    "a Linux bridge": (
        "ip link add lbr0 type bridge; ip address add 192.168.50.1/24 dev lbr0",
        "lbr0",
        "BRIDGE lbr0 is a Linux bridge of this node, and no bridge of Open vSwitch",
    ),
    "a network interface": (
        "ip link add dummy9 type veth peer name dummy8",
        "dummy9",
        "BRIDGE dummy9 is a network interface of this node, and no bridge of Open vSwitch",
    ),
    "the ENI": ("true", ENI, f"BRIDGE {ENI} is "),
    "the driver's": ("true", "aws_gw", "BRIDGE aws_gw is the driver's own"),
}
_TIDY = "for link in one-50-0 one-51-0 lbr0 dummy9; do ip link del $link 2>/dev/null; done; true"


@pytest.mark.parametrize("what", _STRANGERS)
def test_a_bridge_of_somebody_else_is_refused_by_name_and_stays_as_it_is(lab: Lab, host: Host, what: str) -> None:
    do, bridge, sentence = _STRANGERS[what]
    host.run(["sh", "-ec", do])
    try:
        assert re.search(sentence, refusal(lab, bridge))
        before = lab.dump("h1")
        host.run(["aws-ovs", "restore"])
        if "our files" not in what:
            assert lab.dump("h1") == before, "restore has changed something"
    finally:
        host.run(["sh", "-c", _TIDY])


def test_an_empty_bridge_that_serves_nobody_is_taken(lab: Lab, host: Host) -> None:
    document = on_bridge(FOREIGN)
    lab.play(promise.deploy(document, "h1"))
    assert host.run(["ovs-vsctl", "get-fail-mode", FOREIGN]).stdout == "secure\n"
    wait_until_healed(host)


def test_a_bridge_that_has_lost_its_marks_is_ours_by_its_ports(lab: Lab, host: Host) -> None:
    host.run(["ovs-vsctl", "clear", "Bridge", "ovsbr0", "external_ids"])
    assert lab.driver("h1", "pre", (), on_bridge("ovsbr0")).returncode == 0
    host.run(["ovs-vsctl", "clear", "Bridge", "ovsbr0", "external_ids"])
    host.run(["aws-ovs", "restore"])
    assert host.run(["aws-ovs", "check"], check=False).stdout == OK


def test_restore_leaves_out_a_bridge_that_somebody_else_has_made_anew_and_says_so(lab: Lab, host: Host) -> None:
    anew = "ovs-vsctl del-br onebr1; ip link add onebr1 type bridge"
    host.run(["sh", "-ec", anew])
    try:
        done = host.run(["aws-ovs", "restore"])
        sentence = "BRIDGE onebr1 is a Linux bridge of this node, and no bridge of Open vSwitch"
        assert f"aws-ovs: restore: VMs on onebr1 are left out: {sentence}" in done.stderr
        assert sentence in host.run(["aws-ovs", "check"], check=False).stdout
        assert checks.reaches(checks.ping(lab.guest(1), "192.168.0.250", "192.168.0.1")), "its other NIC"
    finally:
        host.run(["ip", "link", "del", "onebr1"])


def test_marks_on_a_port_of_somebody_else_do_not_make_it_ours(lab: Lab, host: Host) -> None:
    mark = "external_ids:aws_ovs={} external_ids:aws_ovs-network=ovsbr9/7 external_ids:aws_ovs-on=ovsbr9"
    for number, role in enumerate(("tunnel", "patch", "node")):
        name = f"theirs{number}"
        host.run(
            [
                "sh",
                "-ec",
                f"ovs-vsctl add-port {FOREIGN} {name} -- set Interface {name} type=internal {mark.format(role)}",
            ]
        )
    host.run(["ovs-ofctl", "add-flow", FOREIGN, "priority=7,arp,actions=drop"])
    host.run(["aws-ovs", "restore"])
    assert host.run(["ovs-vsctl", "list-ports", FOREIGN]).stdout.split() == ["theirs0", "theirs1", "theirs2"]
    assert "priority=7" in host.run(["ovs-ofctl", "dump-flows", FOREIGN]).stdout


# What the kernel tells of, and what it does not: that is seen by the look that comes once a minute, as at the watcher's start.
_TOLD = (
    "aws_gw down", "the default route deleted", "the transit route changed", "the rule deleted", "the rule twice",
    "the rule with another priority", "the rule with a condition more", "a rule too many", "an nft rule added",
    "an nft table deleted",
)  # fmt: skip
_SILENT = (
    "no forwarding", "a strict source check", "redirects from aws_gw", "IPv6 on aws_gw and aws_icmp", "the neighbour deleted",
    "the neighbour changed", "the neighbour for some time only",
)  # fmt: skip


def wait_until_healed(host: Host, within: float = _WITHIN_S) -> None:
    deadline = time.monotonic() + within
    while (now := host.run(["aws-ovs", "check"], check=False).stdout) != OK:
        assert time.monotonic() < deadline, now
        time.sleep(0.2)


def test_what_others_change_in_the_kernel_heals_by_itself(lab: Lab, host: Host) -> None:
    lab.tunnels("h1")
    host.start_watch()
    for what in _TOLD:
        host.run(["sh", "-ec", REPAIRED[what].do])
        wait_until_healed(host)
    host.run(["nft", "flush", "ruleset"])  # the lab's own are gone, too
    wait_until_healed(host)
    host.stop_watch()
    for what in _SILENT:
        host.run(["sh", "-ec", REPAIRED[what].do])
    assert host.run(["aws-ovs", "check"], check=False).stdout != OK
    host.start_watch()
    wait_until_healed(host)


def test_an_elastic_ip_answers_right_after_somebody_has_removed_rule_and_routes(lab: Lab, host: Host) -> None:
    host.start_watch()
    away = "ip rule del priority 4789; ip route del 198.18.0.0/15; ip route flush table 4789"
    host.run(["sh", "-c", away])
    wait_until_healed(host)  # from now on it runs
    answered = []
    for _ in range(3):  # on a busy machine the first ping may come too early
        host.run(["sh", "-c", away])
        answered.append(from_the_internet(lab))
    assert min(answered) >= 2


def from_the_internet(lab: Lab) -> int:
    """How many of three pings to VM 1's Elastic IP are answered."""
    command = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-I", CLIENT, ELASTIC]
    found = re.search(r"(\d+) received", lab.vpc.internet(command, check=False).stdout)
    assert found
    return int(found[1])


def test_a_start_of_a_vm_heals_the_kernel(lab: Lab, host: Host) -> None:
    host.run(["sh", "-ec", f"nft flush ruleset; {REPAIRED['the rule deleted'].do}; {REPAIRED['no forwarding'].do}"])
    assert lab.driver("h1", "pre", (), on_bridge("ovsbr0")).returncode == 0
    assert host.run(["aws-ovs", "check"], check=False).stdout == OK


def test_heal_does_nothing_where_nothing_is_wrong_or_nothing_was_set_up(lab: Lab, host: Host) -> None:
    before = lab.dump("h1")
    done = host.run(["aws-ovs", "heal"])
    assert (done.stdout, done.stderr, lab.dump("h1")) == ("", "", before)
    host.run(["rm", "/run/aws_ovs/node.json"])
    host.run(["ip", "rule", "del", "priority", "4789"])
    host.run(["aws-ovs", "heal"])
    assert "4789" not in host.run(["ip", "rule"]).stdout, "a node that was never set up is nobody's"


_SERVE = """
import socket
s = socket.create_server(("", 2222), backlog=9)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b"the host\\n")
    c.close()
"""


def test_the_address_of_a_vm_never_reaches_a_socket_of_the_host(lab: Lab, host: Host) -> None:
    server = host.spawn(["/usr/bin/python3", "-c", _SERVE])
    assert server.stdout
    assert server.stdout.readline() == "ready\n"
    ask = "timeout 2 bash -c 'exec 3<>/dev/tcp/$0/2222; cat <&3' "
    own = lab.hosts["h1"].instance
    try:
        for length in (24, 32):
            host.run(["ip", "address", "add", f"{PRIVATE}/{length}", "dev", ENI])
            answer = lab.vpc.internet(["sh", "-c", ask + ELASTIC], check=False).stdout
            neighbour = lab.hosts["h2"].run(["sh", "-c", ask + PRIVATE], check=False).stdout
            assert (answer, neighbour) == ("", "")
            found = host.run(["aws-ovs", "check"], check=False).stdout
            assert f"{PRIVATE} of VM 1 is configured on this node itself ({ENI})" in found
            assert f"remove it: ip address del {PRIVATE}/{length} dev {ENI}\n" in found
            assert f"ip address del {PRIVATE}/{length} dev {ENI}" in host.run(["aws-ovs", "probe"]).stdout
            host.run(["aws-ovs", "heal"])
            assert from_the_internet(lab) == 3
        assert host.run(["aws-ovs", "check"], check=False).stdout == OK
        assert lab.hosts["h2"].run(["sh", "-c", ask + own.private_ip], check=False).stdout == "the host\n"
        # An address that the administrator has given the node is the node's.
        host.run(["sh", "-ec", f"ip address add 10.0.0.99/32 dev {ENI}; aws-ovs heal"])
        mac = own.mac
        lab.hosts["h2"].run(["ip", "neigh", "replace", "10.0.0.99", "lladdr", mac, "dev", ENI])
        assert "10.0.0.99" in host.run(["nft", "list", "table", "ip", "aws_ovs"]).stdout
    finally:
        server.kill()
        server.wait()
        host.run(["ip", "address", "del", "10.0.0.99/32", "dev", ENI], check=False)


def test_the_probe_tells_what_is_wrong_with_the_kernel(host: Host) -> None:
    for what in ("the rule deleted", "the default route deleted", "no forwarding", "an nft table deleted"):
        host.run(["sh", "-ec", REPAIRED[what].do])
        told = host.run(["aws-ovs", "probe"]).stdout
        assert re.search(r"AWS_OVS_ERROR=\"[^\"]+; run 'aws-ovs restore'\"", told), what
        host.run(["aws-ovs", "heal"])
        assert 'AWS_OVS_ERROR=""' in host.run(["aws-ovs", "probe"]).stdout


_OVERLAPS = {
    "the subnet of the ENI": ("10.0.0.0/16", "true", "the subnet 10.0.0.0/24 of ens5"),
    "a route of the node": (
        "198.18.0.0/15",
        "ip route add 198.19.7.0/24 dev ens5",
        "this node's route to 198.19.7.0/24 by ens5",
    ),
}


@pytest.mark.parametrize("what", _OVERLAPS)
def test_a_transit_range_that_overlaps_is_refused_by_every_verb(lab: Lab, host: Host, what: str) -> None:
    transit, do, overlaps = _OVERLAPS[what]
    host.run(["cp", "-a", CONFIGURATION, "/root/kept.yaml"])
    host.run(["sh", "-ec", f"sed -i 's#^transit_range:.*#transit_range: {transit}#' {CONFIGURATION}; {do}"])
    sentence = f"transit_range {transit} overlaps {overlaps}"
    try:
        before = lab.dump("h1")
        for action, words in (("pre", ()), ("post", ("one-1", "h1")), ("update_sg", ("one-1",))):
            done = lab.driver("h1", action, words, DOCUMENT)
            assert (done.returncode, sentence in done.stderr) == (1, True), action
        for verb in ("restore", "check", "heal", "peers --apply"):
            done = host.run(["aws-ovs", *verb.split()], check=False)
            assert (done.returncode, sentence in done.stdout + done.stderr) == (1, True), verb
        assert sentence in host.run(["aws-ovs", "probe"]).stdout
        assert lab.dump("h1") == before
        assert lab.driver("h1", "clean", ("h1",), DOCUMENT).returncode == 0, "a VM can always end"
    finally:
        host.run(
            ["sh", "-c", f"cp -a /root/kept.yaml {CONFIGURATION}; ip route del 198.19.7.0/24 dev {ENI}"], check=False
        )
