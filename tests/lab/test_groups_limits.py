"""What a NIC with security groups may have of connections, and what `show`, `check` and the probe say of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.support import checks, promise
from tests.lab.support.breaks import CONFIGURATION, RESTORE, SEND
from tests.lab.support.groups import EXCHANGE, grouped
from tests.lab.support.pings import Ping
from tests.lab.test_probe import probe
from tests.world.guests.guest import Guest
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load

pytestmark = pytest.mark.xdist_group("groups_limits")  # the same VMs are for all

DOCUMENT = load("deploy").steps[-1].xml or b""
GUARDED, BESIDE, OUTSIDE = "192.168.0.60", "192.168.0.61", "192.168.0.62"
"""VM 2 and VM 3 on h1 have security groups, VM 4 on h2 is open."""
MOST, PORT, WEB = 64, 4000, 80
FULL = (MOST, MOST + 1)
"""Entries of a zone that is full: the kernel takes one more."""
_FLOOD = (
    "see with 'aws-ovs show --rules 2' on the host whether that is a flood; if not, raise connections_per_nic in .*"
)

# Begins so many UDP connections, all with an own one of before; prints how many of the new ones are answered, and whether the
# own one is, afterwards.
_BEGIN = """
import socket, sys
def new(port=0):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", port))
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.settimeout(1)
    return s
def answered(s):
    try:
        return s.recv(100) == b"ask"
    except OSError:
        return False
own = new(1023)
own.send(b"ask")
first = answered(own)
asking = [new() for _ in range(int(sys.argv[3]))]
for s in asking:
    s.send(b"ask")
for s in asking[1:]:
    s.settimeout(0.01)
count = sum(answered(s) for s in asking)
own.send(b"ask")
print(count, first and answered(own))
"""

# Sends so many SYNs, each from another port, whose answers find nobody; then a packet of ESP.
_SYNS = """
import socket, struct, subprocess, sys, time
source, target, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rules = "table ip silent { chain out { type filter hook output priority 0; tcp flags rst drop; }; }"
subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
tcp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
addresses = socket.inet_aton(source) + socket.inet_aton(target)
for number in range(count):
    head = struct.pack("!HHIIBBHHH", 2000 + number, port, number, 0, 5 << 4, 2, 1000, 0, 0)
    words = struct.unpack("!16H", addresses + struct.pack("!HH", 6, len(head)) + head)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:16] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[18:]
    tcp.sendto(head, (target, 0))
    if number % 20 == 0:
        time.sleep(0.005)
esp = socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)
esp.sendto(bytes(32), (target, 0))
"""


def rule(way: str, protocol: str, name: str = "web", group: str = "100", **more: str) -> dict[str, str]:
    """A rule as a document has it."""
    return {"SECURITY_GROUP_ID": group, "SECURITY_GROUP_NAME": name, "RULE_TYPE": way, "PROTOCOL": protocol, **more}


RULES = (
    rule("INBOUND", "UDP", RANGE=str(PORT)),
    rule("inbound", "tcp", RANGE=f"{WEB},443,8000:8010", IP="192.168.0.0", SIZE="90"),
    rule("INBOUND", "ICMP"),
    rule("INBOUND", "IPSEC"),
    rule("OUTBOUND", "ALL"),
)


def vm(number: int, ip: str) -> bytes:
    """A VM in the network of the recorded one."""
    return promise.other_vm(DOCUMENT, 1, number, ip)


def set_limit(host: Host, most: int) -> None:
    host.run(["sed", "-i", f"s/^connections_per_nic: .*/connections_per_nic: {most}/", CONFIGURATION])


@pytest.fixture(scope="module")
def deployed(lab: Lab) -> Iterator[Lab]:
    """VM 2 and VM 3 on h1 with RULES, and VM 4 on h2 without groups."""
    lab.reset()
    host = lab.hosts["h1"]
    host.run(["cp", "-a", CONFIGURATION, "/root/kept.yaml"])
    set_limit(host, MOST)
    for number, ip in ((2, GUARDED), (3, BESIDE)):
        lab.play(promise.deploy(grouped(vm(number, ip), *RULES), "h1"))
    lab.play(promise.deploy(vm(4, OUTSIDE), "h2"))
    lab.tunnels("h1")
    yield lab
    host.run(["cp", "-a", "/root/kept.yaml", CONFIGURATION])


@pytest.fixture
def lab_of_three(deployed: Lab) -> Lab:
    """The same, with few connections allowed, none there, and nothing counted."""
    host = deployed.hosts["h1"]
    set_limit(host, MOST)
    host.run(["sh", "-ec", "ovs-appctl dpctl/flush-conntrack; aws-ovs restore"])
    return deployed


def check(host: Host) -> list[str]:
    return host.run(["aws-ovs", "check"], check=False).stdout.splitlines()


def shown(host: Host, *words: str) -> Any:
    return json.loads(host.run(["aws-ovs", "show", *words, "--json"]).stdout)


def groups_of(host: Host) -> dict[int, dict[str, Any]]:
    """What `aws-ovs show` tells of each VM's security groups."""
    return {port["vm_id"]: port["security_groups"] for port in shown(host)["ports"]}


