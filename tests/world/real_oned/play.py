"""A real oned with the methods of the stand-in, so that the same tests run with both.

Between the clients and oned is the stand-in's server: it passes every call on as it came, and keeps the record of calls, the
failures and the deaths that a test arranges. What happens in an OpenNebula besides calls is played by oned's drivers, by calls
as oneadmin, and where neither can do it by changing oned's database.
"""

from __future__ import annotations

import ipaddress
import time
import urllib.request
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import pytest
from lxml import etree

from tests.world.oned import server, wire
from tests.world.oned.vm import ACTIVE, RUNNING
from tests.world.oned.vnet import HELD, LOCK_CREATE
from tests.world.oned.wire import OneError

from .daemon import SESSION, CallError, Daemon
from .installed import Installed

_READS = ("info", "infoextended", "version", "config", "raftstatus")
_DISABLED, _OFFLINE, _MONITORED = 4, 8, 2
_STATES = {0: "INIT", 2: "MONITORED", 3: "ERROR the test says so"}
_STATUS = {_DISABLED: 1, _OFFLINE: 2}
_ENABLE = 0
_FOUND = """ARCH="x86_64"
CPUSPEED="3000"
HOSTNAME="{name}"
HYPERVISOR="kvm"
MODELNAME="AMD EPYC"
TOTALCPU="1600"
TOTALMEMORY="64000000"
VERSION="7.2.0"
"""
_ENDS = {8: "poweroff-hard", 9: "undeploy-hard", 6: "terminate-hard"}
_KINDS = {
    "CLUSTER": ("one.cluster", "cluster_pool"),
    "HOST": ("one.host", "host_pool"),
    "VNET": ("one.vn", "network_pool"),
    "VM": ("one.vm", "vm_pool"),
    "HOOK": ("one.hook", "hook_pool"),
}


def cannot(what: str) -> NoReturn:
    """Skip the test, because a real oned cannot be made to do something."""
    pytest.skip(f"a real oned {what}")


