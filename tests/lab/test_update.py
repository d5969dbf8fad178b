"""Another version of the driver comes to a node on which VMs run, and goes again: nobody is disturbed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.support import checks, promise
from tests.lab.support.alive import Neighbours
from tests.lab.support.checks import Check, Report
from tests.lab.support.pings import Ping, pinging, recovered
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load, substitute

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
ATTACH = substitute(load("attach-nic"), hosts={"h2": "h1"})
RESTORES = 4
BUSY = 5
"""Pings that a restore may cost on a busy machine, for it forgets where MACs were learned to be. A VM that is cut off
loses 50 a second until it is sent again."""
KEPT = "/run/aws_ovs/vms/1.json"
FLOWS = ("ovs-ofctl", "--no-stats", "dump-flows")

# As install.sh does it: an environment beside the other, and a link that is replaced in one step.
_INSTALL = r"""
cd /usr/lib/aws_ovs
cp -a "$(readlink venv)" venv-another
package=$(echo venv-another/lib/python*/site-packages/vnm_aws)
find "$package" -name __pycache__ -prune -exec rm -r {} +
sed -i 's/^__version__ = .*/__version__ = "0.2.0+another"/' "$package/__init__.py"
"""
_NEW_FIELD = (
    r"sed -i 's/^    shared: tuple\[SharedAddress, ...\]$/&\n    speed: int = 1000/' $package/overlay/guest_port.py"
)
_NEW_SCHEMA = "sed -i 's/^SCHEMA = 1$/SCHEMA = 2/' $package/driver/state.py"
_USE = 'cd /usr/lib/aws_ovs; ln -sfnT "$0" venv.new; mv -fT venv.new venv'


class Versions:
    """Two versions on a host: the one that is there, and another."""

    def __init__(self, host: Host, change: str) -> None:
        self._host = host
        self._present = host.run(["readlink", "/usr/lib/aws_ovs/venv"]).stdout.strip()
        before = self.says()
        host.run(["sh", "-ec", f"{_INSTALL}{change}"])
        self.update()
        assert self.says() == "aws_ovs 0.2.0+another" != before
        self.downgrade()

    def says(self) -> str:
        return self._host.run(["aws-ovs", "--version"]).stdout.strip()

    def update(self) -> None:
        self._host.run(["sh", "-ec", _USE, "venv-another"])

    def downgrade(self) -> None:
        self._host.run(["sh", "-ec", _USE, self._present])


@contextmanager
def versions(host: Host, change: str) -> Iterator[Versions]:
    try:
        yield Versions(host, change)
    finally:
        home = host.run(["sh", "-ec", "cd /usr/lib/aws_ovs; ls -d venv-* | grep -vx venv-another"]).stdout.strip()
        host.run(["sh", "-ec", _USE, home])
        host.run(["rm", "-rf", "/usr/lib/aws_ovs/venv-another"])


def first_action(lab: Lab) -> None:
    """The first action of a version restores the node: here the one that starts VM 4."""
    built = lab.hosts["h1"].run(["stat", "-c", "%i", "/run/aws_ovs/node.json"]).stdout
    other = promise.other_vm(DOCUMENT, 0, 4, "192.168.0.64")
    lab.play(promise.deploy(other, "h1"))
    assert lab.hosts["h1"].run(["stat", "-c", "%i", "/run/aws_ovs/node.json"]).stdout != built, "it has not restored"
    lab.play(promise.terminate(other, "h1"))


def lost(pings: dict[str, Ping]) -> dict[str, int]:
    """End pings and count what was lost."""
    recovered(pings)
    return {name: ping.end().lost for name, ping in pings.items()}


def flows(host: Host, vm_id: int = 1) -> list[str]:
    """All flows of a VM."""
    cookie = f"cookie={0xA5 << 56 | vm_id << 16:#x}/0xffffffffffff0000"
    found = [host.run([*FLOWS, bridge, cookie]).stdout.splitlines() for bridge in ("aws_ovs", "onebr1", "ovsbr0")]
    return sorted(line for lines in found for line in lines if "cookie=" in line)


def problems(host: Host) -> str:
    done = host.run(["aws-ovs", "check"], check=False)
    return done.stdout + done.stderr


def test_an_update_and_a_downgrade_disturb_nobody(fresh_lab: Lab, report: Report) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    neighbours = Neighbours(lab)
    lab.play(DEPLOY)
    pings = pinging(lab)
    for _ in range(RESTORES):
        host.run(["aws-ovs", "restore"])
    plain = lost(pings)
    before = flows(host)
    with versions(host, _NEW_FIELD) as version:
        pings = pinging(lab)
        for switch in (version.update, version.downgrade) * (RESTORES // 2):
            switch()
            first_action(lab)
            assert flows(host) == before
            # The version writes the file, as it knows its fields.
            assert lab.driver("h1", "update_sg", ("one-1",), DOCUMENT).returncode == 0
            assert ("speed" in host.run(["cat", KEPT]).stdout) == (version.says() == "aws_ovs 0.2.0+another")
            assert flows(host) == before
        there = lost(pings)
    report([Check(name, True, f"{there[name]} lost, {plain[name]} in as many plain restores") for name in there])
    assert all(there[name] <= max(plain[name], RESTORES * BUSY) for name in there), (there, plain)
    assert neighbours.alive(DOCUMENT) == []


def test_a_downgrade_below_the_schema_of_a_file_leaves_the_vm_alone(fresh_lab: Lab) -> None:
    lab, host = fresh_lab, fresh_lab.hosts["h1"]
    neighbours = Neighbours(lab)
    lab.play(DEPLOY)
    with versions(host, _NEW_SCHEMA) as version:
        version.update()
        first_action(lab)
        assert lab.driver("h1", "update_sg", ("one-1",), DOCUMENT).returncode == 0
        text, before = host.run(["cat", KEPT]).stdout, flows(host)
        pings = pinging(lab)
        version.downgrade()
        first_action(lab)
        host.run(["aws-ovs", "restore"])
        assert max(lost(pings).values()) <= 2 * BUSY
        assert flows(host) == before
        assert host.run(["cat", KEPT]).stdout == text
        (line,) = problems(host).splitlines()
        assert re.fullmatch("the file of VM 1 in .* has schema 2, .*; install that version again, or let Open.*", line)
        version.update()
        first_action(lab)
        assert problems(host).startswith("ok: ")
    assert neighbours.alive(DOCUMENT) != [], "the file is of a version that is not there any more"
    assert lab.driver("h1", "update_sg", ("one-1",), DOCUMENT).returncode == 0
    assert neighbours.alive(DOCUMENT) == []


@pytest.fixture
def damaged(fresh_lab: Lab) -> Lab:
    """VM 1 runs on h1, and its file is damaged."""
    fresh_lab.play(DEPLOY)
    fresh_lab.hosts["h1"].run(["sh", "-ec", 'echo "{" >"$0"', KEPT])
    return fresh_lab


def test_restore_keeps_what_it_cannot_read(damaged: Lab) -> None:
    lab, host = damaged, damaged.hosts["h1"]
    before, marks = flows(host), host.run(["ovs-vsctl", "get", "Interface", "one-1-0", "external_ids"]).stdout
    assert before
    # Flows of nobody go as ever, and so do those of a VM without a file.
    for vm_id in (0, 9):
        cookie = f"cookie={(0xA5 << 56 | vm_id << 16) if vm_id else 7:#x}"
        host.run(["ovs-ofctl", "add-flow", "ovsbr0", f"{cookie},priority=7,in_port=77,actions=drop"])
    host.run(["aws-ovs", "restore"])
    assert flows(host) == before
    assert host.run(["ovs-vsctl", "get", "Interface", "one-1-0", "external_ids"]).stdout == marks
    assert host.run(["ovs-ofctl", "dump-flows", "ovsbr0"]).stdout.count("priority=7,") == 0
    assert re.fullmatch(r"the file of VM 1 in /run/aws_ovs/vms is damaged; let OpenNebula send.*\n", problems(host))
    assert checks.reaches(checks.ping(lab.guest(1), "192.168.0.10", "192.168.0.1"))


def test_an_action_on_a_vm_whose_file_is_damaged_writes_all_of_it_anew(damaged: Lab) -> None:
    lab, host = damaged, damaged.hosts["h1"]
    neighbours = Neighbours(lab)
    lab.play(ATTACH)
    attached = [step.xml for step in ATTACH.steps if step.xml][-1]
    assert neighbours.alive(promise.settled(attached)) == []
    host.run(["sh", "-ec", 'echo "{" >"$0"', KEPT])
    lab.play(load("detach-nic"))
    assert neighbours.alive(DOCUMENT) == []
    host.run(["sh", "-ec", 'echo "{" >"$0"', KEPT])
    lab.play(promise.terminate(DOCUMENT, "h1"))
    assert flows(host) == []
    assert host.run(["ls", "/run/aws_ovs/vms"]).stdout.split() == ["2.json"]
    assert problems(host).startswith("ok: ")
