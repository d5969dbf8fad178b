"""A VM's private address on a further ENI of its host: in and out by that ENI only, for AWS drops all else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.support import checks, promise
from tests.lab.support.alive import live_migration
from tests.lab.test_migration import PORT, STREAM, ended
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import CLIENT, SERVER, Eni
from vnm_aws.names import ENI_MAC

pytestmark = [
    pytest.mark.only_on("userspace", reason="an emulated host has one ENI"),
    pytest.mark.xdist_group("enis"),  # one ENI is for all
]

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
GUEST, PRIVATE, PUBLIC = "192.168.0.250", "10.0.0.41", "54.10.20.41"
ADDRESS = "10.0.0.71"
"""The primary address of the further ENI."""
OTHER = "192.168.0.60"
OK = "ok: everything on this node is as it should be"


@pytest.fixture(scope="module")
def eni(lab: Lab) -> Iterator[Eni]:
    """A further ENI of h1 with the address of VM 1, which runs there, as VM 2 does, which has none."""
    lab.reset()
    lab.play(DEPLOY)
    lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, 2, OTHER), "h1"))
    further = lab.plug_eni("h1", ADDRESS)
    put(lab, further)
    with checks.Web() as web:
        web.internet(lab)
        yield further
    lab.reset()


def put(lab: Lab, further: Eni) -> None:
    """Let the address of VM 1 be on that ENI, as the front-end does: the node knows it before EC2 has done it."""
    lab.ec2.move_private_ip(PRIVATE, further.eni_id)
    lab.push_peers()
    lab.vpc.settle()


def refused(lab: Lab) -> dict[str, int]:
    """What the VPC has dropped because its source was of another ENI, or its frame not IP's."""
    return {reason: count for reason, count in lab.vpc.drops().items() if reason in ("source-not-on-eni", "wrong-mac")}


def works(lab: Lab) -> None:
    """Both ways by the Elastic IP, and nothing by the wrong ENI; VM 2, which has none, still leaves by the first."""
    before = refused(lab)
    with checks.Web() as web:
        web.guest(lab.guest(1), {80})
        assert checks.fetch_in(lab, PUBLIC) == CLIENT
    assert checks.fetch_out(lab.guest(1), GUEST) == PUBLIC
    assert checks.fetch_out(lab.guest(2), OTHER) == lab.hosts["h1"].instance.public_ip
    assert refused(lab) == before


def test_a_vm_on_a_further_eni_is_reached_by_its_elastic_ip_and_leaves_with_it(lab: Lab, eni: Eni) -> None:
    before = lab.vpc.delivered()
    works(lab)
    assert lab.vpc.delivered()[eni.eni_id] > before.get(eni.eni_id, 0)
    assert checks.reaches(checks.ping(lab.guest(1), GUEST, SERVER, size=1422))
    assert lab.hosts["h1"].run(["aws-ovs", "check"]).stdout.strip() == OK


def test_a_new_vm_that_speaks_first_leaves_by_the_eni_that_the_node_was_told(lab: Lab, eni: Eni) -> None:
    """Nothing has been received for its address: the node knows the ENI from the front-end, not from packets."""
    before = refused(lab)
    lab.play(promise.terminate(DOCUMENT, "h1"))
    lab.play(DEPLOY, follow=False)
    assert checks.fetch_out(lab.guest(1), GUEST) == PUBLIC
    assert refused(lab) == before


def test_guests_reach_each_other_and_the_vpc_whatever_their_enis(lab: Lab, eni: Eni) -> None:
    before = refused(lab)
    assert checks.reaches(checks.ping(lab.guest(2), OTHER, PRIVATE))  # on the same node
    caller = lab.hosts["h3"]
    assert ", 0% packet loss" in caller.run(["ping", "-n", "-c", "2", "-i", "0.2", PRIVATE]).stdout
    assert refused(lab) == before


def test_the_address_of_the_eni_itself_is_the_nodes(lab: Lab, eni: Eni) -> None:
    """It answers from where it was asked; guests of any node do not reach it, and no VM gets it."""
    before = refused(lab)
    assert ", 0% packet loss" in lab.hosts["h3"].run(["ping", "-n", "-c", "2", "-i", "0.2", ADDRESS]).stdout
    for vm_id, source in ((1, GUEST), (2, OTHER)):
        assert checks.ping(lab.guest(vm_id), source, ADDRESS, count=1) == "no answer"
    assert refused(lab) == before
    taken = promise.other_vm(DOCUMENT, 1, 7, "192.168.0.70")
    taken = taken.replace(b"</NIC>", f"<AWS_PRIVATE_IP>{ADDRESS}</AWS_PRIVATE_IP></NIC>".encode())
    done = lab.driver("h1", "pre", (), taken)
    assert done.returncode == 1
    assert f"AWS_PRIVATE_IP {ADDRESS} is configured on this node itself" in done.stderr
    assert "it is the node's own; give the VM another lease" in done.stderr


