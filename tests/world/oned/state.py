"""What the oned stand-in holds (hosts, clusters, hooks, networks, VMs), and what the methods share."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from .template import Template, element, ids
from .vm import Vm
from .vnet import VirtualNetwork
from .wire import NO_EXISTS, OneError

MONITORED, DISABLED, OFFLINE = 2, 4, 8

_CPU, _MEMORY = 1600, 64000000
_MONITORING = {
    "ARCH": "x86_64",
    "CPUSPEED": "3000",
    "HYPERVISOR": "kvm",
    "MODELNAME": "AMD EPYC",
    "TOTALCPU": str(_CPU),
    "TOTALMEMORY": str(_MEMORY),
    "VERSION": "7.2.0",
}


_OURS = (
    *("AWS_PRIVATE_IP", "AWS_ALLOCATION_ID", "EXTERNAL_IP", "AWS_VPC_ACCESS", "AWS_RAW_ETHERNET"),
    *("FILTER_IP_SPOOFING", "FILTER_MAC_SPOOFING", "GATEWAY", "DNS"),
)
_PLACES = {"VM": ("NIC/", "NIC_ALIAS/", "NIC_DEFAULT/"), "VNET": ("", "AR/")}


@dataclass
class Host:
    """A host; `state` as in one.host.info (0 INIT, 2 MONITORED, 3 ERROR, 4 DISABLED, 8 OFFLINE)."""

    host_id: int
    name: str
    cluster_id: int
    template: Template
    state: int = 0
    is_measured: bool = False

    def set_state(self, state: int) -> None:
        """Change the state as monitoring or one.host.status does, with what goes along."""
        self.state = state
        if state == MONITORED:
            self.is_measured = True
            self.template.merge(Template({**_MONITORING, "HOSTNAME": self.name}.items()))
        elif state == OFFLINE:
            self.is_measured = False
            for name in ("TOTALCPU", "TOTALMEMORY"):
                self.template.take(name)

    def xml(self, cluster: str, vms: list[int]) -> str:
        """Write the document of one.host.info; what VMs take of a host is nobody's need."""
        mads = "".join(element(name, self.template.text(name)) for name in ("IM_MAD", "VM_MAD"))
        disk = "".join(element(name, 0) for name in ("DISK_USAGE", "FREE_DISK", "MAX_DISK", "USED_DISK"))
        memory, cpu = (_MEMORY, _CPU) if self.is_measured else (0, 0)
        return (
            f"<HOST><ID>{self.host_id}</ID><NAME>{self.name}</NAME><STATE>{self.state}</STATE>"
            f"<PREV_STATE>{self.state}</PREV_STATE>{mads}"
            f"<CLUSTER_ID>{self.cluster_id}</CLUSTER_ID><CLUSTER>{cluster}</CLUSTER><HOST_SHARE>"
            "<MEM_USAGE>0</MEM_USAGE><CPU_USAGE>0</CPU_USAGE>"
            f"<TOTAL_MEM>{memory}</TOTAL_MEM><TOTAL_CPU>{cpu}</TOTAL_CPU>"
            f"<MAX_MEM>{memory}</MAX_MEM><MAX_CPU>{cpu}</MAX_CPU>"
            f"<RUNNING_VMS>{len(vms)}</RUNNING_VMS><VMS_THREAD>1</VMS_THREAD><DATASTORES>{disk}</DATASTORES>"
            "<PCI_DEVICES></PCI_DEVICES><NUMA_NODES></NUMA_NODES></HOST_SHARE>"
            f"{ids('VMS', vms)}{self.template.xml()}<MONITORING/></HOST>"
        )


@dataclass
class Cluster:
    """A cluster; which hosts and networks it has is theirs to say."""

    cluster_id: int
    name: str
    datastores: tuple[int, ...] = ()
    template: Template = field(default_factory=lambda: Template([("RESERVED_CPU", ""), ("RESERVED_MEM", "")]))

    def xml(self, hosts: Iterable[int], vnets: Iterable[int]) -> str:
        """Write the document of a cluster in one.clusterpool.info."""
        return (
            f"<CLUSTER><ID>{self.cluster_id}</ID><NAME>{self.name}</NAME>{ids('HOSTS', hosts)}"
            f"{ids('DATASTORES', self.datastores)}{ids('VNETS', vnets)}{self.template.xml()}</CLUSTER>"
        )


@dataclass
class Hook:
    """A registered hook; it is never run."""

    hook_id: int
    name: str
    kind: str
    template: Template

    def xml(self) -> str:
        """Write the document of a hook in one.hookpool.info."""
        return (
            f"<HOOK><ID>{self.hook_id}</ID><NAME>{self.name}</NAME><TYPE>{self.kind}</TYPE>{self.template.xml()}</HOOK>"
        )


