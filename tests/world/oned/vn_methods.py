"""What the methods on virtual networks do."""

from __future__ import annotations

from .state import State, descending, known, method, pool, updated
from .template import parse
from .vnet import HELD, LOCK_CREATE, LOCK_DELETE, READY, STATE_NAMES, AddressRange, VirtualNetwork
from .wire import ACTION, INTERNAL, OneError

_OPEN_VSWITCH = ("aws_ovs", "ovswitch", "ovswitch_vxlan")


def _vnet(state: State, vnet_id: int) -> VirtualNetwork:
    return known(state.vnets, vnet_id, "virtual network")


def _usable(state: State, vnet_id: int, refusal: str) -> VirtualNetwork:
    """Give the network of a call that needs it READY; `refusal` begins the message when it is not."""
    vnet = _vnet(state, vnet_id)
    if vnet.state != READY:
        raise OneError(ACTION, f"{refusal}Virtual Network is in wrong state: {STATE_NAMES[vnet.state]}")
    return vnet


@method()
def vnpool_info(state: State, owner: int, first: int, last: int) -> str:
    return pool("VNET_POOL", (vnet.xml(pool=True) for vnet in descending(state.vnets, first, last)))


@method()
def vn_info(state: State, vnet_id: int, decrypt: bool = False) -> str:
    return _vnet(state, vnet_id).xml()


@method(mutates=True)
def vn_allocate(state: State, text: str, cluster_id: int) -> int:
    wanted = parse(text)
    cluster = known(state.clusters, max(cluster_id, 0), "cluster")
    name = wanted.take("NAME")
    if not name:
        raise OneError(INTERNAL, "No NAME in template for Virtual Network.")
    for vnet in state.vnets.values():
        if vnet.name == name:
            raise OneError(INTERNAL, f"NAME is already taken by NET {vnet.vnet_id}.")
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
    groups = {int(group) for group in wanted.text("SECURITY_GROUPS").split(",") if group.strip()} | {0}
    wanted.put("SECURITY_GROUPS", ",".join(str(group) for group in sorted(groups)))
    clusters = [cluster.cluster_id]
    state.vnets[number] = VirtualNetwork(number, name, clusters, wanted, automatic and not vlan_id)
    return number


@method(mutates=True)
def vn_update(state: State, vnet_id: int, text: str, how: int = 0) -> int:
    vnet = _vnet(state, vnet_id)
    wanted = updated(vnet.template, text, how)
    if not wanted.text("VN_MAD"):
        raise OneError(INTERNAL, "Cannot update template. No VN_MAD in template for Virtual Network.")
    vnet.update(wanted)
    return vnet_id


@method(mutates=True)
def vn_delete(state: State, vnet_id: int) -> int:
    """Lock the network and take its ranges; it stays until the driver's vnet_delete is through."""
    vnet = _vnet(state, vnet_id)
    if any(item.leases for item in vnet.ranges):
        text = "Can not remove a virtual network with leases in use"
    elif vnet.state in (LOCK_CREATE, LOCK_DELETE):
        text = f"Can not remove a Virtual Network, wrong state {STATE_NAMES[vnet.state]}"
    else:
        vnet.ranges.clear()
        vnet.set_state(LOCK_DELETE)
        return vnet_id
    raise OneError(ACTION, f"Cannot delete virtual network. {text}")


def _range(text: str) -> dict[str, str]:
    ranges = parse(text).vectors("AR")
    if not ranges:
        raise OneError(INTERNAL, "Wrong AR definition. AR vector attribute is missing.")
    return ranges[0]


# The blank that is missing in the refusals is missing in oned's.


@method(mutates=True)
def vn_add_ar(state: State, vnet_id: int, text: str) -> int:
    vnet = _usable(state, vnet_id, "Could not execute one.vn.add_ar")
    vnet.add_range(_range(text))
    return vnet_id


@method(mutates=True)
def vn_update_ar(state: State, vnet_id: int, text: str) -> int:
    vnet, wanted = _usable(state, vnet_id, "Could not execute one.vn.update_ar"), _range(text)
    number = wanted.get("AR_ID", "")
    if not number.isdigit():
        raise OneError(INTERNAL, "AR/AR_ID attribute is missing.")
    item = vnet.range(int(number))
    if item is None:
        raise OneError(INTERNAL, f"Address Range with ID {int(number)} was not found.")
    item.update(wanted)
    return vnet_id


@method(mutates=True)
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
    leases = parse(text).vectors("LEASES")
    if not leases:
        raise OneError(INTERNAL, "Empty lease description.")
    address = leases[0].get("IP")
    if not address:
        raise OneError(INTERNAL, "Missing MAC, IP or IP6.")
    return [(item, index) for item in vnet.ranges for index in range(item.size) if item.address(index) == address]


@method(mutates=True)
def vn_hold(state: State, vnet_id: int, text: str) -> int:
    vnet = _usable(state, vnet_id, "Could not execute one.vn.hold")
    free = [(item, index) for item, index in _leases(vnet, text) if index not in item.leases]
    if not free:
        raise OneError(INTERNAL, "Address is not part of the address range or in use.")
    for item, index in free:
        item.take(index, HELD)
    return vnet_id


@method(mutates=True)
def vn_release(state: State, vnet_id: int, text: str) -> int:
    vnet = _usable(state, vnet_id, "Could not execute one.vn.release")
    for item, index in _leases(vnet, text):
        if item.leases.get(index) == HELD:
            item.give_back(index)
    return vnet_id
