"""What must hold whatever happens: bad documents change nothing, AWS's rules bite, spoofing dies, path MTU discovery works."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator

import pytest
from lxml import etree

from tests.lab.support import checks, promise
from tests.world.guests.guest import HypervisorError
from tests.world.lab import ACTIONS, Lab
from tests.world.recording import RECORDINGS, load, substitute
from tests.world.vpc.vpc import CLIENT, SERVER

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
A, A_EIP = "192.168.0.10", "192.168.0.250"

# Runs on the host, as oneadmin: one shim call for each mutation, so that hundreds take seconds.
_BATCH = """
import base64, json, subprocess, sys
for verb, argv, text in json.load(sys.stdin):
    done = subprocess.run([sys.argv[1] + "/" + verb, *argv], input=text.encode("latin-1"), capture_output=True)
    print(json.dumps([done.returncode, done.stdout.decode(), done.stderr.decode()]))
"""
_NEEDED = ("NIC_ID", "TARGET", "BRIDGE", "MAC", "NETWORK_ID")
_BAD = {
    "TARGET": (
        "one-2-0",
        "aws_gw",
        "vx-0a00000c",
        "one-1-0;reboot",
        "$(id)",
        "`id`",
        "a b",
        "x" * 300,
        "../../x",
        "-x",
        "a\nb",
    ),
    "BRIDGE": ("onebr1|id", "&&", "x" * 16, "a'b", '"', "aws_ovs"),
    "MAC": ("02:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "zz:zz:zz:zz:zz:zz", "$(id)"),
    "IP": ("1.2.3", "999.1.1.1", "192.168.0.10/24", "127.0.0.1", "0.0.0.0", "239.1.1.1", "10.0.0.1;id", "1" * 400),
    "GATEWAY": ("x", "1.2.3.4.5", "192.168.0.1,actions=drop"),
    "NETWORK_ID": ("-1", "9" * 40, "0x10", "1e3"),
    "NIC_ID": ("65536", "-1", "99999999999999999999", "a"),
    "MTU": ("9" * 20, "-5", "0", "1451", "abc"),
    "VLAN_ID": ("0", "16777216", "-1", "100;200"),
    "FILTER_IP_SPOOFING": ("MAYBE", "1"),
    "AWS_PRIVATE_IP": ("10.0.0", "10.0.0.41 or 1=1", "169.254.169.254"),
}
_UNREADABLE = ("truncated", "base64", "tag", "doctype", "noise")


def mutations(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Documents as sent on stdin that are all wrong, and what was done to each."""
    chance = random.Random(seed)
    documents = [path.read_bytes() for path in sorted(RECORDINGS.glob("*/*-post.xml"))]
    for _ in range(count):
        document = chance.choice(documents)
        root = etree.fromstring(document)
        nic = chance.choice(root.findall("TEMPLATE/NIC"))
        kind = chance.choice(["truncated", "base64", "missing", "value", "value", "value", "tag", "doctype", "noise"])
        if kind == "truncated":
            yield _sent(document[: chance.randrange(len(document) - 1)]), kind
        elif kind == "base64":
            text = _sent(document)
            at = chance.randrange(len(text))
            yield text[:at] + chance.choice("%*!\x00é") + text[at:], kind
        elif kind == "missing":
            name = chance.choice(_NEEDED)
            for element in nic.findall(name):
                nic.remove(element)
            yield _sent(etree.tostring(root)), f"{kind} {name}"
        elif kind == "value":
            name = chance.choice(list(_BAD))
            value = chance.choice(_BAD[name])
            known = nic.find(name)
            (etree.SubElement(nic, name) if known is None else known).text = value
            yield _sent(etree.tostring(root)), f"{name} {value[:30]}"
        elif kind == "tag":
            root.tag = chance.choice(["VMS", "vm", "VNET"])
            yield _sent(etree.tostring(root)), kind
        elif kind == "doctype":
            yield _sent(b'<!DOCTYPE VM [<!ENTITY x SYSTEM "file:///etc/shadow">]>' + document), kind
        else:
            yield _sent(chance.randbytes(chance.randrange(1, 3000))), kind


def _sent(document: bytes) -> str:
    return base64.b64encode(document).decode()