def entries(host: Host, zone: int) -> list[str]:
    """What connection tracking has in a zone."""
    return host.run(["ovs-appctl", "dpctl/dump-conntrack", f"zone={zone}"]).stdout.split("\n")[:-1]


def begun(guest: Guest, target: str, count: int) -> tuple[int, bool]:
    """How many new UDP connections of so many are answered, and whether one of before is in the end."""
    done = guest.run(["/usr/bin/python3", "-c", _BEGIN, target, str(PORT), str(count)])
    new, own = done.stdout.split()
    return int(new), own == "True"


def test_a_full_zone_costs_its_nic_new_connections_and_nobody_else(lab_of_three: Lab) -> None:
    lab, host = lab_of_three, lab_of_three.hosts["h1"]
    assert check(host) == ["ok: everything on this node is as it should be"]
    with checks.Web() as servers:
        for number in (2, 3):
            servers.serve(lab.guest(number).spawn([*EXCHANGE, "answer", str(PORT)]))
        new, own = begun(lab.guest(4), GUARDED, 200)
        assert own
        assert MOST - 10 <= new <= MOST, "a slow host answers some too late"
        assert begun(lab.guest(4), BESIDE, 20) == (20, True)
    assert len(entries(host, 16385)) in FULL
    seen = groups_of(host)
    assert (seen[2]["limit"], seen[3]["dropped"]) == (MOST, 0)
    assert seen[2]["connections"] in FULL
    assert 200 - MOST <= seen[2]["dropped"] <= 210
    full, dropped = check(host)
    assert re.fullmatch(
        rf"VM 2 NIC 0 has 6[45] of the 64 connections that it may have; beyond, new ones fail; {_FLOOD}", full
    )
    assert re.fullmatch(
        rf"VM 2 NIC 0 had \d+ packets dropped .* beyond its 64; {_FLOOD}; 'aws-ovs restore' begins .*", dropped
    )
    told = probe(host)
    assert (told["CONNECTIONS_FULL"], told["CONNECTIONS_DROPPED"]) == ("1", str(seen[2]["dropped"]))
    assert int(told["CONNECTIONS"]) >= MOST + 20
    assert re.fullmatch(f"VM 2 NIC 0 has all 64 connections that it may have; {_FLOOD}", told["ERROR"])


