"""What the methods do: those of the zone, of hosts and clusters, of VMs, of hooks, and of virtual networks.

The function `vn_add_ar` does one.vn.add_ar; its annotations say what oned takes.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import vm as oned_vm
from .state import DISABLED, MONITORED, OFFLINE, Cluster, Hook, Host, State, T, descending, known, pool
from .template import Template, element, parse
from .vm import DONE, Vm
from .vnet import HELD, LOCK_CREATE, LOCK_DELETE, READY, STATE_NAMES, UPDATE_FAILURE, AddressRange, VirtualNetwork
from .wire import ACTION, ALLOCATE, INTERNAL, OneError

VERSION = "7.2.0"

_OPEN_VSWITCH = ("aws_ovs", "ovswitch", "ovswitch_vxlan")


def _named(objects: Mapping[int, T], name: str) -> T | None:
    return next((item for item in objects.values() if getattr(item, "name", "") == name), None)


def system_version(state: State) -> str:
    return VERSION


def system_config(state: State) -> str:
    restricted = "".join(element(f"{kind}_RESTRICTED_ATTR", name) for kind, name in state.restricted)
    inherited = "".join(element("INHERIT_VNET_ATTR", name) for name in state.inherited)
    return f"<OPENNEBULA_CONFIGURATION>{inherited}{restricted}</OPENNEBULA_CONFIGURATION>"


def zone_raftstatus(state: State) -> str:
    term, index, log_term = (0, -1, -1) if state.raft_state == 0 else (1, 100, 1)
    return (
        f"<RAFT><SERVER_ID>{state.server_id}</SERVER_ID><STATE>{state.raft_state}</STATE><TERM>{term}</TERM>"
        f"<VOTEDFOR>-1</VOTEDFOR><COMMIT>{max(index, 0)}</COMMIT><LOG_INDEX>{index}</LOG_INDEX>"
        f"<LOG_TERM>{log_term}</LOG_TERM><FEDLOG_INDEX>-1</FEDLOG_INDEX></RAFT>"
    )


def hostpool_info(state: State) -> str:
    vms, clusters = state.vms_by_host(), state.clusters
    hosts = descending(state.hosts)
    return pool("HOST_POOL", (host.xml(clusters[host.cluster_id].name, vms[host.host_id]) for host in hosts))


def host_info(state: State, host_id: int) -> str:
    host = known(state.hosts, host_id, "host")
    return host.xml(state.clusters[host.cluster_id].name, state.vms_by_host()[host_id])


def host_allocate(state: State, name: str, im_mad: str, vm_mad: str, cluster_id: int) -> int:
    cluster = known(state.clusters, max(cluster_id, 0), "cluster")
    if other := _named(state.hosts, name):
        raise OneError(ALLOCATE, f"Error allocating a new host. NAME is already taken by HOST {other.host_id}.")
    number = state.new_id("HOST")
    texts = {"IM_MAD": im_mad, "RESERVED_CPU": "", "RESERVED_MEM": "", "VM_MAD": vm_mad}
    state.hosts[number] = Host(number, name, cluster.cluster_id, Template(texts.items()))
    return number


def host_update(state: State, host_id: int, text: str, how: int) -> int:
    host = known(state.hosts, host_id, "host")
    wanted = host.template.updated(text, how)
    for name in ("IM_MAD", "VM_MAD"):
        wanted.put(name, wanted.text(name) or host.template.text(name))
    host.template = wanted
    return host_id


def host_status(state: State, host_id: int, status: int) -> int:
    host = known(state.hosts, host_id, "host")
    # Enabled, disabled, offline.
    enabled = MONITORED if host.state == DISABLED and host.is_measured else 0
    host.set_state((enabled, DISABLED, OFFLINE)[status])
    return host_id


def host_rename(state: State, host_id: int, name: str) -> int:
    host = known(state.hosts, host_id, "host")
    other = _named(state.hosts, name)
    if other is not None and other is not host:
        raise OneError(ACTION, f"host cannot be renamed to {name} because it collides with host {other.host_id}")
    host.name = name
    for vm_id in state.vms_by_host()[host_id]:
        state.vms[vm_id].change(lambda root: oned_vm.place(root, host_id, name, host.cluster_id))
    return host_id


def host_delete(state: State, host_id: int) -> int:
    known(state.hosts, host_id, "host")
    if state.vms_by_host()[host_id]:
        raise OneError(ACTION, "Cannot delete host. Can not remove a host with running VMs")
    del state.hosts[host_id]
    return host_id


def clusterpool_info(state: State) -> str:
    def document(cluster: Cluster) -> str:
        number = cluster.cluster_id
        hosts = [host.host_id for host in state.hosts.values() if host.cluster_id == number]
        return cluster.xml(hosts, [vnet.vnet_id for vnet in state.vnets.values() if number in vnet.clusters])

    return pool("CLUSTER_POOL", map(document, descending(state.clusters)))


def cluster_allocate(state: State, name: str) -> int:
    number = state.new_id("CLUSTER")
    state.clusters[number] = Cluster(number, name)
    return number


def cluster_update(state: State, cluster_id: int, text: str, how: int) -> int:
    cluster = known(state.clusters, cluster_id, "cluster")
    cluster.template = cluster.template.updated(text, how)
    return cluster_id


def _selected_vms(state: State, first: int, last: int, wanted: int) -> list[Vm]:
    vms = descending(state.vms, first, last)
    return [vm for vm in vms if wanted in (-2, vm.state) or (wanted == -1 and vm.state != DONE)]


def vmpool_info(state: State, owner: int, first: int, last: int, wanted: int) -> str:
    """Answer as recorded, without VMs: the short form of their documents is nobody's need."""
    if _selected_vms(state, first, last, wanted):
        raise OneError(INTERNAL, "The stand-in prints VMs in one.vmpool.infoextended alone.")
    return pool("VM_POOL", ())


