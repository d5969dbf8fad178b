"""`aws-ovs check` names what is not as it should be, and only that; what it advises repairs it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.support import checks, promise
from tests.lab.support.breaks import ADVISED, CONFIGURATION, DOWN, FOREIGN, REPAIRED, RESTORE, SEND, UNBLOCK, flows
from tests.world.hosts.host import ENI, ENI_MTU, Host
from tests.world.lab import Lab
from tests.world.recording import load

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
_MARKER_ONLY = ("another MTU of the ENI", "another configuration")
"""What makes `restore` build everything anew, though nothing else differs yet."""
OK = "ok: everything on this node is as it should be"

_is_clean: set[Lab] = set()


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    """h1 with VM 1, and nothing wrong; the lab is reset only when the test before has not left it so."""
    host = lab.hosts["h1"]
    if lab not in _is_clean or 1 not in lab.hypervisor.guests:
        lab.reset()
        add = [
            "ovs-vsctl",
            "--may-exist",
            "add-br",
            FOREIGN,
            "--",
            "set",
            "Bridge",
            FOREIGN,
            f"datapath_type={host.datapath_type}",
        ]
        host.run(add)
        lab.play(DEPLOY)
        lab.tunnels("h1")
    _is_clean.discard(lab)
    host.run(["cp", "-a", CONFIGURATION, "/root/kept.yaml"])
    host.stop_watch()  # it would heal what is to be found
    yield host
    host.start_watch()
    # What a reset of the lab leaves alone.
    tidy = f"cp -a /root/kept.yaml {CONFIGURATION}; ip link set {ENI} mtu {ENI_MTU}"
    host.run(["sh", "-c", f"{tidy}; nft delete table ip filter; nft delete table inet fw; ip link del vxlan9; true"])


def check(host: Host) -> tuple[int, list[str]]:
    """Exit code and lines of a check that must not fail itself."""
    done = host.run(["aws-ovs", "check"], check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def wait_until_clean(lab: Lab, host: Host) -> None:
    """Until BFD has found all tunnels up again."""
    deadline = time.monotonic() + 30
    while (now := check(host)) != (0, [OK]):
        assert time.monotonic() < deadline, now
        time.sleep(0.2)
    _is_clean.add(lab)


def assert_says(host: Host, says: tuple[str, ...], maybe: tuple[str, ...] = ()) -> None:
    """Every line is expected, and nothing expected is missing."""
    code, lines = check(host)
    assert code == 1
    assert [line for line in lines if not any(re.fullmatch(one, line) for one in (*says, *maybe))] == []
    assert [one for one in says if not any(re.fullmatch(one, line) for line in lines)] == [], lines


@pytest.mark.parametrize("what", [*REPAIRED, *ADVISED])
def test_what_is_broken_is_named_and_the_remedy_repairs_it(lab: Lab, host: Host, what: str) -> None:
    case = REPAIRED.get(what) or ADVISED[what]
    host.run(["sh", "-ec", case.do])
    wrong = lab.dump("h1")
    assert_says(host, case.says, case.maybe)
    announced = host.run(["aws-ovs", "restore", "--dry-run"], check=False).stdout
    assert lab.dump("h1") == wrong, "the check or the dry run has changed something"
    assert announced or what in ADVISED or what in _MARKER_ONLY
    if case.repair:
        host.run(["sh", "-ec", case.repair])
    else:
        lab.push_peers()
    wait_until_clean(lab, host)
    if case.undo:
        host.run(["sh", "-ec", f"{case.undo}; ! aws-ovs check; aws-ovs restore"])
    wait_until_clean(lab, host)


_WATCH = """
rm -f /root/nft /root/ip
nft monitor >>/root/nft 2>&1 & nft=$!
ip -4 monitor route rule >>/root/ip 2>&1 & ip=$!
until grep -q ready /root/nft && grep -q 'lookup 77' /root/ip; do
    nft add table ip ready; nft delete table ip ready
    ip rule add table 77; ip rule del table 77