def test_a_flood_of_syns_to_one_vm_leaves_the_other_its_new_connections(lab_of_three: Lab) -> None:
    lab, host = lab_of_three, lab_of_three.hosts["h1"]
    with checks.Web() as servers:
        for number in (2, 3):
            servers.guest(lab.guest(number), {WEB})
        assert checks.fetch_out(lab.guest(4), OUTSIDE, f"http://{GUARDED}/") == OUTSIDE
        lab.guest(4).run(["/usr/bin/python3", "-c", _SYNS, OUTSIDE, GUARDED, str(WEB), "0"])
        before = groups_of(host)[2]["dropped"]
        lab.guest(4).run(["/usr/bin/python3", "-c", _SYNS, OUTSIDE, GUARDED, str(WEB), "3000"])
        fetched = [checks.fetch_out(lab.guest(4), OUTSIDE, f"http://{BESIDE}/") for _ in range(10)]
        assert checks.fetch_out(lab.guest(4), OUTSIDE, f"http://{GUARDED}/").startswith("nothing")
    assert fetched == [OUTSIDE] * 10
    assert len(entries(host, 16385)) <= FULL[-1]
    seen = groups_of(host)
    assert before == 0, "what is not tracked needs no room"
    assert 500 < seen[2]["dropped"] <= 3010  # a busy machine loses many before
    assert seen[3]["dropped"] == 0
    (esp,) = [row for row in shown(host, "--rules", "2")[0]["rules"] if row["protocol"] == "IPSEC"]
    assert esp["packets"] == 2


def test_the_next_vm_with_the_slot_finds_no_connection_of_the_one_before(lab_of_three: Lab) -> None:
    lab, host = lab_of_three, lab_of_three.hosts["h1"]
    begun(lab.guest(4), GUARDED, 10)
    assert len(entries(host, 16385)) == 11
    lab.play(promise.terminate(grouped(vm(2, GUARDED), *RULES), "h1"))
    assert entries(host, 16385) == []
    lab.play(promise.deploy(grouped(vm(5, "192.168.0.65"), *RULES), "h1"))
    assert {port["vm_id"]: port["slot"] for port in shown(host)["ports"]} == {3: 2, 5: 1}
    assert entries(host, 16385) == []
    assert groups_of(host)[5]["dropped"] == 0
    lab.play(promise.terminate(grouped(vm(5, "192.168.0.65"), *RULES), "h1"))
    lab.play(promise.deploy(grouped(vm(2, GUARDED), *RULES), "h1"))


def test_the_limit_changes_without_a_pause_and_is_there_again_after_a_restart(lab_of_three: Lab) -> None:
    lab, host = lab_of_three, lab_of_three.hosts["h1"]
    host.stop_watch()
    try:
        ping = Ping(lab.guest(4).spawn(["ping", "-n", "-D", "-i", "0.02", "-I", OUTSIDE, GUARDED]))
        set_limit(host, 2 * MOST)
        wrong = [f"VM {number} NIC 0 may have 64 connections instead of 128" for number in (2, 3)]
        assert [line for line in check(host) if "may have" in line] == [f"{what}; {RESTORE}" for what in wrong]
        announced = host.run(["aws-ovs", "restore", "--dry-run"]).stdout.splitlines()
        assert announced == [f"connection tracking {what}" for what in wrong]
        host.run(["aws-ovs", "restore"])
        time.sleep(1)
        assert ping.end().lost <= 5
        assert [seen["limit"] for seen in groups_of(host).values()] == [128, 128]
        host.restart_ovs()
        host.run(["aws-ovs", "restore"])
        assert [seen["limit"] for seen in groups_of(host).values()] == [128, 128]
        assert "down" not in lab.tunnels("h1").values()
        assert check(host) == ["ok: everything on this node is as it should be"]
    finally:
        host.start_watch()


def test_a_vm_whose_groups_are_not_known_is_named_until_it_is_sent_again(lab_of_three: Lab) -> None:
    lab, host = lab_of_three, lab_of_three.hosts["h1"]
    older = "import json, sys; d = json.load(open(sys.argv[1])); [p.pop(k) for p in d['ports'] for k in ('groups', 'rules')]"
    older += "; json.dump(d, open(sys.argv[1], 'w'))"
    host.run(["/usr/bin/python3", "-c", older, "/run/aws_ovs/vms/2.json"])
    host.run(["aws-ovs", "restore"])
    what = r"VM 2 has no security groups in force yet \(NIC 0\): its file is of a version that knew none"
    (line,) = check(host)
    assert re.fullmatch(rf"{what}; {SEND}.*onesecgroup commit.*", line)
    assert [port["groups"] for port in shown(host)["ports"]] == [None, [100]]
    assert "open: its security groups are not in force yet" in host.run(["aws-ovs", "show", "--rules", "2"]).stdout
    document = grouped(vm(2, GUARDED), *RULES, groups="")
    assert lab.driver("h1", "update_sg", ("one-2",), document).returncode == 0
    assert check(host) == ["ok: everything on this node is as it should be"], "it has none by right"
    assert "open: it has no security groups" in host.run(["aws-ovs", "show", "--rules", "2"]).stdout
    assert lab.driver("h1", "update_sg", ("one-2",), grouped(vm(2, GUARDED), *RULES)).returncode == 0


