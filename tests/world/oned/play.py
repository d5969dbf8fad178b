"""What a test plays with the oned stand-in: all that happens in an OpenNebula besides the calls of the client under test."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from . import methods
from . import vm as oned_vm
from .control import Control
from .state import Execution, Group, Hook, State
from .template import Template, from_element, parse
from .vm import ACTIVE, RUNNING, Vm
from .vnet import ERROR, LOCK_CREATE, READY, UPDATE_FAILURE, AddressRange
from .wire import OneError


class Play(Control):
    """The state of an oned and the ways to change it from outside; every method takes the lock itself."""

    def __init__(self) -> None:
        super().__init__()
        self._forget_objects()

    def _forget_objects(self) -> None:
        self._state = State()

    # What monitoring and drivers do.

    def set_host_state(self, host_id: int, state: int) -> None:
        """Change a host's state: 0 INIT, 2 MONITORED (with what monitoring finds), 3 ERROR, 4 DISABLED, 8 OFFLINE."""
        with self._lock:
            self._state.hosts[host_id].set_state(state)

    def allow(self, kind: str, name: str) -> None:
        """Let every user set an attribute of a kind of objects, VM or VNET: its line is not in oned.conf."""
        with self._lock:
            self._state.restricted.remove((kind, name))

    def inherit_no_more(self, name: str) -> None:
        """Let NICs not get an attribute of their networks: its line is not in oned.conf."""
        with self._lock:
            self._state.inherited.remove(name)

    def ran_hook(self, hook_id: int, stderr: str = "", at: int = 0) -> int:
        """Let a hook have run, at a time (0: now); it failed if it printed something on stderr. The execution's ID."""
        with self._lock:
            number = sum(one.hook_id == hook_id for one in self._state.executions)
            self._state.executions.append(
                Execution(hook_id, number, at or int(time.time()), 1 if stderr else 0, stderr)
            )
            return number

    def monitored(self, host_id: int, printed: str) -> None:
        """Put what a host's probes printed, a template, into that of the host, which is then MONITORED."""
        with self._lock:
            self._state.hosts[host_id].set_state(2)
            self._state.hosts[host_id].template.merge(parse(printed))

    def set_raft_state(self, state: int) -> None:
        """Set what one.zone.raftstatus says: 0 alone, 1 candidate, 2 follower, 3 leader."""
        with self._lock:
            self._state.raft_state, self._state.server_id = state, -1 if state == 0 else 0

    def finish_vnet_create(self, vnet_id: int, printed: str = "") -> None:
        """Let the driver's vnet_create end well. The network goes to ERROR when it printed a range that cannot be, and
        stays in LOCK_CREATE when it printed no template: oned does not write that error down."""
        with self._lock:
            vnet = self._state.vnets[vnet_id]
            if vnet.state != LOCK_CREATE:
                raise ValueError(f"virtual network {vnet_id} is in state {vnet.state}: nothing creates it")
            try:
                new = parse(printed)
            except OneError:
                return
            try:
                merged = Template(vnet.template)
                merged.merge(new)
                ranges = merged.vectors("AR")
                merged.take("AR")
                vnet.update(merged)
                for item in ranges:
                    vnet.add_range(item)
                vnet.set_state(READY)
            except OneError as error:
                self.fail_vnet_create(vnet_id, str(error))

    def fail_vnet_update(self, vnet_id: int) -> None:
        """Let update_nic of a VM have failed after an update of a network."""
        with self._lock:
            self._state.vnets[vnet_id].set_state(UPDATE_FAILURE)

    def fail_vnet_create(self, vnet_id: int, message: str) -> None:
        """Let the driver's vnet_create fail; `message` is what it printed."""
        with self._lock:
            vnet = self._state.vnets[vnet_id]
            vnet.template.put("ERROR", f"{time.ctime()} : {message}")
            vnet.set_state(ERROR)

    # What users do with VMs.

    def add_vm(
        self,
        document: bytes,
        vm_id: int | None = None,
        host_id: int | None = None,
        state: int = ACTIVE,
        lcm_state: int = RUNNING,
    ) -> int:
        """Add the VM of a document, in place of one with that ID (None: the next), on a host of oned; its ID."""
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
            self.edit_vm(vm_id, lambda root: oned_vm.move(root, host_id, host.name, host.cluster_id))

    def set_vm_state(self, vm_id: int, state: int, lcm_state: int = 0) -> None:
        """Change a VM's states, numbers as in one.vm.info: 3, 3 is RUNNING, 6 DONE, 8 POWEROFF, 9 UNDEPLOYED."""
        self.edit_vm(vm_id, lambda root: oned_vm.set_state(root, state, lcm_state))

    def edit_vm(self, vm_id: int, edit: Callable[[oned_vm.Element], None]) -> None:
        """Let a function change a VM's document: attach a NIC, say."""
        with self._lock:
            self._state.vms[vm_id].change(edit)

    def spoil_vm(self, vm_id: int) -> None:
        """Let a VM's document have a character that XML does not know, as it was seen of oned with what users write."""
        with self._lock:
            vm = self._state.vms[vm_id]
            vm.document = vm.document.replace("</NAME>", "\x0b</NAME>", 1)

    def remove_vm(self, vm_id: int) -> None:
        """Forget a VM, as oned does only when its database is purged."""
        self.forget("VM", vm_id)

    def set_group(self, group_id: int, name: str, **vms: Sequence[int]) -> None:
        """Let a security group have the VMs of these lists: UPDATED, OUTDATED, UPDATING and ERROR."""
        with self._lock:
            self._state.groups[group_id] = Group(group_id, name, {key: tuple(ids) for key, ids in vms.items()})

    def lease(self, vnet_id: int, range_id: int, vm_id: int) -> str:
        """Give a VM (-1: nobody, it is only held) the first free address of a range; the address.

        Raises RuntimeError when all are taken.
        """
        with self._lock:
            item = self._range(vnet_id, range_id)
            index = next((index for index in range(item.size) if item.is_shared or index not in item.leases), None)
            if index is None:
                raise RuntimeError(f"address range {range_id} of virtual network {vnet_id} has no free address")
            item.take(index, vm_id)
            return item.address(index)

    def unlease(self, vnet_id: int, range_id: int, vm_id: int) -> None:
        """Take back all addresses of a range that a VM has."""
        with self._lock:
            item = self._range(vnet_id, range_id)
            item.sharers = [owner for owner in item.sharers if owner[1] != vm_id]
            for index in [index for index, owner in item.leases.items() if owner == vm_id]:
                item.give_back(index)

    def _range(self, vnet_id: int, range_id: int) -> AddressRange:
        item = self._state.vnets[vnet_id].range(range_id)
        if item is None:
            raise KeyError(f"virtual network {vnet_id} has no address range {range_id}")
        return item

    # What was there before the test.

    def add_host(self, name: str, state: int = 2, cluster_id: int = 0, template: str = "") -> int:
        """Add a host without a call; its ID. `template` is appended to what monitoring finds."""
        with self._lock:
            number = methods.host_allocate(self._state, name, "kvm", "kvm", cluster_id)
            self._state.hosts[number].set_state(state)
            self._state.hosts[number].template.merge(parse(template))
            return number

    def add_cluster(self, name: str) -> int:
        """Add a cluster without a call; its ID."""
        with self._lock:
            return methods.cluster_allocate(self._state, name)

    def add_vnet(self, template: str, clusters: Sequence[int] = (0,), ready: bool = True) -> int:
        """Add a virtual network without a call, as one.vn.allocate does; its ID.

        Unless it is `ready`, the driver is to create it: see finish_vnet_create.
        """
        with self._lock:
            number = methods.vn_allocate(self._state, template, clusters[0])
            self._state.vnets[number].clusters = list(clusters)
            if ready:
                self.finish_vnet_create(number)
            return number

    def document(self, kind: str, number: int) -> bytes:
        """Give what one.host.info, one.vn.info or one.vm.info prints of a "HOST", "VNET" or "VM", without a call.

        Raises OneError when there is no such object.
        """
        with self._lock:
            if kind == "HOST":
                return methods.host_info(self._state, number).encode()
            return (methods.vm_info if kind == "VM" else methods.vn_info)(self._state, number).encode()

    def load(self, document: bytes) -> None:
        """Take over the hooks of a recorded HOOK_POOL."""
        with self._lock:
            for node in oned_vm.read(document):
                number = int(node.findtext("ID", ""))
                values = (node.findtext("NAME", ""), node.findtext("TYPE", ""), from_element(node.find("TEMPLATE")))
                self._state.hooks[number] = Hook(number, *values)
                self._state.next_ids["HOOK"] = max(self._state.next_ids["HOOK"], number + 1)

    def set_next_id(self, kind: str, number: int) -> None:
        """Set the ID that the next "CLUSTER", "HOST", "VNET", "VM" or "HOOK" gets."""
        with self._lock:
            self._state.next_ids[kind] = number

    def forget(self, kind: str, number: int) -> None:
        """Drop an object without a call and without any check."""
        with self._lock:
            del getattr(self._state, f"{kind.lower()}s")[number]

    def populate(self, document: bytes, hosts: int = 500, vms: int = 8000) -> None:
        """Add many hosts and VMs like that of a document, the VMs spread over all hosts that are there then."""
        with self._lock:
            for _ in range(hosts):
                self.add_host(f"host{self._state.next_ids['HOST']}")
            there = list(self._state.hosts.values())
            root = oned_vm.read(document)
            # Numbers that are nowhere else in a document mark the places; they have the form of what they stand for.
            marks = (2**40 + 1, 2**40 + 2, "host-name-mark", 2**40 + 3)
            oned_vm.renumber(root, 2**40 + 1)
            oned_vm.place(root, 2**40 + 2, "host-name-mark", 2**40 + 3)
            marked = Vm.of(root)
            for index in range(vms):
                host, number, text = there[index % len(there)], self._state.new_id("VM"), marked.document
                for mark, value in zip(marks, (number, host.host_id, host.name, host.cluster_id), strict=True):
                    text = text.replace(str(mark), str(value))
                self._state.vms[number] = Vm(number, marked.state, host.host_id, text)
