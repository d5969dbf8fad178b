"""What a test plays with the oned stand-in: all that happens in an OpenNebula besides the calls of the client under test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from lxml import etree

from . import vm as oned_vm
from .control import Control
from .objects import Cluster, Hook, Host
from .state import METHODS, State
from .template import parse
from .vm import ACTIVE, RUNNING, Vm
from .vnet import ERROR, HELD, LOCK_CREATE, READY, RangeError, VirtualNetwork
from .wire import Parameters

_INFO = {
    "CLUSTER": "one.cluster.info",
    "HOST": "one.host.info",
    "VNET": "one.vn.info",
    "VM": "one.vm.info",
    "HOOK": "one.hook.info",
}


class Play:
    """The state of an oned and the ways to change it from outside; every method takes the lock itself."""

    def __init__(self) -> None:
        # Re-entrant, for what a test does within a callback may do more of it.
        self._lock = threading.RLock()
        self._state = State()
        self._control = Control()

    # What monitoring and drivers do.

    def set_host_state(self, host_id: int, state: int) -> None:
        """Change a host's state: 0 INIT, 2 MONITORED (with what monitoring finds), 3 ERROR, 4 DISABLED, 8 OFFLINE."""
        with self._lock:
            self._state.hosts[host_id].set_state(state)

    def monitored(self, host_id: int, printed: str) -> None:
        """Put what a host's probes printed, a template, into that of the host, which is then MONITORED."""
        with self._lock:
            self._state.hosts[host_id].set_state(2)
            self._state.hosts[host_id].template.merge(parse(printed))

    def set_raft_state(self, state: int, server_id: int = 0) -> None:
        """What one.zone.raftstatus says: 0 alone, 1 candidate, 2 follower, 3 leader."""
        with self._lock:
            self._state.raft_state, self._state.server_id = state, -1 if state == 0 else server_id

    def finish_vnet_create(self, vnet_id: int, printed: str = "") -> None:
        """Let the driver's vnet_create end well.

        Args:
            printed: its stdout, a template: attributes, and `AR = [ ... ]` for each address range. The network goes
                to ERROR when it is none.
        """
        with self._lock:
            vnet = self._state.vnets[vnet_id]
            if vnet.state != LOCK_CREATE:
                raise ValueError(f"virtual network {vnet_id} is in state {vnet.state}: nothing creates it")
            try:
                if printed.strip():
                    vnet.template.merge(parse(printed))
                vnet.updated()
                wanted = vnet.template.vectors("AR")
                vnet.template.remove("AR")
                for item in wanted:
                    vnet.add_range(item)
            except (RangeError, ValueError) as error:
                self._failed(vnet, str(error))
                return
            vnet.template.remove("ERROR")
            vnet.set_state(READY)

    def fail_vnet_create(self, vnet_id: int, message: str) -> None:
        """Let the driver's vnet_create fail; `message` is what it printed."""
        with self._lock:
            self._failed(self._state.vnets[vnet_id], message)

    def _failed(self, vnet: VirtualNetwork, message: str) -> None:
        vnet.template.replace("ERROR", f"{time.ctime()} : {message}")
        vnet.set_state(ERROR)

    def finish_vnet_delete(self, vnet_id: int) -> None:
        """Let the driver's vnet_delete end well: the network is gone."""
        with self._lock:
            del self._state.vnets[vnet_id]

    # What users do with VMs.

    def add_vm(
        self,
        document: bytes,
        vm_id: int | None = None,
        host_id: int | None = None,
        state: int = ACTIVE,
        lcm_state: int = RUNNING,
    ) -> int:
        """Add a VM.

        Args:
            document: as one.vm.info prints one.
            vm_id: None for the next one; an ID that is there is replaced.
            host_id: where it is, a host that oned has; None for where the document says.

        Returns:
            Its ID.
        """
        with self._lock:
            number = self._state.next_ids["VM"] if vm_id is None else vm_id
            self._state.next_ids["VM"] = max(self._state.next_ids["VM"], number + 1)
            root = oned_vm.read(document)
            oned_vm.renumber(root, number)
            oned_vm.set_state(root, state, lcm_state)
            if host_id is not None:
                host = self._state.hosts[host_id]
                oned_vm.place(root, host_id, host.name, host.cluster_id)
            self._state.vms[number] = Vm.of(root)
            return number

    def move_vm(self, vm_id: int, host_id: int) -> None:
        """Migrate a VM: another record in its history."""
        with self._lock:
            host = self._state.hosts[host_id]
            self._state.edit_vm(vm_id, lambda root: oned_vm.move(root, host_id, host.name, host.cluster_id))

    def set_vm_state(self, vm_id: int, state: int, lcm_state: int = 0) -> None:
        """Change a VM's states, numbers as in one.vm.info: 3, 3 is RUNNING, 6 DONE, 8 POWEROFF, 9 UNDEPLOYED."""
        with self._lock:
            self._state.edit_vm(vm_id, lambda root: oned_vm.set_state(root, state, lcm_state))

    def edit_vm(self, vm_id: int, edit: Callable[[etree._Element], None]) -> None:
        """Let a function change a VM's document: attach a NIC, say."""
        with self._lock:
            self._state.edit_vm(vm_id, edit)

    def remove_vm(self, vm_id: int) -> None:
        """Forget a VM, as oned does only when its database is purged."""
        with self._lock:
            del self._state.vms[vm_id]

    def lease(self, vnet_id: int, range_id: int, vm_id: int) -> str:
        """Give a VM (-1: nobody, it is only held) the first free address of a range; the address.

        Raises RuntimeError when all are taken.
        """
        with self._lock:
            found = self._state.vnets[vnet_id].range(range_id)
            if found is None:
                raise KeyError(f"virtual network {vnet_id} has no address range {range_id}")
            index = found.free_index()
            if index is None:
                raise RuntimeError(f"address range {range_id} of virtual network {vnet_id} has no free address")
            found.take(index, vm_id)
            if vm_id != HELD:
                self._state.vnets[vnet_id].members["UPDATED_VMS"].add(vm_id)
            return found.address(index)

    def unlease(self, vnet_id: int, range_id: int, vm_id: int) -> None:
        """Take back all addresses of a range that a VM has."""
        with self._lock:
            vnet = self._state.vnets[vnet_id]
            found = vnet.range(range_id)
            if found is None:
                raise KeyError(f"virtual network {vnet_id} has no address range {range_id}")
            for index, owners in list(found.leases.items()):
                for _ in range(owners.count(vm_id)):
                    found.give_back(index, vm_id)
            if not any(vm_id in owners for item in vnet.ranges for owners in item.leases.values()):
                vnet.members["UPDATED_VMS"].discard(vm_id)

    # What was there before the test.

    def add_host(self, name: str, state: int = 2, cluster_id: int = 0, template: str = "") -> int:
        """Add a host without a call; its ID. `template` is appended to what monitoring finds."""
        with self._lock:
            number = self._state.new_id("HOST")
            host = Host.allocated(number, name, "kvm", "kvm", cluster_id)
            host.set_state(state)
            if template:
                host.template.merge(parse(template))
            self._state.hosts[number] = host
            return number

    def add_cluster(self, name: str) -> int:
        """Add a cluster without a call; its ID."""
        with self._lock:
            number = self._state.new_id("CLUSTER")
            self._state.clusters[number] = Cluster(number, name)
            return number

    def add_vnet(self, template: str, clusters: Sequence[int] = (0,), ready: bool = True) -> int:
        """Add a virtual network without a call, as one.vn.allocate does; its ID.

        Args:
            template: what a user gives: NAME, VN_MAD, and `AR = [ ... ]` for each address range.
            clusters: that it is in.
            ready: False leaves it to the driver's vnet_create. See finish_vnet_create.
        """
        with self._lock:
            allocate, _ = METHODS["one.vn.allocate"]
            number = int(allocate(self._state, Parameters(("", template, clusters[0]))))
            self._state.vnets[number].clusters = list(clusters)
            if ready:
                self.finish_vnet_create(number)
            return number

    def document(self, kind: str, number: int) -> bytes:
        """What one.cluster.info, one.host.info, one.vn.info, one.vm.info or one.hook.info prints, without a call.

        Raises OneError when there is no such object; kinds are those of set_next_id.
        """
        with self._lock:
            info, _ = METHODS[_INFO[kind]]
            return str(info(self._state, Parameters(("", number)))).encode()

    def load(self, document: bytes) -> None:
        """Take over the objects of a recorded HOST_POOL, CLUSTER_POOL, VNET_POOL or HOOK_POOL."""
        with self._lock:
            for node in oned_vm.read(document):
                if node.tag == "HOST":
                    host = Host.read(node)
                    self._state.hosts[host.host_id] = host
                    number = host.host_id
                elif node.tag == "CLUSTER":
                    cluster = Cluster.read(node)
                    self._state.clusters[cluster.cluster_id] = cluster
                    number = cluster.cluster_id
                elif node.tag == "VNET":
                    vnet = VirtualNetwork.read(node)
                    self._state.vnets[vnet.vnet_id] = vnet
                    number = vnet.vnet_id
                elif node.tag == "HOOK":
                    hook = Hook.read(node)
                    self._state.hooks[hook.hook_id] = hook
                    number = hook.hook_id
                else:
                    raise ValueError(f"there is no pool of {node.tag}")
                self._state.next_ids[node.tag] = max(self._state.next_ids[node.tag], number + 1)

    def set_next_id(self, kind: str, number: int) -> None:
        """The ID that the next "CLUSTER", "HOST", "VNET", "VM" or "HOOK" gets."""
        with self._lock:
            self._state.next_ids[kind] = number

    def forget(self, kind: str, number: int) -> None:
        """Drop an object without a call and without any check."""
        with self._lock:
            state = self._state
            pools: dict[str, dict[int, Cluster] | dict[int, Host] | dict[int, VirtualNetwork] | dict[int, Vm]]
            pools = {"CLUSTER": state.clusters, "HOST": state.hosts, "VNET": state.vnets, "VM": state.vms}
            (state.hooks if kind == "HOOK" else pools[kind]).pop(number)

    def populate(
        self,
        document: bytes,
        hosts: int = 500,
        vms: int = 8000,
        vary: Callable[[int, str], str] | None = None,
    ) -> None:
        """Add many hosts and VMs, the VMs spread over all hosts that are there then.

        Args:
            document: of the VM that all are like, but for ID and host.
            vary: changes the full document further: of VM ID and text, the new text.
        """
        with self._lock:
            for _ in range(hosts):
                self.add_host(f"host{self._state.next_ids['HOST']}")
            there = sorted(self._state.hosts)
            copy = oned_vm.copies(document)
            for index in range(vms):
                host = self._state.hosts[there[index % len(there)]]
                vm = copy(self._state.new_id("VM"), host.host_id, host.name, host.cluster_id)
                if vary is not None:
                    vm.document, vm.short = vary(vm.vm_id, vm.document), None
                self._state.vms[vm.vm_id] = vm
