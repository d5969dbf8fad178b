"""Random sequences of operations on the VMs of a cloud: what OpenNebula would call, in its order, with its documents.

The documents are made of recorded ones; the cloud remembers what its VMs have and where they run, as oned does.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from lxml import etree

from tests.world.recording import Recording, Step, load

HOSTS = ("h1", "h2", "h3")
VM_IDS = range(1, 13)
_MAX_NICS, _MAX_ALIASES = 4, 2


class Network(NamedTuple):
    """A virtual network, or an address range of one that has a bridge of its own."""

    network_id: int
    bridge: str
    vlan_id: str
    prefix: str
    gateway: str


# The same subnet twice, two VNIs on one bridge, one VNI on two bridges, one without VLAN_ID, one without gateway.
NETWORKS = (
    Network(0, "onebr1", "", "192.168.0", "192.168.0.1"),
    Network(1, "ovsbr0", "100", "192.168.0", "192.168.0.1"),
    Network(2, "ovsbr0", "101", "172.16.0", "172.16.0.1"),
    Network(1, "ovsbr7", "100", "192.168.7", ""),
)
_SHARED_IP = "10.0.0.70"
_PRIVATE_IPS = [f"10.0.0.{number}" for number in range(41, 61)]


@dataclass(frozen=True)
class Lease:
    """A NIC, or an alias when it has a parent.

    Attributes:
        ports: which ten ports of the shared private address it has.
    """

    nic_id: int
    network: int
    ip: str
    private_ip: str = ""
    ports: int | None = None
    filtered: bool = True
    external: bool = False
    parent: int | None = None

    @property
    def mac(self) -> str:
        return f"02:{self.network:02x}:" + ":".join(f"{int(part):02x}" for part in self.ip.split("."))


@dataclass
class Machine:
    """A VM; it is off while it has no host."""

    vm_id: int
    host: str = ""
    leases: list[Lease] = field(default_factory=list)
    next_id: int = 0

    def nics(self) -> list[Lease]:
        return [lease for lease in self.leases if lease.parent is None]


class Operation(NamedTuple):
    """Something that a user of OpenNebula does.

    Attributes:
        steps: the calls.
        machine: the VM as it is when all have succeeded.
        recover: the calls after one that failed.
        failed: the VM as it is then.
        interrupted: the number of the driver call that is interrupted, if one is; and how far it gets.
    """

    name: str
    steps: tuple[Step, ...]
    machine: Machine
    recover: tuple[Step, ...]
    failed: Machine
    interrupted: tuple[int, int] | None = None

    def after_failure(self, index: int) -> tuple[tuple[Step, ...], Machine]:
        """The calls that follow when step number `index` failed, and the VM as it is then."""
        if self.name != "live-migrate":
            return self.recover, self.failed
        # As long as only `pre` has failed nothing has happened; afterwards the VM is where it went, and is put right.
        return ((), self.failed) if index == 0 else (self.recover, self.machine)


class Cloud:
    """All VMs.

    Args:
        conflicts: leases may be given twice, as oned does for address ranges that overlap.
    """

    def __init__(self, conflicts: bool = False) -> None:
        self.machines: dict[int, Machine] = {vm_id: Machine(vm_id) for vm_id in VM_IDS}
        self.conflicts = conflicts

    def operation(self, choice: int) -> Operation | None:
        """The operation that a number stands for, in the present state; None when it cannot be done now."""
        if choice == 0:
            return None
        chance = random.Random(choice)
        machine = copy.deepcopy(self.machines[chance.choice(list(VM_IDS))])
        kinds: list[Callable[[random.Random, Machine], Operation | None]]
        if machine.host:
            kinds = [
                self._live_migrate, self._live_migrate, self._attach_nic, self._attach_nic, self._detach_nic,
                self._attach_alias, self._attach_alias, self._detach_alias, self._power_off, self._terminate,
                self._update, self._update, self._again,
            ]  # fmt: skip
        else:
            kinds = [self._start, self._start, self._start, self._clean_again]
        made = chance.choice(kinds)(chance, machine)
        if made and chance.random() < 0.25:
            calls = sum(step.runs_on is not None for step in made.steps)
            made = made._replace(interrupted=(chance.randrange(calls), chance.randrange(8)))
        return made

    def done(self, machine: Machine) -> None:
        """Remember how an operation has left a VM."""
        self.machines[machine.vm_id] = machine

    def update(self, vm_id: int) -> Step:
        """The call that makes a host of a running VM right, whatever was left undone."""
        machine = self.machines[vm_id]
        return Step("update_sg", machine.host, (f"one-{vm_id}",), document(machine, whole=True))

    def _start(self, chance: random.Random, machine: Machine) -> Operation | None:
        """Deploy a VM, or resume one that was powered off, perhaps on another host."""
        before = copy.deepcopy(machine)
        name = "resume" if machine.leases else "deploy"
        if not machine.leases:
            for _ in range(chance.randint(1, 2)):
                self._lease(chance, machine)
        machine.host = chance.choice(HOSTS)
        vm, host, xml = machine.vm_id, machine.host, document(machine)
        steps = (
            Step("pre", host, (), xml),
            Step("vmm-deploy", None, (f"/var/lib/one//datastores/0/{vm}/deployment.0", host, str(vm), host), None),
            Step("post", host, (f"one-{vm}", host), xml),
        )
        return Operation(name, steps, machine, _off(machine), before)

    def _power_off(self, chance: random.Random, machine: Machine, name: str = "power-off") -> Operation:
        steps, after = _off(machine), copy.deepcopy(machine)
        after.host = ""
        return Operation(name, steps, after, steps, after)

    def _terminate(self, chance: random.Random, machine: Machine) -> Operation:
        made = self._power_off(chance, machine, "terminate")
        gone = Machine(machine.vm_id)
        return made._replace(machine=gone, failed=gone)

    def _live_migrate(self, chance: random.Random, machine: Machine) -> Operation:
        source, vm = machine.host, machine.vm_id
        before = copy.deepcopy(machine)
        machine.host = chance.choice([name for name in HOSTS if name != source])
        xml = document(machine)
        steps = (
            Step("pre", machine.host, (), xml),
            Step("vmm-migrate", None, (f"one-{vm}", machine.host, source, str(vm), source), None),
            Step("clean", source, (source,), xml),
            Step("post", machine.host, (f"one-{vm}", source), xml),
        )
        return Operation("live-migrate", steps, machine, steps[2:], before)

    def _attach_nic(self, chance: random.Random, machine: Machine) -> Operation | None:
        if len(machine.nics()) >= _MAX_NICS:
            return None
        before = copy.deepcopy(machine)
        lease = self._lease(chance, machine)
        before.next_id = machine.next_id
        vm, host, xml = machine.vm_id, machine.host, document(machine, lease.nic_id)
        target = f"one-{vm}-{lease.nic_id}"
        attach = (f"one-{vm}", lease.mac, NETWORKS[lease.network].bridge, "-", "aws_ovs", target, str(vm), host)
        steps = (
            Step("pre", host, (), xml),
            Step("vmm-attach_nic", None, attach, None),
            Step("post", host, (f"one-{vm}", host), xml),
        )
        return Operation("attach NIC", steps, machine, (_unplug(machine, lease),), before)

    def _detach_nic(self, chance: random.Random, machine: Machine) -> Operation | None:
        nics = machine.nics()
        if len(nics) < 2:
            return None
        lease, host = chance.choice(nics), machine.host
        if any(one.parent == lease.nic_id for one in machine.leases):
            return None  # OpenNebula refuses it
        clean = Step("clean", host, (host,), document(machine, lease.nic_id))
        steps = (_unplug(machine, lease), clean)
        machine.leases.remove(lease)
        return Operation("detach NIC", steps, machine, steps, machine)

    def _attach_alias(self, chance: random.Random, machine: Machine) -> Operation | None:
        parent = chance.choice(machine.nics())
        if sum(one.parent == parent.nic_id for one in machine.leases) >= _MAX_ALIASES:
            return None
        before = copy.deepcopy(machine)
        lease = self._lease(chance, machine, parent)
        before.next_id = machine.next_id
        vm, host, xml = machine.vm_id, machine.host, document(machine, lease.nic_id)
        steps = (Step("pre", host, (), xml), Step("post", host, (f"one-{vm}", host), xml))
        return Operation("attach alias", steps, machine, (), before)

    def _detach_alias(self, chance: random.Random, machine: Machine) -> Operation | None:
        aliases = [lease for lease in machine.leases if lease.parent is not None]
        if not aliases:
            return None
        lease, host = chance.choice(aliases), machine.host
        steps = (Step("clean", host, (host,), document(machine, lease.nic_id)),)
        machine.leases.remove(lease)
        return Operation("detach alias", steps, machine, steps, machine)

    def _update(self, chance: random.Random, machine: Machine) -> Operation:
        """A network's filters change, or a security group."""
        at = chance.randrange(len(machine.leases))
        lease = machine.leases[at]
        machine.leases[at] = Lease(**{**lease.__dict__, "filtered": not lease.filtered})
        verb, more = (
            ("update_nic", (str(NETWORKS[lease.network].network_id),)) if chance.random() < 0.7 else ("update_sg", ())
        )
        step = Step(verb, machine.host, (f"one-{machine.vm_id}", *more), document(machine, whole=True))
        return Operation(verb, (step,), machine, (step,), machine)

    def _again(self, chance: random.Random, machine: Machine) -> Operation:
        """What has been done already, once more."""
        host, xml = machine.host, document(machine)
        steps = (Step("pre", host, (), xml), Step("post", host, (f"one-{machine.vm_id}", host), xml))
        return Operation("again", steps, machine, steps, machine)

    def _clean_again(self, chance: random.Random, machine: Machine) -> Operation | None:
        if not machine.leases:
            return None
        host = chance.choice(HOSTS)
        steps = (Step("clean", host, (host,), document(machine)),)
        return Operation("clean again", steps, machine, steps, machine)

    def _lease(self, chance: random.Random, machine: Machine, parent: Lease | None = None) -> Lease:
        """Give a VM a NIC, or an alias."""
        leases = [lease for one in (*self.machines.values(), machine) for lease in one.leases]
        twice = self.conflicts and chance.random() < 0.1
        external = parent is not None and chance.random() < 0.5
        # An address that the guest configures must be free in the parent's network.
        number = parent.network if parent and not external else chance.randrange(len(NETWORKS))
        network = NETWORKS[number]
        used = {lease.ip for lease in (machine.leases if twice else leases) if lease.network == number}
        ip = _free((f"{network.prefix}.{host}" for host in range(20, 120)), used, chance if twice else None)
        private, ports = "", None
        kind = chance.choice(("none", "own", "own", "ports"))
        if kind == "own":
            used = {lease.private_ip for lease in (machine.leases if twice else leases)}
            private = _free(_PRIVATE_IPS, used, chance if twice else None)
        elif kind == "ports":
            taken = {lease.ports for lease in leases}
            ports = next(ten for ten in range(100) if ten not in taken)
            private = _SHARED_IP
        lease = Lease(
            machine.next_id, number, ip, private, ports,
            external=external, parent=parent.nic_id if parent else None,
        )  # fmt: skip
        machine.next_id += 1
        machine.leases.append(lease)
        return lease