def test_mutated_documents_change_nothing_and_say_why(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    before = lab.dump("h1")
    calls, kinds = [], []
    verbs = {"pre": [], "post": ["one-1", "h1"], "clean": ["h1"]}
    for number, (text, kind) in enumerate(mutations(seed=7, count=240)):
        verb = list(verbs)[number % 3]
        if verb == "clean" and kind not in _UNREADABLE:
            continue  # what is leaving may be as odd as it likes
        if kind.startswith("BRIDGE aws_ovs") and verb != "pre":
            continue  # refused where bridges are made
        calls.append([verb, verbs[verb], text])
        kinds.append(f"{verb}: {kind}")
    calls.append(["post", verbs["post"], "A" * 20_000_000])
    kinds.append("post: huge")
    done = lab.hosts["h1"].run(
        ["/usr/bin/python3", "-c", _BATCH, ACTIONS], user="oneadmin", stdin=json.dumps(calls), timeout=300
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(calls)
    wrong = []
    for kind, (code, out, error) in zip(kinds, results, strict=True):
        verb = kind.partition(":")[0]
        lines = error.splitlines()
        good = code == 1 and not out and len(lines) == 2 and lines[0] == f"ERROR: {lines[1]}"
        if not (good and lines[1].startswith(f"{verb}: ") and "internal error" not in error):
            wrong.append((kind, code, error[-300:]))
    assert wrong == []
    assert lab.dump("h1") == before


def test_every_verb_twice_is_like_once(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    once = lab.dump("h1")
    for verb, argv in (
        ("pre", ()),
        ("post", ("one-1", "h1")),
        ("update_sg", ("one-1",)),
        ("update_nic", ("one-1", "0")),
    ):
        assert lab.driver("h1", verb, argv, DOCUMENT).returncode == 0
        assert lab.dump("h1") == once, verb
    lab.hosts["h1"].run(["aws-ovs", "restore"])
    assert lab.dump("h1") == once
    assert lab.driver("h1", "clean", ("h1",), DOCUMENT).returncode == 0
    gone = lab.dump("h1")
    assert gone != once
    assert lab.driver("h1", "clean", ("h1",), DOCUMENT).returncode == 0
    assert lab.dump("h1") == gone


def test_an_mtu_that_does_not_fit_is_refused_with_both_numbers(fresh_lab: Lab) -> None:
    document = DOCUMENT.replace(b"<MTU><![CDATA[1450]]></MTU>", b"<MTU><![CDATA[1451]]></MTU>")
    done = fresh_lab.driver("h1", "pre", (), document)
    assert done.returncode == 1
    assert re.search(r"MTU 1451 .* 9001, which leaves 1450", done.stderr)


def test_a_post_that_fails_leaves_no_trace(fresh_lab: Lab) -> None:
    lab = fresh_lab
    assert lab.driver("h1", "pre", (), DOCUMENT).returncode == 0
    before = lab.dump("h1")
    done = lab.driver("h1", "post", ("one-1", "h1"), DOCUMENT)
    assert done.returncode == 1
    assert "port one-1-0 of NIC 0 is not on bridge onebr1" in done.stderr
    assert lab.dump("h1") == before


def test_a_private_ip_of_another_vm_is_refused(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    ips = {"192.168.0.10": "192.168.0.30", "192.168.0.250": "192.168.0.31"}
    other = substitute(DEPLOY, vm_id=2, ips=ips)
    done = lab.driver("h1", "pre", (), other.steps[0].xml or b"")
    assert done.returncode == 1
    assert "10.0.0.41 is in use on this node by VM 1 (port one-1-1)" in done.stderr


def test_a_bridge_with_an_uplink_is_left_alone(fresh_lab: Lab) -> None:
    lab = fresh_lab
    host = lab.hosts["h1"]
    host.run(["ovs-vsctl", "add-br", "onebr1", "--", "set", "Bridge", "onebr1", f"datapath_type={host.datapath_type}"])
    host.run(["ovs-vsctl", "add-port", "onebr1", "uplink0", "--", "set", "Interface", "uplink0", "type=internal"])
    done = lab.driver("h1", "pre", (), DOCUMENT)
    assert done.returncode == 1
    assert "bridge onebr1 has a port that this driver does not know (uplink0)" in done.stderr
    assert host.run(["ovs-vsctl", "get-fail-mode", "onebr1"]).stdout.strip() == ""


def test_open_vswitch_that_does_not_run_is_said(fresh_lab: Lab) -> None:
    host = fresh_lab.hosts["h1"]
    host.stop_ovs()
    done = fresh_lab.driver("h1", "pre", (), DOCUMENT)
    host.start_ovs()
    assert done.returncode == 1
    assert "Open vSwitch does not answer at /run/openvswitch/db.sock" in done.stderr


_SEND = """
import socket, sys
interface, text = sys.argv[1:3]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((interface, 0))
for _ in range(5):
    s.send(bytes.fromhex(text))
"""


def _frame(to: str, source: str, source_ip: str, target_ip: str) -> str:
    """An Ethernet frame with a UDP packet, in hexadecimal."""
    body = bytes.fromhex("0fa00fa0000c0000") + b"spoo"
    header = bytearray(bytes.fromhex("4500002000000000401100 00".replace(" ", "")))
    header += bytes(map(int, source_ip.split("."))) + bytes(map(int, target_ip.split(".")))
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
    header[10:12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return (bytes.fromhex((to + source).replace(":", "")) + b"\x08\x00" + bytes(header) + body).hex()


@pytest.mark.parametrize(
    ("reason", "to", "mac", "source", "target"),
    [
        ("source-not-on-eni", "0a:00:00:00:00:01", "own", A_EIP, SERVER),
        ("wrong-mac", "0a:00:00:00:00:01", "02:00:c0:a8:00:fa", "10.0.0.11", SERVER),
        ("multicast", "01:00:5e:00:00:05", "own", "10.0.0.11", "239.0.0.5"),
        ("broadcast", "ff:ff:ff:ff:ff:ff", "own", "10.0.0.11", "255.255.255.255"),
    ],
)
def test_the_rules_of_aws_bite(fresh_lab: Lab, reason: str, to: str, mac: str, source: str, target: str) -> None:
    lab = fresh_lab
    host = lab.hosts["h1"]
    before = lab.vpc.drops().get(reason, 0)
    frame = _frame(to, host.instance.mac if mac == "own" else mac, source, target)
    host.run(["/usr/bin/python3", "-c", _SEND, "ens5", frame])
    lab.vpc.settle()
    assert lab.vpc.drops().get(reason, 0) >= before + 5
    assert source in lab.vpc.last_drops(reason)[-1]


def _spoofed(lab: Lab, frame: str) -> int:
    """How many of five frames that VM 1 sends on eth1 reach a VM of the same network on h2."""
    ears = lab.guest(2).spawn(["timeout", "2", "tcpdump", "-n", "-l", "-i", "eth0", "udp", "port", "4000"])
    assert ears.stderr
    while "listening" not in (line := ears.stderr.readline()):
        assert line, "tcpdump did not start"
    lab.guest(1).run(["/usr/bin/python3", "-c", _SEND, "eth1", frame])
    return ears.communicate()[0].count(" UDP, ")


def test_port_security(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    neighbour = promise.other_vm(DOCUMENT, 1, 2, "192.168.0.60")
    lab.play(promise.deploy(neighbour, "h2"))
    to, own = "02:00:c0:a8:00:3c", "02:00:c0:a8:00:fa"
    assert _spoofed(lab, _frame(to, own, A_EIP, "192.168.0.60")) == 5
    assert _spoofed(lab, _frame(to, own, "192.168.0.77", "192.168.0.60")) == 0
    assert _spoofed(lab, _frame(to, "02:00:c0:a8:00:99", A_EIP, "192.168.0.60")) == 0
    # By default too, and off only where the network says NO.
    for word, arrives in ((b"", 0), (b"NO", 5)):
        document = re.sub(rb"(<FILTER_(?:IP|MAC)_SPOOFING>)<!\[CDATA\[YES\]\]>", rb"\1" + word, DOCUMENT)
        assert lab.driver("h1", "post", ("one-1", "h1"), document).returncode == 0
        assert _spoofed(lab, _frame(to, own, "192.168.0.77", "192.168.0.60")) == arrives


def test_nothing_passes_before_post(fresh_lab: Lab) -> None:
    lab = fresh_lab
    pre, plug, post = DEPLOY.steps
    lab.play(DEPLOY._replace(steps=(pre, plug)))
    guest = lab.guest(1)
    assert checks.ping(guest, A, "192.168.0.1", count=1) == "no answer"
    lab.play(DEPLOY._replace(steps=(post,)))
    guest.run(["ip", "neigh", "flush", "all"])  # it still waits for the answer that it could not get
    assert checks.reaches(checks.ping(guest, A, "192.168.0.1"))


def test_a_guest_never_reaches_nodes_or_link_local(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    guest = lab.guest(1)
    left = lab.vpc.drops().get("link-local", 0)
    for target in ("10.0.0.11", "10.0.0.12", "169.254.169.254", "169.254.87.1", "198.18.0.1"):
        for source in (A, A_EIP):
            assert checks.ping(guest, source, target, count=1) == "no answer", (source, target)
    assert lab.vpc.drops().get("link-local", 0) == left, "a packet to 169.254.169.254 left the node"
    assert checks.reaches(checks.ping(guest, A, SERVER))


def test_same_subnet_and_addresses_in_two_networks(fresh_lab: Lab) -> None:
    lab = fresh_lab
    first = promise.other_vm(DOCUMENT, 1, 5, "192.168.0.70")
    second = promise.other_vm(DOCUMENT, 1, 6, "192.168.0.70", vlan_id="4242")
    for document in (first, second):
        lab.play(promise.deploy(document, "h1"))
    with checks.Web() as web:
        web.internet(lab)
        for vm_id in (5, 6):
            assert checks.fetch_out(lab.guest(vm_id), "192.168.0.70") == lab.hosts["h1"].instance.public_ip


def test_elastic_ips_from_inside(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    neighbour = promise.other_vm(DOCUMENT, 1, 2, "192.168.0.60")
    lab.play(promise.deploy(neighbour, "h1"))
    with checks.Web() as web:
        web.guest(lab.guest(1), {80})
        url = "http://54.10.20.41/"
        assert checks.fetch_out(lab.guest(1), A_EIP, url) == "54.10.20.41"
        assert checks.fetch_out(lab.guest(2), "192.168.0.60", url) == lab.hosts["h1"].instance.public_ip


@pytest.mark.parametrize("source", [A_EIP, A])
def test_path_mtu_discovery_outward(fresh_lab: Lab, source: str) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    lab.vpc.set_internet_mtu(1300)
    guest = lab.guest(1)
    checks.ping(guest, source, SERVER, size=1400, count=2)
    interface = "eth1" if source == A_EIP else "eth0"
    route = guest.run(["ip", "route", "get", SERVER, "from", source, "oif", interface]).stdout
    assert "mtu 1300" in route
    seen = checks.ping(guest, source, SERVER, size=1272)
    assert checks.reaches(seen)


def test_path_mtu_discovery_inward(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    done = lab.vpc.internet(
        ["ping", "-c", "2", "-W", "1", "-M", "do", "-s", "1472", "-I", CLIENT, "54.10.20.41"], check=False
    )
    assert re.search(r"Frag needed and DF set \(mtu = 1450\)", done.stdout)
    fits = lab.vpc.internet(["ping", "-c", "2", "-W", "1", "-M", "do", "-s", "1422", "-I", CLIENT, "54.10.20.41"])
    assert " 0% packet loss" in fits.stdout


def test_downloads_through_a_narrow_hop(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.play(DEPLOY)
    lab.vpc.set_internet_mtu(1300)
    size = 300_000
    with checks.Web() as web:
        web.guest(lab.guest(1), {80})
        web.internet(lab)
        command = ["curl", "-s", "--max-time", "20", "-w", "%{size_download}", "-o", "/dev/null"]
        inward = lab.vpc.internet([*command, f"http://54.10.20.41/big/{size}/0"])
        outward = lab.guest(1).run([*command, "--interface", A_EIP, f"http://{SERVER}/big/{size}/0"])
    assert (inward.stdout, outward.stdout) == (str(size), str(size))


_UDP_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    data, sender = s.recvfrom(2000)
    s.sendto(data + sender[0].encode(), sender)
"""
_UDP_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b"seen ")
print(s.recv(2000).decode())
"""


@pytest.mark.parametrize(("external", "internal"), [(9001, 1), (9010, 10)])
def test_shared_ports_serve_udp(fresh_lab: Lab, external: int, internal: int) -> None:
    lab = fresh_lab
    recording = load("deploy-ports")
    document = promise.settled(recording.steps[-1].xml or b"")
    (reach,) = promise.cards(document)[0].reaches
    lab.play(recording)
    public = reach.public_ip or "198.51.100.77"
    eni = lab.hosts["h1"].instance.eni_id
    lab.ec2.give_eip(lab.ec2.allocate_eip(public), eni, reach.private_ip)
    lab.vpc.settle()
    with checks.Web() as servers:
        servers.serve(lab.guest(5).spawn(["/usr/bin/python3", "-c", _UDP_ECHO, str(internal)]))
        answer = lab.vpc.internet(["/usr/bin/python3", "-c", _UDP_ASK, public, str(external)])
    assert answer.stdout.startswith("seen ")


@pytest.mark.parametrize("late", [0.0, 2.0])
@pytest.mark.parametrize("inward", [True, False])
def test_connections_survive_a_migration(fresh_lab: Lab, late: float, inward: bool) -> None:
    """Through the Elastic IP, opened from either side, with the address arriving at the new host `late` seconds late."""
    lab = fresh_lab
    lab.play(DEPLOY)
    size = 1_500_000
    path = f"/big/{size}/12"
    command = ["curl", "-s", "--max-time", "40", "-w", "%{size_download}", "-o", "/dev/null"]
    guest = lab.guest(1)
    with checks.Web() as web:
        if inward:
            web.guest(guest, {80})
            running = lab.vpc.internet_spawn([*command, f"http://54.10.20.41{path}"])
        else:
            web.internet(lab)
            running = guest.spawn([*command, "--interface", A_EIP, f"http://{SERVER}{path}"])
        lab.vpc.set_delay(late)
        lab.play(load("live-migrate"))
        assert guest.host is lab.hosts["h2"]
        assert running.poll() is None, "the download was over before the migration"
        assert running.communicate(timeout=60)[0] == str(size)


def test_a_private_ip_that_the_node_itself_has_is_refused(fresh_lab: Lab) -> None:
    lab = fresh_lab
    host = lab.hosts["h1"]
    host.run(["ip", "address", "add", "10.0.0.41/24", "dev", "ens5"])
    try:
        done = lab.driver("h1", "pre", (), DOCUMENT)
        assert done.returncode == 1
        assert "10.0.0.41 is configured on this node itself" in done.stderr
        assert "ip address del 10.0.0.41/24 dev ens5" in done.stderr
        host.run(["sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1"])
        assert lab.driver("h1", "pre", (), DOCUMENT).returncode == 0
    finally:
        host.run(["sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=0"])
        host.run(["ip", "address", "del", "10.0.0.41/24", "dev", "ens5"])


def test_the_hypervisor_needs_what_pre_makes(fresh_lab: Lab) -> None:
    _, plug, _ = DEPLOY.steps
    fresh_lab.driver("h1", "clean", ("h1",), DOCUMENT)  # the lab knows the VM from its document only
    with pytest.raises((HypervisorError, ValueError)):
        fresh_lab.play(DEPLOY._replace(steps=(plug,)))
    fresh_lab.play(DEPLOY)


def test_storage_migration_within_a_host_keeps_the_network(fresh_lab: Lab) -> None:
    """pre, clean and post on one host, while the hypervisor leaves the ports where they are."""
    lab = fresh_lab
    lab.play(DEPLOY)
    before = lab.dump("h1")
    for action, argv in (("pre", ()), ("clean", ("h1",)), ("post", ("one-1", "h1"))):
        assert lab.driver("h1", action, argv, DOCUMENT).returncode == 0
    assert lab.dump("h1") == before
    assert checks.reaches(checks.ping(lab.guest(1), A_EIP, SERVER))


@pytest.mark.parametrize("operation", ["attach-nic", "attach-alias-external"])
def test_an_attachment_disturbs_nothing_else(fresh_lab: Lab, operation: str) -> None:
    """A ping every 50 ms from a NIC that the action is not about, or that is only the parent of the alias."""
    lab = fresh_lab
    recording = substitute(load(operation), hosts={"h2": "h1"})
    document = promise.without_attached(recording.steps[0].xml or b"")
    lab.play(promise.deploy(document, "h1"))
    steady = lab.guest(1).spawn(["ping", "-n", "-i", "0.05", "-c", "60", "-I", A, "192.168.0.1"])
    lab.play(recording)
    out = steady.communicate(timeout=30)[0]
    assert " 60 received, 0% packet loss" in out