def vmpool_infoextended(state: State, owner: int, first: int, last: int, wanted: int) -> str:
    return pool("VM_POOL", (vm.document for vm in _selected_vms(state, first, last, wanted)))


def vm_info(state: State, vm_id: int) -> str:
    return known(state.vms, vm_id, "virtual machine").document


def vm_update(state: State, vm_id: int, text: str, how: int) -> int:
    known(state.vms, vm_id, "virtual machine").change(lambda root: oned_vm.update(root, text, how))
    return vm_id


def secgrouppool_info(state: State, owner: int, first: int, last: int) -> str:
    return pool("SECURITY_GROUP_POOL", (group.xml() for group in descending(state.groups, first, last)))


def hookpool_info(state: State) -> str:
    return pool("HOOK_POOL", (hook.xml() for hook in descending(state.hooks)))


def hooklog_info(state: State, first: int, last: int, hook_id: int, how: int) -> str:
    """Give the executions between two times, of a hook or all (-1): that failed (-1), succeeded (1), or all."""
    return pool(
        "HOOKLOG",
        (
            execution.xml()
            for execution in sorted(state.executions, key=lambda one: -one.hook_id)
            if (first < 0 or execution.time > first) and (last < 0 or execution.time < last)
            if hook_id in (-1, execution.hook_id) and (how == 0 or (execution.code == 0) == (how == 1))
        ),
    )


def hook_allocate(state: State, text: str) -> int:
    wanted = parse(text)
    kind, name = wanted.take("TYPE").lower(), wanted.take("NAME")
    if other := _named(state.hooks, name):
        raise OneError(INTERNAL, f"NAME is already taken by Hook {other.hook_id}.")
    _check_trigger(kind, wanted)
    wanted.put("REMOTE", "YES" if wanted.text("REMOTE").upper() == "YES" else "NO")
    number = state.new_id("HOOK")
    state.hooks[number] = Hook(number, name, kind, wanted)
    return number


def _check_trigger(kind: str, wanted: Template) -> None:
    """Check what a hook is triggered by, and write it as oned does. Of the values of ON, two are enough for tests."""
    call, resource, problem = wanted.text("CALL"), wanted.text("RESOURCE").upper(), ""
    if kind == "api":
        problem = "" if call.startswith("one.") else f"API call does not exist or is not supported: {call}"
    elif resource == "VM":
        on = wanted.take("ON").upper()
        if on == "RUNNING":
            wanted.put("STATE", "ACTIVE")
            wanted.put("LCM_STATE", "RUNNING")
        problem = "" if on in ("CUSTOM", "RUNNING") else f"Unkown state condition: {on}"  # oned's spelling
    elif resource not in ("HOST", "IMAGE", "NET"):
        problem = f"Invalid resource type: {resource}"
    if problem or not wanted.text("COMMAND"):
        raise OneError(INTERNAL, problem or "No COMMAND in template for Hook.")


def hook_delete(state: State, hook_id: int) -> int:
    known(state.hooks, hook_id, "hook")
    del state.hooks[hook_id]
    return hook_id


def _usable(state: State, vnet_id: int, refusal: str) -> VirtualNetwork:
    """Give the network of a call that needs it READY; `refusal` begins the message when it is not."""
    vnet = known(state.vnets, vnet_id, "virtual network")
    if vnet.state not in (READY, UPDATE_FAILURE):
        raise OneError(ACTION, f"{refusal}Virtual Network is in wrong state: {STATE_NAMES[vnet.state]}")
    return vnet


def vnpool_info(state: State, owner: int, first: int, last: int) -> str:
    return pool("VNET_POOL", (vnet.xml(pool=True) for vnet in descending(state.vnets, first, last)))


