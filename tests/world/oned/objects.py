"""Hosts, clusters and hooks of the oned stand-in, and their documents as oned prints them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .template import Template, element

MONITORED, HOST_DISABLED, HOST_OFFLINE = 2, 4, 8

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


def ids(name: str, numbers: Iterable[int]) -> str:
    """Write a collection of IDs."""
    return f"<{name}>" + "".join(f"<ID>{number}</ID>" for number in sorted(numbers)) + f"</{name}>"


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
        elif state == HOST_OFFLINE:
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