class RealOned(server.Oned):
    """A real oned, reached through the stand-in's server.

    Args:
        installed: the one that this machine has.
    """

    def __init__(self, installed: Installed) -> None:
        self.daemon = Daemon(installed)
        super().__init__()

    def stop(self) -> None:
        """Stop serving, and end oned."""
        super().stop()
        self.daemon.stop()

    def reset(self) -> None:
        """Begin anew, at the same endpoint."""
        super().reset()
        self.daemon.reset()

    def _answer(self, body: bytes) -> bytes:
        if self.latency:
            time.sleep(self.latency)
        method, values = wire.read(body)
        if values[:1] != (self.session,):
            return self._forward(body)
        if self.session != SESSION:
            body = xmlrpc.client.dumps((SESSION, *values[1:]), method).encode()  # type: ignore[arg-type]
        replies: list[bytes] = []

        def work() -> int:
            replies.append(self._forward(body))
            return 0

        try:
            self._perform(method, not method.endswith(_READS), work)
        except OneError as error:
            return wire.failure(method, error)
        return replies[0]

    def _forward(self, body: bytes) -> bytes:
        request = urllib.request.Request(self.daemon.endpoint, body, {"Content-Type": "text/xml"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer: bytes = reply.read()
        return answer

    # What monitoring and drivers do.

    def set_host_state(self, host_id: int, state: int) -> None:
        if state in _STATUS:
            self.daemon.call("one.host.status", host_id, _STATUS[state])
            return
        if self._number("HOST", host_id, "STATE") in _STATUS:
            self.daemon.call("one.host.status", host_id, _ENABLE)
        if state == _MONITORED:
            name = self._tree("HOST", host_id).findtext("NAME") or ""
            self.daemon.drivers.monitoring("HOST_SYSTEM", host_id, _FOUND.format(name=name))
            self._until("HOST", host_id, "TEMPLATE/HOSTNAME", name)
        self.daemon.drivers.monitoring("HOST_STATE", host_id, _STATES[state])
        self._until("HOST", host_id, "STATE", str(state))

    def fail_vnet_update(self, vnet_id: int) -> None:
        cannot("lets no update of a network fail that no VM is in")

    def allow(self, kind: str, name: str) -> None:
        cannot("has the lines that install.sh adds to oned.conf")

    def inherit_no_more(self, name: str) -> None:
        cannot("has the lines that install.sh adds to oned.conf")

    def ran_hook(self, hook_id: int, stderr: str = "", at: int = 0) -> int:
        cannot("runs its hooks itself")

    def monitored(self, host_id: int, printed: str) -> None:
        self.set_host_state(host_id, _MONITORED)
        mark = f'\nTEST_MARK="{time.monotonic_ns()}"\n'
        self.daemon.drivers.monitoring("HOST_SYSTEM", host_id, printed + mark)
        self._until("HOST", host_id, "TEMPLATE/TEST_MARK", mark.split('"')[1])

    def set_raft_state(self, state: int) -> None:
        cannot("is alone here: which of several leads is not played")

    def finish_vnet_create(self, vnet_id: int, printed: str = "") -> None:
        state = self._number("VNET", vnet_id, "STATE")
        if state != LOCK_CREATE:
            raise ValueError(f"virtual network {vnet_id} is in state {state}: nothing creates it")
        self._vnet_created(vnet_id, True, printed)

    def fail_vnet_create(self, vnet_id: int, message: str) -> None:
        self._vnet_created(vnet_id, False, message)

    def _vnet_created(self, vnet_id: int, succeeded: bool, printed: str) -> None:
        self.daemon.drivers.networks("VNET_CREATE", vnet_id, succeeded, printed)
        what = f"the creation of network {vnet_id}"
        self.daemon.wait(what, lambda: self._number("VNET", vnet_id, "STATE") != LOCK_CREATE)

    # What users do with VMs.

    def add_vm(
        self,
        document: bytes,
        vm_id: int | None = None,
        host_id: int | None = None,
        state: int = ACTIVE,
        lcm_state: int = RUNNING,
    ) -> int:
        if vm_id is not None or host_id is None or (state, lcm_state) != (ACTIVE, RUNNING):
            cannot("makes VMs itself, not from documents")
        return self.start_vm(host_id, [])

    def start_vm(self, host_id: int | None, nics: Sequence[Mapping[str, str]]) -> int:
        """Create a VM with these NICs, deploy it on a host, or let it wait for one, and wait until it runs."""
        text = 'NAME="vm"\nCPU="1"\nMEMORY="128"\n' + "\n".join(map(_nic, nics))
        vm_id = int(self.daemon.call("one.vm.allocate", text, host_id is None))
        if host_id is not None:
            self.daemon.call("one.vm.deploy", vm_id, host_id, False, -1, "")
            self._until_runs(vm_id)
        return vm_id

    def move_vm(self, vm_id: int, host_id: int) -> None:
        if self._number("VM", vm_id, "HISTORY_RECORDS/HISTORY[last()]/HID") == host_id:
            return  # oned refuses to migrate a VM to where it is
        self._let("MIGRATE", "one.vm.migrate", vm_id, host_id, True, False, -1, 0)

    def set_vm_state(self, vm_id: int, state: int, lcm_state: int = 0) -> None:
        if state in _ENDS and lcm_state == 0:
            self.daemon.call("one.vm.action", _ENDS[state], vm_id)
            self._until("VM", vm_id, "STATE", str(state))
            return

        def edit(root: etree._Element) -> None:
            for name, value in (("STATE", state), ("LCM_STATE", lcm_state)):
                root.find(name).text = str(value)  # type: ignore[union-attr]

        self.edit_vm(vm_id, edit)
        self.daemon.execute("UPDATE vm_pool SET state = ?, lcm_state = ? WHERE oid = ?", state, lcm_state, vm_id)

    def edit_vm(self, vm_id: int, edit: Callable[[etree._Element], None]) -> None:
        root = etree.fromstring(self.daemon.query("SELECT body FROM vm_pool WHERE oid = ?", vm_id))
        edit(root)
        self.daemon.execute(
            "UPDATE vm_pool SET body = ? WHERE oid = ?", etree.tostring(root, encoding="unicode"), vm_id
        )

    def remove_vm(self, vm_id: int) -> None:
        self.set_vm_state(vm_id, 6)
        self.daemon.execute("DELETE FROM vm_pool WHERE oid = ?", vm_id)

    def lease(self, vnet_id: int, range_id: int, vm_id: int) -> str:
        address = self.free_address(vnet_id, range_id)
        nic = {"NETWORK_ID": str(vnet_id), "IP": address}
        if vm_id == HELD:
            self.daemon.call("one.vn.hold", vnet_id, f'LEASES=[IP="{address}"]')
        elif self._is_there("VM", vm_id):
            self._let("ATTACHNIC", "one.vm.attachnic", vm_id, _nic(nic))
        else:
            self.start_vm(None, [nic])
        return address

    def free_address(self, vnet_id: int, range_id: int) -> str:
        """Find the first address of a range that nobody has. Raises RuntimeError when there is none."""
        held = self._tree("VNET", vnet_id).find(f"AR_POOL/AR[AR_ID='{range_id}']")
        if held is None:
            raise KeyError(f"virtual network {vnet_id} has no address range {range_id}")
        taken = {item.text for item in held.iterfind("LEASES/LEASE/IP")}
        first = ipaddress.IPv4Address(held.findtext("IP") or "")
        every = (str(first + index) for index in range(int(held.findtext("SIZE") or 0)))
        free = next((address for address in every if address not in taken), None)
        if free is None:
            raise RuntimeError(f"address range {range_id} of virtual network {vnet_id} has no free address")
        return free

    def unlease(self, vnet_id: int, range_id: int, vm_id: int) -> None:
        leases = self._tree("VNET", vnet_id).findall(f"AR_POOL/AR[AR_ID='{range_id}']/LEASES/LEASE[VM='{vm_id}']")
        for address in [lease.findtext("IP") for lease in leases]:
            if vm_id == HELD:
                self.daemon.call("one.vn.release", vnet_id, f'LEASES=[IP="{address}"]')
                continue
            nic = self._tree("VM", vm_id).find(f"TEMPLATE/NIC[IP='{address}']")
            assert nic is not None
            self._let("DETACHNIC", "one.vm.detachnic", vm_id, int(nic.findtext("NIC_ID") or -1))

    # What was there before the test.

    def add_host(self, name: str, state: int = 2, cluster_id: int = 0, template: str = "") -> int:
        host_id = int(self.daemon.call("one.host.allocate", name, "kvm", "kvm", cluster_id))
        if template:
            self.daemon.call("one.host.update", host_id, template, 1)
        self.set_host_state(host_id, _MONITORED)
        if state != _MONITORED:
            self.set_host_state(host_id, state)
        return host_id

    def add_cluster(self, name: str) -> int:
        return int(self.daemon.call("one.cluster.allocate", name))

    def add_vnet(self, template: str, clusters: Sequence[int] = (0,), ready: bool = True) -> int:
        vnet_id = int(self.daemon.call("one.vn.allocate", template, clusters[0]))
        for cluster_id in clusters[1:]:
            self.daemon.call("one.cluster.addvnet", cluster_id, vnet_id)
        if ready:
            self.finish_vnet_create(vnet_id)
        return vnet_id

    def document(self, kind: str, number: int) -> bytes:
        try:
            return str(self.daemon.call(f"{_KINDS[kind][0]}.info", number)).encode()
        except CallError as error:
            raise OneError(wire.NO_EXISTS, str(error), number) from None

    def set_group(self, group_id: int, name: str, **vms: Sequence[int]) -> None:
        cannot("knows itself which VMs have the rules of a group")

    def load(self, document: bytes) -> None:
        cannot("makes its objects itself, not from documents")

    def set_next_id(self, kind: str, number: int) -> None:
        table = _KINDS[kind][1]
        self.daemon.execute("REPLACE INTO pool_control (tablename, last_oid) VALUES (?, ?)", table, number - 1)

    def forget(self, kind: str, number: int) -> None:
        method, table = _KINDS[kind]
        try:
            self.daemon.call(f"{method}.delete", number)
        except (CallError, xmlrpc.client.Fault):
            self.daemon.execute(f"DELETE FROM {table} WHERE oid = ?", number)

    def populate(self, document: bytes, hosts: int = 500, vms: int = 8000) -> None:
        cannot("would take minutes to run so many VMs")

    # What oned says, and when it says it.

    def _tree(self, kind: str, number: int) -> etree._Element:
        return etree.fromstring(self.document(kind, number))

    def _number(self, kind: str, number: int, path: str) -> int:
        return int(self._tree(kind, number).findtext(path) or -1)

    def _is_there(self, kind: str, number: int) -> bool:
        try:
            self.document(kind, number)
        except OneError:
            return False
        return True

    def _until(self, kind: str, number: int, path: str, text: str) -> None:
        what = f"{path} of {kind} {number} is {text}"
        self.daemon.wait(what, lambda: self._tree(kind, number).findtext(path) == text)

    def _let(self, action: str, method: str, vm_id: int, *values: object) -> None:
        """Make a call on a VM that runs, and wait until the hypervisor has done its part and the VM runs again."""
        before = self.daemon.drivers.done[action, vm_id]
        self.daemon.call(method, vm_id, *values)
        self.daemon.wait(f"{action} of VM {vm_id}", lambda: self.daemon.drivers.done[action, vm_id] > before)
        self._until_runs(vm_id)

    def _until_runs(self, vm_id: int) -> None:
        self._until("VM", vm_id, "LCM_STATE", str(RUNNING))


def _nic(values: Mapping[str, str]) -> str:
    return "NIC=[ " + ", ".join(f'{key}="{value}"' for key, value in values.items()) + " ]"
