"""The lab's hosts and guests themselves: that what the driver's tests stand on holds without the driver."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import recording
from tests.world.ec2.region import Instance
from tests.world.guests import document
from tests.world.guests.document import Document
from tests.world.guests.guest import HypervisorError
from tests.world.guests.hypervisor import Hypervisor
from tests.world.hosts.executor import CommandError
from tests.world.hosts.host import Host
from tests.world.hosts.host_userspace import UserspaceHost
from tests.world.hosts.namespace import Namespace
from tests.world.lab import DriverError, Lab

REPOSITORY = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.only_on("userspace", reason="it looks at the namespaces that these hosts are made of"),
    pytest.mark.xdist_group("pair"),
]


@pytest.fixture(scope="module")
def pair() -> Iterator[dict[str, Host]]:
    """Two hosts without the driver whose ENIs are the ends of one cable."""
    one = Instance("h1", "", "", "02:00:00:00:00:11", "10.0.0.11", "")
    two = Instance("h2", "", "", "02:00:00:00:00:12", "10.0.0.12", "")
    with UserspaceHost("h1", one) as first, UserspaceHost("h2", two) as second:
        ends = f"ens5 address {one.mac} type veth peer name ens5 address {two.mac} netns {second.pid}"
        first.network(["ip", "link", "add", *ends.split()])
        for host in (first, second):
            host.boot()
            host.run(["ethtool", "-K", "ens5", "tx", "off"])
        yield {"h1": first, "h2": second}


@pytest.fixture
def hosts(pair: dict[str, Host]) -> dict[str, Host]:
    """The two hosts, with the bridges that the recordings name joined by a VXLAN tunnel for each."""
    for host, peer in ((pair["h1"], pair["h2"]), (pair["h2"], pair["h1"])):
        host.reset()
        for key, bridge in enumerate(("onebr1", "ovsbr0")):
            tunnel = f"type=vxlan options:key={key + 7} options:remote_ip={peer.instance.private_ip}"
            commands = (
                f"add-br {bridge} -- set Bridge {bridge} datapath_type=netdev"
                f" -- add-port {bridge} vx{key} -- set Interface vx{key} {tunnel}"
            )
            host.run(["ovs-vsctl", *commands.split()])
    return pair


@pytest.fixture
def hypervisor(hosts: dict[str, Host]) -> Iterator[Hypervisor]:
    running = Hypervisor(hosts)
    yield running
    for vm_id in list(running.guests):
        running.destroy(vm_id)


def vm(vm_id: int, last: int) -> Document:
    """A VM with the two cards of the recorded one, at 192.168.0.`last` and the address after it."""
    ips = {"192.168.0.10": f"192.168.0.{last}", "192.168.0.250": f"192.168.0.{last + 1}"}
    xml = recording.substitute(recording.load("deploy"), vm_id=vm_id, ips=ips).steps[0].xml
    assert xml
    return document.parse(xml)


def deploy(hypervisor: Hypervisor, one: Document, host: str) -> None:
    hypervisor.step("vmm-deploy", ("deployment.0", host, str(one.vm_id), host), one)


def ports(host: Host, bridge: str) -> list[str]:
    return [name for name in host.run(["ovs-vsctl", "list-ports", bridge]).stdout.split() if name.startswith("one-")]


def pings(guest: Namespace, address: str, source: str) -> bool:
    # The first may meet an Open vSwitch that is still resolving the tunnel's other end.
    argv = ["ping", "-c", "5", "-i", "0.2", "-W", "1", "-I", source, address]
    return guest.run(argv, check=False).returncode == 0


def refusals(host: Host) -> str:
    """How often the host's kernel has answered that a port is unreachable, however it is written."""
    return host.run(["nstat", "-asz", "IcmpOutDestUnreachs"]).stdout


def test_a_namespace_changes_nothing_of_this_machine() -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    with Namespace("elsewhere") as there:
        script = "echo x >/etc/elsewhere; echo 1 >/proc/sys/net/ipv4/ip_forward; hostname; ps ax -o comm="
        seen = there.run(["sh", "-c", script]).stdout.split()
        assert seen == ["elsewhere", "cat", "sh", "ps"]
        with pytest.raises(CommandError, match="Read-only"):
            there.run(["sh", "-c", "echo 1 >/proc/sys/kernel/printk_ratelimit"])
    assert not Path("/etc/elsewhere").exists()
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