def test_the_mac_of_a_nic_chooses_no_eni(lab: Lab, eni: Eni) -> None:
    """Even if it is the one by which the kernel knows what is for the further ENI."""
    document = promise.other_vm(DOCUMENT, 1, 3, "192.168.0.61").replace(
        b"02:00:c0:a8:00:3d", ENI_MAC.format(2).encode()
    )
    assert ENI_MAC.format(2).encode() in document
    before = lab.vpc.drops()
    lab.play(promise.deploy(document, "h1"))
    assert checks.fetch_out(lab.guest(3), "192.168.0.61") == lab.hosts["h1"].instance.public_ip
    lab.play(promise.terminate(document, "h1"))
    assert lab.vpc.drops().get("source-not-on-eni") == before.get("source-not-on-eni")


def test_connections_survive_migrations_from_a_further_eni_to_the_only_one_of_another_host_and_back(
    lab: Lab, eni: Eni
) -> None:
    with checks.Web() as servers:
        servers.serve(lab.vpc.internet_spawn([*STREAM, "listen", PORT]))
        servers.serve(lab.guest(1).spawn([*STREAM, "listen", PORT]))
        running = {
            "out": lab.guest(1).spawn([*STREAM, "connect", GUEST, SERVER, PORT, "both"]),
            "in": lab.vpc.internet_spawn([*STREAM, "connect", CLIENT, PUBLIC, PORT, "both"]),
        }
        for process in running.values():
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        lab.play(live_migration(DOCUMENT, "h1", "h2"))
        time.sleep(0.5)
        lab.play(live_migration(DOCUMENT, "h2", "h1"), follow=False)
        put(lab, eni)
        time.sleep(0.5)
        assert [str(check) for check in ended(running) if not check.passed] == []
    works(lab)


BROKEN = {
    "ip rule del fwmark 4791 table 4791": "the policy rules for table 4791 are not one for mark 4791 from aws_gw and one "
    "for packets from 10.0.0.71 with priority 4789",
    "ip rule del from 10.0.0.71": "the policy rules for table 4791 are not one for mark 4791 .*",
    "ip rule del iif ens6": "the policy rules for table 4789 are not one for 10.0.0.0/24 from ens5 and one for 10.0.0.0/24 "
    "from ens6 with priority 4789",
    "ip route flush table 4791": "the (default route of table 4791|route of table 4791 to 10.0.0.0/24) does not lead to ens6",
    "ip route flush table 4790": "the (default route of table 4790|route of table 4790 to 10.0.0.0/24) does not lead to ens5",
    # With the last address of an interface its routes go, too.
    "ip address flush dev ens6": "interface ens6 does not have the address 10.0.0.71 of its ENI|"
    "the .*route of table 4791.* does not lead to ens6",
    "ip link set ens6 down": "interface ens6 is down|the .*route of table 4791.* does not lead to ens6",
    "ip link set ens6 mtu 1400": "interface ens6 has MTU 1400, less than 9001",
    "sysctl -qw net.ipv4.conf.ens6.rp_filter=1": "net.ipv4.conf.ens6.rp_filter is 1 instead of 2",
    "sysctl -qw net.ipv4.conf.ens5.arp_ignore=0": "net.ipv4.conf.ens5.arp_ignore is 0 instead of 1",
    "sysctl -qw net.ipv4.conf.ens6.forwarding=0": "net.ipv4.conf.ens6.forwarding is 0 instead of 1",
    "ovs-ofctl --strict del-flows aws_ovs table=45,priority=10,ip,nw_src=10.0.0.41": "a flow of the node on bridge aws_ovs "
    "is missing: .*nw_src=10.0.0.41.*",
}


def test_check_names_what_is_broken_and_restore_repairs_it(lab: Lab, eni: Eni) -> None:
    host = lab.hosts["h1"]
    host.stop_watch()
    try:
        right = lab.dump("h1")
        for do, says in BROKEN.items():
            host.run(["sh", "-ec", do])
            done = host.run(["aws-ovs", "check"], check=False)
            lines = done.stdout.splitlines()
            assert done.returncode == 1, do
            assert [line for line in lines if not re.fullmatch(f"({says}); run 'aws-ovs restore'", line)] == [], do
            host.run(["aws-ovs", "restore"])  # the next check says if anything is left
        assert host.run(["aws-ovs", "check"], check=False).stdout.strip() == OK
        assert lab.dump("h1") == right
    finally:
        host.start_watch()
    works(lab)


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_watch_puts_back_what_others_remove(lab: Lab, eni: Eni) -> None:
    host = lab.hosts["h1"]
    for do in ("ip rule del fwmark 4791 table 4791", "ip route flush table 4791", "ip address flush dev ens6"):
        host.run(["sh", "-ec", do])
        until(lambda: is_right(host))
    works(lab)


def is_right(host: Host) -> bool:
    """Say whether check finds nothing."""
    return host.run(["aws-ovs", "check"], check=False).returncode == 0