@dataclass
class Execution:
    """An execution of a hook, as HookLog::add keeps it; what the hook printed is encoded, as CommandManager does."""

    hook_id: int
    execution_id: int
    time: int
    code: int
    stderr: str

    def xml(self) -> str:
        """Write the document of an execution in one.hooklog.info."""
        stderr = base64.encodebytes(self.stderr.encode()).decode()
        return (
            f"<HOOK_EXECUTION_RECORD><HOOK_ID>{self.hook_id}</HOOK_ID><EXECUTION_ID>{self.execution_id}</EXECUTION_ID>"
            f"<TIMESTAMP>{self.time}</TIMESTAMP><ARGUMENTS>PFZNLz4=\n</ARGUMENTS><EXECUTION_RESULT>"
            f"<COMMAND>/var/lib/one/remotes/hooks/aws_ovs/event</COMMAND><STDOUT></STDOUT><STDERR>{stderr}</STDERR>"
            f"<CODE>{self.code}</CODE></EXECUTION_RESULT></HOOK_EXECUTION_RECORD>"
        )


@dataclass
class Group:
    """A security group: which VMs have its rules is what a test says, by the names of oned's lists."""

    group_id: int
    name: str
    vms: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def xml(self) -> str:
        """Write the document of a group in one.secgrouppool.info, as SecurityGroup::to_xml; all accept everything."""
        lists = "".join(
            ids(f"{name}_VMS", self.vms.get(name, ())) for name in ("UPDATED", "OUTDATED", "UPDATING", "ERROR")
        )
        rules = Template(("RULE", {"PROTOCOL": "ALL", "RULE_TYPE": kind}) for kind in ("OUTBOUND", "INBOUND"))
        return f"<SECURITY_GROUP><ID>{self.group_id}</ID><NAME>{self.name}</NAME>{lists}{rules.xml()}</SECURITY_GROUP>"


T = TypeVar("T")


class State:
    """The pools. Whoever uses it holds the lock of its Oned."""

    def __init__(self) -> None:
        self.clusters: dict[int, Cluster] = {0: Cluster(0, "default", (0, 1, 2))}
        self.hosts: dict[int, Host] = {}
        self.vnets: dict[int, VirtualNetwork] = {}
        self.vms: dict[int, Vm] = {}
        self.hooks: dict[int, Hook] = {}
        self.groups: dict[int, Group] = {0: Group(0, "default")}
        self.executions: list[Execution] = []
        self.next_ids = {"CLUSTER": 100, "HOST": 0, "VNET": 0, "VM": 0, "HOOK": 0}
        self.raft_state, self.server_id = 0, -1
        # What install.sh adds to oned.conf: the kind of object, and the attribute that only administrators may set.
        self.restricted = [
            (kind, f"{place}{name}") for kind, places in _PLACES.items() for place in places for name in _OURS
        ]
        self.restricted += [("VNET", "AWS_EIP_POOL"), ("VNET", "AWS_EIP_RESERVATION")]
        self.inherited = [*_OURS, "MTU"]

    def new_id(self, kind: str) -> int:
        """Give the next ID of "CLUSTER", "HOST", "VNET", "VM" or "HOOK"; that of a deleted object never comes back."""
        number = self.next_ids[kind]
        self.next_ids[kind] += 1
        return number

    def vms_by_host(self) -> dict[int, list[int]]:
        """List the VMs that each host counts; a host without VMs has an empty list."""
        counted: dict[int, list[int]] = defaultdict(list)
        for vm in self.vms.values():
            if vm.takes_capacity:
                counted[vm.host_id].append(vm.vm_id)
        return counted


def known(objects: Mapping[int, T], number: int, kind: str) -> T:
    """Give the object of that ID. Raises OneError when there is none; `kind` is oned's word for it."""
    try:
        return objects[number]
    except KeyError:
        raise OneError(NO_EXISTS, f"Error getting {kind} [{number}].", number) from None


def pool(name: str, documents: Iterable[str]) -> str:
    """Write the document of a pool."""
    return f"<{name}>" + "".join(documents) + f"</{name}>"


def descending(objects: Mapping[int, T], first: int = -1, last: int = -1) -> list[T]:
    """List the objects of a pool with IDs from `first` to `last` (-1: all to the end), the newest first, as oned."""
    numbers = sorted(objects, reverse=True)
    return [objects[number] for number in numbers if number >= first and (last == -1 or number <= last)]