done
{command}
sleep 0.3
kill $nft $ip
grep -h -e aws_ovs -e 4789 -e 198.18 /root/nft /root/ip || true
"""


def announced_by_restore(host: Host) -> list[str]:
    """The lines that a dry run prints."""
    return host.run(["aws-ovs", "restore", "--dry-run"]).stdout.splitlines()


def test_a_dry_run_of_restore_prints_the_differences_and_nothing_else(lab: Lab, host: Host) -> None:
    assert announced_by_restore(host) == []
    host.run(["sh", "-ec", f"ip rule del table 4789; {REPAIRED['a flow deleted'].do}"])
    rule, flow = announced_by_restore(host)
    assert re.fullmatch("kernel the policy rules for table 4789 are not one for .*", rule)
    assert re.fullmatch(r"aws_ovs \+table=12,? .*nw_dst=10.0.0.41 .*", flow)
    host.run(["ovs-vsctl", "del-port", "vx-0a00000c"])
    *changes, rule, hint = announced_by_restore(host)
    assert changes[0] == "# the tunnel to h2 (10.0.0.12) is missing"
    assert [line.split()[0] for line in changes[1:]] == ["ovsdb"] * (len(changes) - 1)
    assert hint.startswith("# what flows should be is known when")
    host.run(["aws-ovs", "restore"])
    assert announced_by_restore(host) == []
    wait_until_clean(lab, host)


def changes_of_the_kernel(host: Host, command: str) -> str:
    """What the kernel tells of its routes, rules and nft tables while a command runs."""
    return host.run(["timeout", "60", "sh", "-ec", _WATCH.format(command=command)]).stdout


def test_a_restore_touches_nothing_in_the_kernel_that_is_right(lab: Lab, host: Host) -> None:
    assert changes_of_the_kernel(host, "aws-ovs restore") == ""
    told = changes_of_the_kernel(host, "ip rule del table 4789; nft delete table netdev aws_ovs; aws-ovs restore")
    assert "lookup 4789" in told
    assert "add table netdev aws_ovs" in told
    wait_until_clean(lab, host)


def test_it_says_the_same_as_json(lab: Lab, host: Host) -> None:
    assert json.loads(host.run(["aws-ovs", "check", "--json"]).stdout) == []
    host.run(["sh", "-ec", "ip rule del table 4789; ovs-ofctl del-flows onebr1"])
    done = host.run(["aws-ovs", "check", "--json"], check=False)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert len(found) > 2
    assert [f"{one['what']}; {one['remedy']}" for one in found] == check(host)[1]
    host.run(["aws-ovs", "restore"])
    wait_until_clean(lab, host)


def test_what_was_learned_is_no_difference(lab: Lab, host: Host) -> None:
    neighbour = promise.other_vm(DOCUMENT, 0, 2, "192.168.0.60")
    lab.play(promise.deploy(neighbour, "h2"))
    assert checks.reaches(checks.ping(lab.guest(1), "192.168.0.10", "192.168.0.60"))
    assert "hard_timeout" in host.run(["ovs-ofctl", "dump-flows", "aws_ovs", "table=30"]).stdout
    assert check(host) == (0, [OK])
    lab.play(promise.terminate(neighbour, "h2"))
    _is_clean.add(lab)


@pytest.mark.parametrize("bridge", ["ovsbr0", "ovsbr8"])
def test_a_vm_that_is_about_to_start_is_no_difference(lab: Lab, host: Host, bridge: str) -> None:
    vlan_id = "4242" if bridge == "ovsbr0" else None  # or the VNI of VM 1, on another bridge
    document = promise.other_vm(DOCUMENT, 1, 5, "192.168.0.70", vlan_id).replace(b"ovsbr0", bridge.encode())
    assert lab.driver("h1", "pre", (), document).returncode == 0
    assert check(host) == (0, [OK])
    lab.play(promise.deploy(document, "h1"))
    assert check(host) == (0, [OK])
    lab.play(promise.terminate(document, "h1"))
    assert check(host) == (0, [OK])


@pytest.mark.parametrize("text", ["", "{", "[]", "[{}]", '[{"vm_id": "x"}]', "\xff"])
def test_a_damaged_file_of_a_vm_is_named_and_written_anew(lab: Lab, host: Host, text: str) -> None:
    host.run(["sh", "-c", 'printf %s "$0" >/run/aws_ovs/vms/1.json', text])
    assert_says(host, (f"the file of VM 1 in /run/aws_ovs/vms is damaged; {SEND}.*",))
    host.run(["aws-ovs", "restore"])
    assert_says(host, (f"the file of VM 1 in /run/aws_ovs/vms is damaged; {SEND}.*",))
    assert checks.reaches(checks.ping(lab.guest(1), "192.168.0.10", "192.168.0.1")), "restore has cut it off"
    assert lab.driver("h1", "update_sg", ("one-1",), DOCUMENT).returncode == 0
    wait_until_clean(lab, host)


def test_an_emptied_run_directory_is_named_and_the_vm_heals_when_it_is_sent_again(lab: Lab, host: Host) -> None:
    host.run(["sh", "-c", "rm -r /run/aws_ovs/*"])
    says = (
        f"this node has not been set up since it booted; {RESTORE}",
        rf"port one-1-\d on bridge \w+ is of VM 1, whose file in /run/aws_ovs/vms is lost: .*; {SEND}.*",
        f"the nft tables aws_ovs are not as the driver has loaded them; {RESTORE}",
    )
    assert_says(host, says)
    assert checks.reaches(checks.ping(lab.guest(1), "192.168.0.10", "192.168.0.1")), "the check has changed something"
    assert lab.driver("h1", "update_sg", ("one-1",), DOCUMENT).returncode == 0
    wait_until_clean(lab, host)


def test_a_dead_ovs_vswitchd_is_named_and_its_restart_too(lab: Lab, host: Host) -> None:
    host.kill_ovs("ovs-vswitchd")
    assert check(host) == (1, ["ovs-vswitchd does not run; start it: systemctl start openvswitch-switch"])
    host.start_ovs()
    says = (
        rf"the process of ovs-vswitchd \(PID, start\) is .* but this node was set up for .*; {RESTORE}",
        flows(" of VM 1 NIC [01]", "(onebr1|ovsbr0|aws_ovs)", "missing"),
        flows(" of the node", "(onebr1|ovsbr0|aws_ovs)", "missing"),
    )
    assert_says(host, says, maybe=(DOWN, flows(" of the node", "aws_ovs", "there without reason")))
    host.run(["aws-ovs", "restore"])
    wait_until_clean(lab, host)


def test_a_dead_ovsdb_server_is_said(lab: Lab, host: Host) -> None:
    host.kill_ovs("ovsdb-server")
    done = host.run(["aws-ovs", "check"], check=False)
    host.start_ovs()
    assert done.returncode == 1
    assert "Open vSwitch does not answer at /run/openvswitch/db.sock" in done.stderr
    assert "start it: systemctl start openvswitch-switch" in done.stderr
    wait_until_clean(lab, host)


# In the kernel datapath the tunnels themselves have the port.
_NO_TUNNELS = "for port in $(ovs-vsctl list-ports aws_ovs | grep ^vx-); do ovs-vsctl del-port $port; done"
_LISTEN = """
import socket, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
while True:
    try:
        s.bind(("::", 4789))
        break
    except OSError:  # not yet free
        time.sleep(0.1)