def _free(values: Iterable[str], used: set[str], chance: random.Random | None) -> str:
    free = [value for value in values if value not in used]
    return (chance.choice(free[:5]) if chance else free[0]) if free else ""


def _off(machine: Machine) -> tuple[Step, ...]:
    host, vm = machine.host, machine.vm_id
    return (
        Step("vmm-cancel", None, (f"one-{vm}", host, str(vm), host), None),
        Step("clean", host, (host,), document(machine)),
    )


def _unplug(machine: Machine, lease: Lease) -> Step:
    argv = (f"one-{machine.vm_id}", lease.mac, str(machine.vm_id), machine.host)
    return Step("vmm-detach_nic", None, argv, None)


def document(machine: Machine, attaching: int | None = None, whole: bool = False) -> bytes:
    """The document of a VM.

    Args:
        machine: the VM.
        attaching: the NIC_ID of what the action is about.
        whole: in the shape for `update_sg` and `update_nic`.
    """
    root = copy.deepcopy(_root("sg-update" if whole else "deploy"))
    for name, value in (("ID", str(machine.vm_id)), ("DEPLOY_ID", f"one-{machine.vm_id}")):
        known = root.find(name)
        assert known is not None
        known.text = value
    for element in root.iterfind("HISTORY_RECORDS/HISTORY/HOSTNAME"):
        element.text = machine.host
    for lease in machine.leases:
        template = etree.SubElement(root, "TEMPLATE")
        element = etree.SubElement(template, "NIC" if lease.parent is None else "NIC_ALIAS")
        for key, value in _values(machine.vm_id, lease, lease.nic_id == attaching).items():
            etree.SubElement(element, key).text = value
    return etree.tostring(root)