_BY_OTHERS = """
ip address add 10.0.0.71/24 dev ens6
ip route add default via 10.0.0.1 dev ens5 metric 100
ip route add default via 10.0.0.1 dev ens6 metric 50
ip route del default via 10.0.0.1 dev ens5 metric 0
sysctl -qw net.ipv4.conf.all.rp_filter=1
"""
_UNDO = """
sysctl -qw net.ipv4.conf.all.rp_filter=0
ip address del 10.0.0.71/24 dev ens6
ip route replace default via 10.0.0.1 dev ens5
ip route del default via 10.0.0.1 dev ens5 metric 100
"""


def test_an_eni_that_others_have_configured_too_takes_no_way_of_the_first(lab: Lab, eni: Eni) -> None:
    """Its default route is better than that of the first ENI, which remains the one of the tunnels and of all else."""
    host = lab.hosts["h1"]
    host.run(["sh", "-ec", _BY_OTHERS])
    try:
        assert json.loads(host.run(["aws-ovs", "show", "--json"]).stdout)["underlay"]["interface"] == "ens5"
        host.run(["aws-ovs", "heal"])
        works(lab)
        assert host.run(["ip", "route", "get", "10.0.0.13", "from", "10.0.0.11"]).stdout.split()[4] == "ens5"
    finally:
        host.run(["sh", "-ec", _UNDO])
    until(lambda: is_right(host))
    works(lab)


def test_an_eni_that_is_unplugged_is_named_and_one_that_comes_back_works_by_itself(lab: Lab, eni: Eni) -> None:
    host = lab.hosts["h1"]
    lab.vpc.detach(eni)
    what = f"no interface of this node has the MAC {eni.mac} of its ENI {ADDRESS}"
    until(lambda: host.run(["aws-ovs", "check"], check=False).stdout.startswith(what))
    assert len(host.run(["aws-ovs", "check"], check=False).stdout.splitlines()) == 1
    assert what in host.run(["aws-ovs", "probe"]).stdout
    assert checks.fetch_out(lab.guest(2), OTHER) == host.instance.public_ip
    lab.push_peers()  # what is told goes on for the others
    lab.vpc.attach_further(eni, host.pid, "ens9")
    until(lambda: is_right(host))
    works(lab)
    assert json.loads(host.run(["aws-ovs", "show", "--json"]).stdout)["underlay"]["further"] == [
        {"number": 2, "mac": eni.mac, "address": ADDRESS, "subnet": "10.0.0.0/24", "interface": "ens9"}
    ]


def test_a_list_that_is_refused_leaves_the_enis_as_they_are(lab: Lab, eni: Eni) -> None:
    host = lab.hosts["h1"]
    before = lab.dump("h1")
    told = json.loads(lab.peer_list("h1"))
    (known,) = told["enis"]
    for wrong in ({**told, "enis": [], "vpc_cidrs": ["198.18.0.0/16"]}, {**told, "enis": [known, known]}):
        assert host.run(["aws-ovs", "peers"], stdin=json.dumps(wrong), check=False).returncode == 1
    assert lab.dump("h1") == before


_REBOOT = """
rm -rf /run/aws_ovs; install -d /run/aws_ovs
nft delete table ip aws_ovs; nft delete table netdev aws_ovs
for table in 4789 4790 4791; do ip route flush table $table; while ip rule del table $table 2>/dev/null; do :; done; done
ip address flush dev $0; ip link set $0 down mtu 1500
for link in ens5 $0; do
    for key in forwarding rp_filter arp_ignore arp_announce; do echo 0 >/proc/sys/net/ipv4/conf/$link/$key; done
done
"""


def test_a_node_that_was_rebooted_has_its_enis_again(lab: Lab, eni: Eni) -> None:
    host = lab.hosts["h1"]
    (further,) = json.loads(host.run(["aws-ovs", "show", "--json"]).stdout)["underlay"]["further"]
    host.stop_watch()
    host.stop_ovs()
    for vm_id in (1, 2):
        lab.hypervisor.destroy(vm_id)
    host.run(["sh", "-c", _REBOOT, further["interface"]])
    host.start_ovs()
    host.run(["aws-ovs", "restore"])
    host.start_watch()
    lab.play(DEPLOY, follow=False)
    lab.play(promise.deploy(promise.other_vm(DOCUMENT, 1, 2, OTHER), "h1"))
    works(lab)
    until(lambda: is_right(host))


def test_a_node_that_has_one_eni_again_keeps_nothing_of_the_other(lab: Lab, eni: Eni) -> None:
    host = lab.hosts["h1"]
    lab.ec2.move_private_ip(PRIVATE, host.instance.eni_id)
    lab.unplug_eni("h1", eni)
    lab.push_peers()
    lab.vpc.settle()
    assert "479" not in host.run(["ip", "rule"]).stdout.replace("4789:", "").replace("lookup 4789", "")
    assert "meta mark" not in host.run(["nft", "list", "table", "ip", "aws_ovs"]).stdout
    works(lab)
    host.run(["ip", "rule", "add", "from", "10.9.9.9", "table", "4791", "priority", "100"])  # somebody else's
    until(lambda: is_right(host))
    host.run(["ip", "rule", "del", "from", "10.9.9.9", "table", "4791"])