print("ready", flush=True)
time.sleep(600)
"""


_PORT_TAKEN = r"process (\d+) \(python3\) has UDP port 4789, which the tunnels need; let .*: systemctl status (\d+)"


@contextmanager
def tunnels_port_taken(lab: Lab, host: Host) -> Iterator[None]:
    """Another process has UDP 4789, until the end, when what `check` advises is done."""
    host.run(["sh", "-ec", _NO_TUNNELS])
    other = host.spawn(["/usr/bin/python3", "-c", _LISTEN])
    assert other.stdout
    assert other.stdout.readline() == "ready\n"
    yield
    (found,) = filter(None, (re.fullmatch(_PORT_TAKEN, line) for line in check(host)[1]))
    host.run(["kill", found[2]])
    other.wait()
    host.run(["aws-ovs", "restore"])
    wait_until_clean(lab, host)


def test_a_process_on_the_tunnels_port_is_named(lab: Lab, host: Host) -> None:
    with tunnels_port_taken(lab, host):
        assert_says(host, (_PORT_TAKEN, rf"the tunnel to h\d \(.*\) is missing; {RESTORE}"), (DOWN,))


@pytest.mark.only_on("kernel", reason="the userspace datapath hears its tunnels without the port")
def test_tunnels_that_find_their_port_taken_are_named(lab: Lab, host: Host) -> None:
    with tunnels_port_taken(lab, host):
        host.run(["aws-ovs", "restore"])
        assert_says(host, (_PORT_TAKEN, rf"Open vSwitch refuses the tunnel to h\d .* already in use.*; {UNBLOCK}"))


def test_a_connection_table_that_is_nearly_full_is_named(lab: Lab, host: Host) -> None:
    path = "/proc/sys/net/netfilter/nf_conntrack_count"
    limit = int(host.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_max"]).stdout)
    host.run(["sh", "-ec", f"echo {limit * 95 // 100} >/root/count; mount --bind /root/count {path}"])
    assert_says(host, (rf"the kernel's connection table is nearly full: \d+ of {limit}; .*; enlarge it: sysctl -w .*",))
    host.run(["umount", path])
    wait_until_clean(lab, host)


def test_a_small_connection_table_is_named_and_enlarged_and_a_large_one_stays(lab: Lab, host: Host) -> None:
    path = "/proc/sys/net/netfilter/nf_conntrack_max"
    host.run(["sh", "-ec", f"echo 4096 >/root/most; mount --bind /root/most {path}"])
    assert_says(host, (f"net.netfilter.nf_conntrack_max is 4096, less than 5242880; {RESTORE}",))
    host.run(["aws-ovs", "restore"])
    assert host.run(["cat", path]).stdout == "5242880"
    wait_until_clean(lab, host)
    host.run(["sh", "-ec", f"echo 8000000 >{path}; aws-ovs check; aws-ovs restore"])
    assert host.run(["cat", path]).stdout == "8000000\n"
    host.run(["umount", path])