@cache
def _root(operation: str) -> etree._Element:
    """A recorded document without NICs and what belongs to them."""
    recording: Recording = load(operation)
    root = etree.fromstring(recording.steps[-1].xml or b"")
    for kind in ("NIC", "NIC_ALIAS", "CONTEXT"):
        for element in root.findall(f"TEMPLATE/{kind}"):
            parent = element.getparent()
            assert parent is not None
            parent.remove(element)
    return root


def _values(vm_id: int, lease: Lease, attaching: bool) -> dict[str, str]:
    network = NETWORKS[lease.network]
    values = {
        "NIC_ID": str(lease.nic_id), "NETWORK_ID": str(network.network_id), "BRIDGE": network.bridge, "MTU": "1450",
        "VLAN_ID": network.vlan_id, "GATEWAY": network.gateway, "IP": lease.ip, "MAC": lease.mac,
        "TARGET": f"one-{vm_id}-{lease.nic_id}", "AWS_PRIVATE_IP": lease.private_ip, "VN_MAD": "aws_ovs",
        "FILTER_IP_SPOOFING": "" if lease.filtered else "NO", "ATTACH": "YES" if attaching else "",
    }  # fmt: skip
    if lease.ports is not None:
        low = 9001 + 10 * lease.ports
        values |= {"EXTERNAL_PORT_RANGE": f"{low}:{low + 9}", "INTERNAL_PORT_RANGE": f"1-10/{low}"}
    if lease.parent is not None:
        values |= {"PARENT_ID": str(lease.parent), "EXTERNAL": "YES" if lease.external else "NO"}
    return {key: value for key, value in values.items() if value}