NAMED = (
    *RULES,
    rule("INBOUND", "UDP", "again", "101", RANGE=str(PORT)),
    rule("OUTBOUND", "TCP", "again", "101", RANGE="25"),
    rule("INBOUND", "TCP", "evil\u202e\nname", "102", RANGE="22", IP="2001:db8::", SIZE="256"),
)


def test_rules_are_shown_as_they_were_written_with_what_they_have_let_pass(lab_of_three: Lab) -> None:
    lab, host = lab_of_three, lab_of_three.hosts["h1"]
    document = grouped(vm(2, GUARDED), *NAMED, groups="100,102,101")
    assert lab.driver("h1", "update_sg", ("one-2",), document).returncode == 0
    assert checks.reaches(checks.ping(lab.guest(4), OUTSIDE, GUARDED, count=5))
    assert checks.fetch_out(lab.guest(4), OUTSIDE, f"http://{GUARDED}:8011/").startswith("nothing")
    (nic,) = shown(host, "--rules", "2")
    written = [(row["direction"], row["protocol"], row["which"], row["where"], row["group_id"]) for row in nic["rules"]]
    assert written == [
        ("INBOUND", "UDP", "4000", "", 100),
        ("INBOUND", "TCP", "80,443,8000:8010", "192.168.0.0+90", 100),
        ("INBOUND", "ICMP", "", "", 100),
        ("INBOUND", "IPSEC", "", "", 100),
        ("OUTBOUND", "ALL", "", "", 100),
        ("INBOUND", "UDP", "4000", "", 101),
        ("OUTBOUND", "TCP", "25", "", 101),
        ("INBOUND", "TCP", "22", "2001:db8::+256", 102),
    ]
    inbound = [row["packets"] for row in nic["rules"] if row["direction"] == "INBOUND"]
    assert inbound == [0, 0, 10, 0, 0, 0]  # the guest's kernel sends some of its own accord
    assert nic["rules"][2]["bytes"] == 10 * 98
    assert [row["never_first"] for row in nic["rules"] if not row["flows"]] == [
        "the same is in group 100",
        "group 100 accepts everything",
    ]
    assert sum(row["flows"] for row in nic["rules"]) < nic["flows"] < 100
    assert (nic["refused_in"] > 0, nic["refused_out"], nic["groups"]) == (True, 0, [100, 101, 102])
    text = host.run(["aws-ovs", "show", "--rules", "2"]).stdout
    head, columns, *lines = text.splitlines()
    assert head == "VM 2 NIC 0 (one-2-0): security groups 100, 101, 102"
    assert columns.split() == ["DIRECTION", "PROTOCOL", "PORTS", "OTHER", "END", "FLOWS", "PACKETS", "BYTES", "GROUP"]
    assert re.fullmatch(r"INBOUND +ICMP +\d+ +10 +980 +100 web", lines[2])
    assert lines[6].endswith(" 101 again (group 100 accepts everything)")
    assert lines[7].endswith(r" 102 evil\u202e\nname")
    assert re.fullmatch(r"refused: \d+ packets to the guest, 0 from it", lines[8])
    assert max(map(len, text.splitlines())) <= 120
    assert max(map(len, host.run(["aws-ovs", "show"]).stdout.splitlines())) <= 100
    asked = ["sudo", "-n", "/usr/sbin/aws-ovs", "show", "--rules", "2"]
    assert host.run(asked, user="oneadmin").stdout.splitlines()[0] == head
    done = host.run(["aws-ovs", "show", "--rules", "77"], check=False)
    assert done.stderr == "aws-ovs: show: VM 77 has no NIC on this node; see where it is: onevm show 77\n"
