"""Hosts, clusters and hooks of the oned stand-in, and their documents as oned prints them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lxml import etree

from .template import Template, element, from_element

MONITORED, HOST_DISABLED, HOST_OFFLINE = 2, 4, 8

_MONITORING = {
    "ARCH": "x86_64",
    "CPUSPEED": "3000",
    "HYPERVISOR": "kvm",
    "MODELNAME": "AMD EPYC",
    "TOTALCPU": "1600",
    "TOTALMEMORY": "64000000",
    "VERSION": "7.2.0",
}
_CAPACITY = ("TOTAL_MEM", "TOTAL_CPU", "MAX_MEM", "MAX_CPU")


def text_of(node: etree._Element, path: str) -> str:
    """The text of a child, "" when it has none or is missing."""
    return node.findtext(path) or ""


def number_of(node: etree._Element, path: str, default: int = 0) -> int:
    """The number in a child."""
    return int(text_of(node, path) or default)


def template_of(node: etree._Element, name: str = "TEMPLATE") -> Template:
    """The template in a child, empty when it is missing."""
    child = node.find(name)
    return Template() if child is None else from_element(child)


def ids(name: str, numbers: Iterable[int]) -> str:
    """A collection of IDs."""
    return f"<{name}>" + "".join(f"<ID>{number}</ID>" for number in sorted(numbers)) + f"</{name}>"


@dataclass
class Usage:
    """What VMs take of a host.

    Args:
        vms: their IDs.
        cpu: in percent of a core.
        memory: in KiB.
    """

    vms: list[int] = field(default_factory=list)
    cpu: int = 0
    memory: int = 0


@dataclass
class Host:
    """A host; `state` as in one.host.info (0 INIT, 2 MONITORED, 3 ERROR, 4 DISABLED, 8 OFFLINE)."""

    host_id: int
    name: str
    im_mad: str
    vm_mad: str
    cluster_id: int
    state: int = 0
    previous: int = 0
    capacity: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_CAPACITY, 0))
    template: Template = field(default_factory=Template)

    @classmethod
    def allocated(cls, host_id: int, name: str, im_mad: str, vm_mad: str, cluster_id: int) -> Host:
        """A host as one.host.allocate makes it."""
        texts = {"IM_MAD": im_mad, "RESERVED_CPU": "", "RESERVED_MEM": "", "VM_MAD": vm_mad}
        return cls(host_id, name, im_mad, vm_mad, cluster_id, template=Template(texts.items()))

    @classmethod
    def read(cls, node: etree._Element) -> Host:
        """The host of a document."""
        host = cls(
            number_of(node, "ID"),
            text_of(node, "NAME"),
            text_of(node, "IM_MAD"),
            text_of(node, "VM_MAD"),
            number_of(node, "CLUSTER_ID"),
            number_of(node, "STATE"),
            number_of(node, "PREV_STATE"),
            template=template_of(node),
        )
        host.capacity = {name: number_of(node, f"HOST_SHARE/{name}") for name in _CAPACITY}
        return host

    def set_state(self, state: int) -> None:
        """Change the state as monitoring or one.host.status does, with what goes along."""
        self.state = self.previous = state
        if state == MONITORED:
            self.template.merge(Template({**_MONITORING, "HOSTNAME": self.name}.items()))
            cpu, memory = int(_MONITORING["TOTALCPU"]), int(_MONITORING["TOTALMEMORY"])
            self.capacity = {"TOTAL_MEM": memory, "TOTAL_CPU": cpu, "MAX_MEM": memory, "MAX_CPU": cpu}
        elif state == HOST_OFFLINE:
            self.capacity = dict.fromkeys(_CAPACITY, 0)
            for name in ("TOTALCPU", "TOTALMEMORY", "FREECPU", "FREEMEMORY", "USEDCPU", "USEDMEMORY"):
                self.template.remove(name)

    def updated(self) -> None:
        """Take over what one.host.update may change besides the template, and put it back where it is missing."""
        self.im_mad = self.template.text("IM_MAD") or self.im_mad
        self.vm_mad = self.template.text("VM_MAD") or self.vm_mad
        self.template.replace("IM_MAD", self.im_mad)
        self.template.replace("VM_MAD", self.vm_mad)

    def xml(self, cluster: str, usage: Usage) -> str:
        """The document of one.host.info."""
        disk = "".join(element(name, 0) for name in ("DISK_USAGE", "FREE_DISK", "MAX_DISK", "USED_DISK"))
        capacity = "".join(f"<{name}>{self.capacity[name]}</{name}>" for name in _CAPACITY)
        return (
            f"<HOST><ID>{self.host_id}</ID><NAME>{self.name}</NAME><STATE>{self.state}</STATE>"
            f"<PREV_STATE>{self.previous}</PREV_STATE>{element('IM_MAD', self.im_mad)}{element('VM_MAD', self.vm_mad)}"
            f"<CLUSTER_ID>{self.cluster_id}</CLUSTER_ID><CLUSTER>{cluster}</CLUSTER><HOST_SHARE>"
            f"<MEM_USAGE>{usage.memory}</MEM_USAGE><CPU_USAGE>{usage.cpu}</CPU_USAGE>{capacity}"
            f"<RUNNING_VMS>{len(usage.vms)}</RUNNING_VMS><VMS_THREAD>1</VMS_THREAD><DATASTORES>{disk}</DATASTORES>"
            "<PCI_DEVICES></PCI_DEVICES><NUMA_NODES></NUMA_NODES></HOST_SHARE>"
            f"{ids('VMS', usage.vms)}{self.template.xml()}<MONITORING/></HOST>"
        )


@dataclass
class Cluster:
    """A cluster; which hosts and networks it has is theirs to say."""

    cluster_id: int
    name: str
    datastores: list[int] = field(default_factory=list)
    template: Template = field(default_factory=lambda: Template([("RESERVED_CPU", ""), ("RESERVED_MEM", "")]))

    @classmethod
    def read(cls, node: etree._Element) -> Cluster:
        """The cluster of a document."""
        datastores = [int(item.text or 0) for item in node.findall("DATASTORES/ID")]
        return cls(number_of(node, "ID"), text_of(node, "NAME"), datastores, template_of(node))

    def xml(self, hosts: Iterable[int], vnets: Iterable[int]) -> str:
        """The document of one.cluster.info."""
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

    @classmethod
    def read(cls, node: etree._Element) -> Hook:
        """The hook of a document."""
        return cls(number_of(node, "ID"), text_of(node, "NAME"), text_of(node, "TYPE"), template_of(node))

    def xml(self, log: bool = False) -> str:
        """The document of one.hook.info (with the log of its runs) or of a hook in one.hookpool.info."""
        runs = "<HOOKLOG></HOOKLOG>" if log else ""
        return (
            f"<HOOK><ID>{self.hook_id}</ID><NAME>{self.name}</NAME><TYPE>{self.kind}</TYPE>"
            f"{self.template.xml()}{runs}</HOOK>"
        )