def vn_info(state: State, vnet_id: int, decrypt: bool = False) -> str:
    return known(state.vnets, vnet_id, "virtual network").xml()


def vn_allocate(state: State, text: str, cluster_id: int) -> int:
    wanted = parse(text)
    cluster = known(state.clusters, max(cluster_id, 0), "cluster")
    name = wanted.take("NAME")
    if not name:
        raise OneError(INTERNAL, "No NAME in template for Virtual Network.")
    if other := _named(state.vnets, name):
        raise OneError(INTERNAL, f"NAME is already taken by NET {other.vnet_id}.")
    if not wanted.text("VN_MAD"):
        raise OneError(INTERNAL, "No VN_MAD in template for Virtual Network.")
    number = state.new_id("VNET")
    # The VLAN ID is the driver's to choose, even when it is automatic.
    automatic, vlan_id = wanted.take("AUTOMATIC_VLAN_ID").upper() == "YES", wanted.text("VLAN_ID")
    bridge = wanted.text("BRIDGE") or "onebr" + (f".{vlan_id}" if vlan_id else str(number))
    kind = "openvswitch" if wanted.text("VN_MAD") in _OPEN_VSWITCH else "linux"
    wanted.put("PHYDEV", wanted.text("PHYDEV"))
    wanted.put("BRIDGE", bridge)
    wanted.put("BRIDGE_TYPE", wanted.text("BRIDGE_TYPE") or kind)
    wanted.put("SECURITY_GROUPS", wanted.text("SECURITY_GROUPS") or "0")
    clusters = [cluster.cluster_id]
    state.vnets[number] = VirtualNetwork(number, name, clusters, wanted, automatic and not vlan_id)
    return number


def vn_update(state: State, vnet_id: int, text: str, how: int = 0) -> int:
    vnet = known(state.vnets, vnet_id, "virtual network")
    vnet.update(vnet.template.updated(text, how))
    return vnet_id


def vn_delete(state: State, vnet_id: int) -> int:
    """Lock the network and take its ranges; it stays until the driver's vnet_delete is through."""
    vnet = known(state.vnets, vnet_id, "virtual network")
    if any(item.leases for item in vnet.ranges):
        text = "Can not remove a virtual network with leases in use"
    elif vnet.state in (LOCK_CREATE, LOCK_DELETE):
        text = f"Can not remove a Virtual Network, wrong state {STATE_NAMES[vnet.state]}"
    else:
        vnet.ranges.clear()
        vnet.set_state(LOCK_DELETE)
        return vnet_id
    raise OneError(ACTION, f"Cannot delete virtual network. {text}")


# The blank that is missing in the refusals is missing in oned's.


def vn_add_ar(state: State, vnet_id: int, text: str) -> int:
    vnet = _usable(state, vnet_id, "Could not execute one.vn.add_ar")
    vnet.add_range(parse(text).vectors("AR")[0])
    return vnet_id


def vn_update_ar(state: State, vnet_id: int, text: str) -> int:
    vnet = _usable(state, vnet_id, "Could not execute one.vn.update_ar")
    wanted = parse(text).vectors("AR")[0]
    number = int(wanted["AR_ID"])
    item = vnet.range(number)
    if item is None:
        raise OneError(INTERNAL, f"Address Range with ID {number} was not found.")
    item.update(wanted)
    return vnet_id


def vn_rm_ar(state: State, vnet_id: int, ar_id: int, force: bool = False) -> int:
    # The spelling is oned's.
    vnet = _usable(state, vnet_id, "Could not remove Adress Range, ")
    item = vnet.range(ar_id)
    if item is None:
        raise OneError(INTERNAL, "Address Range does not exist")
    if item.leases and not force:
        raise OneError(INTERNAL, "Address Range has leases in use")
    vnet.ranges.remove(item)
    return vnet_id


def _leases(vnet: VirtualNetwork, text: str) -> list[tuple[AddressRange, int]]:
    """Find the address that a client names by its IP, in every range that has it."""
    address = parse(text).vectors("LEASES")[0]["IP"]
    return [(item, index) for item in vnet.ranges for index in range(item.size) if item.address(index) == address]


def vn_hold(state: State, vnet_id: int, text: str) -> int:
    vnet = _usable(state, vnet_id, "Could not execute one.vn.hold")
    free = [(item, index) for item, index in _leases(vnet, text) if index not in item.leases]
    if not free:
        raise OneError(INTERNAL, "Address is not part of the address range or in use.")
    for item, index in free:
        item.take(index, HELD)
    return vnet_id


def vn_release(state: State, vnet_id: int, text: str) -> int:
    vnet = _usable(state, vnet_id, "Could not execute one.vn.release")
    for item, index in _leases(vnet, text):
        if item.leases.get(index) == HELD:
            item.give_back(index)
    return vnet_id