def test_a_command_that_takes_too_long_is_killed_with_what_it_started() -> None:
    with Namespace("slow") as there:
        with pytest.raises(CommandError, match=r"still ran after 0\.3 s"):
            there.run(["sh", "-c", "sleep 1000 & sleep 1000"], timeout=0.3)
        process = there.spawn(["sh", "-c", "sleep 1000 & sleep 1000"])
        process.terminate()
        assert process.wait(5) != 0
        deadline = time.monotonic() + 5  # the kernel kills them at once, and on a busy machine they need time to go
        while there.run(["pgrep", "sleep"], check=False).returncode == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert there.run(["pgrep", "sleep"], check=False).returncode == 1


def test_bytes_arrive_as_they_are() -> None:
    with Namespace("bytes") as there:
        everything = bytes(range(256))
        done = there.run(["sha256sum"], stdin=everything)
        assert done.stdout.startswith("40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880")
        assert there.run(["cat"], stdin="…\r\n").stdout.startswith("…")


def test_nothing_is_left_when_the_tests_are_killed() -> None:
    script = (
        "from tests.world.hosts.namespace import Namespace\n"
        "import time\n"
        "there = Namespace('doomed')\n"
        "there.run(['sh', '-c', 'setsid sleep 1234 >/dev/null 2>&1 &'])\n"
        "print(there.spawn(['sh', '-c', 'echo; exec sleep 1234']).stdout.readline(), end='')\n"
        "print(there.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert runner.stdout
    assert runner.stdout.readline() == "\n"  # both run
    init = int(runner.stdout.readline())
    members = subprocess.run(["pgrep", "--ns", str(init), "--nslist", "pid"], capture_output=True, text=True).stdout
    assert len(members.split()) >= 3
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    runner.stdout.close()
    deadline = time.monotonic() + 5
    while any(Path("/proc", pid).exists() for pid in members.split()):
        assert time.monotonic() < deadline, "processes outlive the tests"
        time.sleep(0.02)


def test_tunnels_cross_and_outlive_a_crash(hypervisor: Hypervisor, hosts: dict[str, Host]) -> None:
    deploy(hypervisor, vm(1, 10), "h1")
    deploy(hypervisor, vm(2, 20), "h2")
    guest = hypervisor.guests[1]
    before = refusals(hosts["h2"])
    assert pings(guest, "192.168.0.20", "192.168.0.10")
    assert pings(guest, "192.168.0.21", "192.168.0.11")
    assert refusals(hosts["h2"]) == before, "the host's kernel answers tunnel packets"
    hosts["h1"].kill_ovs("ovs-vswitchd")
    assert list(hosts["h1"].ovs_pids()) == ["ovsdb-server"]
    assert not pings(guest, "192.168.0.20", "192.168.0.10")
    hosts["h1"].start_ovs()
    assert pings(guest, "192.168.0.20", "192.168.0.10")
    hosts["h1"].restart_ovs()
    assert pings(guest, "192.168.0.20", "192.168.0.10")


def test_a_host_whose_bridge_is_missing_refuses_the_vm(hypervisor: Hypervisor, hosts: dict[str, Host]) -> None:
    hosts["h1"].run(["ovs-vsctl", "del-br", "ovsbr0"])
    with pytest.raises(HypervisorError, match="ovsbr0"):
        deploy(hypervisor, vm(1, 10), "h1")
    assert hypervisor.guests == {}
    assert ports(hosts["h1"], "onebr1") == []
    deploy(hypervisor, vm(1, 10), "h2")
    with pytest.raises(HypervisorError, match="ovsbr0"):
        hypervisor.step("vmm-migrate", ("one-1", "h1", "h2", "1", "h2"), None)
    assert ports(hosts["h2"], "onebr1") == ["one-1-0"]
    with pytest.raises(HypervisorError, match="one-1"):
        hypervisor.step("vmm-save", ("one-1", "checkpoint", "h1", "1", "h1"), None)
    hypervisor.step("vmm-cancel", ("one-1", "h1", "1", "h1"), None)
    assert ports(hosts["h2"], "onebr1") == ["one-1-0"]


def test_a_connection_survives_migration(hypervisor: Hypervisor, hosts: dict[str, Host]) -> None:
    deploy(hypervisor, vm(1, 10), "h1")
    deploy(hypervisor, vm(2, 20), "h1")
    serve = (
        "import socket, time\n"
        "server = socket.create_server(('192.168.0.10', 80))\n"
        "client, _ = server.accept()\n"
        "for number in range(200):\n"
        "    client.sendall(b'x' * 1000)\n"
        "    time.sleep(0.01)\n"
    )
    fetch = (
        "import socket\n"
        "client = socket.create_connection(('192.168.0.10', 80), 10)\n"
        "total = 0\n"
        "while data := client.recv(65536):\n"
        "    total += len(data)\n"
        "print(total)\n"
    )
    server = hypervisor.guests[1].spawn(["python3", "-c", serve])
    while hypervisor.guests[1].run(["ss", "-Hltn"]).stdout == "":
        time.sleep(0.02)
    client = hypervisor.guests[2].spawn(["python3", "-c", fetch])
    time.sleep(0.5)
    hypervisor.step("vmm-migrate", ("one-1", "h2", "h1", "1", "h1"), None)
    assert client.poll() is None
    assert (ports(hosts["h1"], "onebr1"), ports(hosts["h2"], "onebr1")) == (["one-2-0"], ["one-1-0"])
    assert client.communicate(timeout=30)[0].strip() == "200000"
    assert server.wait(5) == 0


def test_a_suspended_guest_keeps_its_cards(hypervisor: Hypervisor, hosts: dict[str, Host]) -> None:
    one = vm(1, 10)
    deploy(hypervisor, one, "h1")
    guest = hypervisor.guests[1]
    before = guest.run(["ip", "-4", "-br", "address"]).stdout.split()
    hypervisor.step("vmm-save", ("one-1", "checkpoint", "h1", "1", "h1"), one)
    assert ports(hosts["h1"], "onebr1") == []
    assert "LOWERLAYERDOWN" in guest.run(["ip", "-br", "address", "show", "eth0"]).stdout
    assert "one-1-0" not in hosts["h1"].run(["ip", "link"]).stdout
    hypervisor.step("vmm-restore", ("checkpoint", "h2", "one-1", "1", "h2"), one)
    after = guest.run(["ip", "-4", "-br", "address"]).stdout.split()
    assert [word for word in after if "@" not in word] == [word for word in before if "@" not in word]
    assert ports(hosts["h2"], "onebr1") == ["one-1-0"]


def test_cards_come_and_go(hypervisor: Hypervisor, hosts: dict[str, Host]) -> None:
    deploy(hypervisor, vm(1, 10), "h2")
    attach = recording.load("attach-nic")
    assert attach.steps[0].xml
    seen = document.parse(attach.steps[0].xml)
    hypervisor.step(attach.steps[1].action, attach.steps[1].argv, seen)
    guest = hypervisor.guests[1]
    assert ports(hosts["h2"], "onebr1") == ["one-1-0", "one-1-2"]
    card = next(card for card in seen.cards if card.attaching)
    more = card._replace(addresses=("192.168.0.11/24", "192.168.0.77/24"), attaching=False)
    hypervisor.step("vmm-reconfigure", ("one-1", "sda", "", "1", "h2"), seen._replace(cards=(more,)))
    assert "192.168.0.77/24" in guest.run(["ip", "address", "show", "eth2"]).stdout
    assert "from 192.168.0.77 lookup 102" in guest.run(["ip", "rule"]).stdout
    hypervisor.step("vmm-reconfigure", ("one-1", "sda", "", "1", "h2"), seen)
    assert "192.168.0.77" not in guest.run(["sh", "-c", "ip address; ip rule"]).stdout
    hypervisor.step("vmm-detach_nic", ("one-1", card.mac, "1", "h2"), None)
    assert ports(hosts["h2"], "onebr1") == ["one-1-0"]
    assert "eth2" not in guest.run(["sh", "-c", "ip link; ip route show table all"]).stdout
    hypervisor.step("vmm-cancel", ("one-1", "h2", "1", "h2"), None)
    assert ports(hosts["h2"], "onebr1") == []
    assert "one-1" not in hosts["h2"].run(["sh", "-c", "ip link; nft list ruleset"]).stdout


def test_a_guest_that_ends_takes_its_cards_with_it_at_once(hypervisor: Hypervisor, hosts: dict[str, Host]) -> None:
    for number in range(1, 4):
        deploy(hypervisor, vm(number, 10 * number), "h1")
    for number in range(1, 4):
        hosts["h1"].network(["ip", "link", "delete", f"one-{number}-0"])  # the other must go all the same
        hypervisor.guests.pop(number).close()
        assert f"one-{number}-" not in hosts["h1"].network(["ip", "link"])


def test_each_card_answers_for_its_own_address_only(hypervisor: Hypervisor) -> None:
    both = vm(1, 10)
    one_bridge = both._replace(cards=tuple(card._replace(bridge="onebr1") for card in both.cards))
    deploy(hypervisor, one_bridge, "h1")
    deploy(hypervisor, vm(2, 20), "h1")
    for card, address in zip(one_bridge.cards, ("192.168.0.10", "192.168.0.11"), strict=True):
        answers = hypervisor.guests[2].run(["arping", "-c", "3", "-w", "5", "-I", "eth0", address]).stdout.lower()
        assert answers.count(card.mac) == 3
        assert answers.count("reply from") == 3


def test_the_hosts_kernel_does_not_hear_guests(hypervisor: Hypervisor, hosts: dict[str, Host]) -> None:
    deploy(hypervisor, vm(1, 10), "h1")
    hosts["h1"].run(["ip", "address", "add", "192.168.0.99/32", "dev", "lo"])
    try:
        argv = ["arping", "-c", "2", "-w", "1", "-I", "eth0", "192.168.0.99"]
        assert "Received 0 response" in hypervisor.guests[1].run(argv, check=False).stdout
    finally:
        hosts["h1"].run(["ip", "address", "del", "192.168.0.99/32", "dev", "lo"])


def test_oneadmin_is_as_sshd_would_make_it(fresh_lab: Lab) -> None:
    host = fresh_lab.hosts["h1"]
    words = host.run(["sh", "-c", "id -un; id -Gn; pwd; echo $HOME; echo $PATH"], user="oneadmin").stdout.split()
    assert words == ["oneadmin", "oneadmin", "/var/lib/one", "/var/lib/one", "/usr/local/bin:/usr/bin:/bin:/usr/games"]
    assert host.run(["sudo", "-n", "id"], user="oneadmin", check=False).returncode == 1


def test_a_reset_brings_every_host_back(fresh_lab: Lab) -> None:
    before = {name: fresh_lab.dump(name) for name in fresh_lab.hosts}
    fresh_lab.play(recording.load("deploy"))
    assert fresh_lab.dump("h1") != before["h1"]
    assert fresh_lab.ec2.client.describe_addresses(PublicIps=["54.10.20.41"])["Addresses"]
    fresh_lab.hosts["h1"].kill_ovs()
    fresh_lab.reset()
    lines = {name: fresh_lab.dump(name).splitlines() for name in fresh_lab.hosts}
    for name, text in before.items():
        # Which ovs-vswitchd it was is all that may differ.
        assert [line for line in lines[name] if "ovs-vswitchd" not in line] == [
            line for line in text.splitlines() if "ovs-vswitchd" not in line
        ]
    assert len(fresh_lab.ec2.client.describe_addresses()["Addresses"]) == len(fresh_lab.hosts)


def test_an_address_follows_its_vm(fresh_lab: Lab) -> None:
    def holder() -> str:
        enis = fresh_lab.ec2.client.describe_network_interfaces()["NetworkInterfaces"]
        found = [
            one for one in enis if any(each["PrivateIpAddress"] == "10.0.0.41" for each in one["PrivateIpAddresses"])
        ]
        assert len(found) == 1
        return str(found[0]["NetworkInterfaceId"])

    fresh_lab.play(recording.load("deploy"))
    assert holder() == fresh_lab.hosts["h1"].instance.eni_id
    fresh_lab.play(recording.load("live-migrate"), follow=False)
    assert holder() == fresh_lab.hosts["h1"].instance.eni_id
    fresh_lab.follow(1)
    assert holder() == fresh_lab.hosts["h2"].instance.eni_id


def test_a_failed_action_says_all_and_stops_the_operation(fresh_lab: Lab) -> None:
    deploy_steps = recording.load("deploy").steps
    broken = recording.Recording("broken", (deploy_steps[0]._replace(xml=b"<VM><ID>"), *deploy_steps[1:]))
    with pytest.raises(DriverError, match=r"pre  on h1: exit code 1[^$]*ERROR: pre: ") as caught:
        fresh_lab.play(broken)
    assert caught.value.done.returncode == 1
    assert fresh_lab.hypervisor.guests == {}
    elsewhere = recording.substitute(recording.load("deploy"), hosts={"h1": "h9"})
    with pytest.raises(ValueError, match="h9"):
        fresh_lab.play(elsewhere)
