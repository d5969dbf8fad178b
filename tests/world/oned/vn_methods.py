"""What the methods on virtual networks do."""

from __future__ import annotations

from .state import ONEADMIN, State, known, method, page, pool, template, update
from .template import Template
from .vnet import (
    HELD,
    LOCK_CREATE,
    LOCK_DELETE,
    READY,
    STATE_NAMES,
    UPDATE_FAILURE,
    AddressRange,
    RangeError,
    VirtualNetwork,
)
from .wire import ACTION, INTERNAL, OneError, Parameters

_OPEN_VSWITCH = ("aws_ovs", "ovswitch", "ovswitch_vxlan")


def _vnet(state: State, parameters: Parameters) -> VirtualNetwork:
    return known(state.vnets, parameters.integer(1), "virtual network")


def _usable(state: State, parameters: Parameters, refusal: str) -> VirtualNetwork:
    """The network of a call that needs it READY; `refusal` begins the message when it is not."""
    vnet = _vnet(state, parameters)
    if vnet.state not in (READY, UPDATE_FAILURE):
        raise OneError(ACTION, f"{refusal}Virtual Network is in wrong state: {STATE_NAMES[vnet.state]}")
    return vnet


@method("one.vnpool.info")
def vnpool_info(state: State, parameters: Parameters) -> str:
    selected = page(state.vnets, parameters, lambda vnet: True, lambda vnet: ONEADMIN)
    return pool("VNET_POOL", (vnet.xml(pool=True) for vnet in selected))


@method("one.vn.info")
def vn_info(state: State, parameters: Parameters) -> str:
    parameters.boolean(2, False)
    return _vnet(state, parameters).xml()


def _automatic(wanted: Template, name: str) -> tuple[str, int]:
    """The VLAN ID that a template gives, and whether oned is to choose it (which for this driver it does not do)."""
    value, automatic = wanted.text(name), wanted.text(f"AUTOMATIC_{name}").upper()
    wanted.remove(f"AUTOMATIC_{name}")
    return value, int(not value and automatic == "YES")


@method("one.vn.allocate", mutates=True)
def vn_allocate(state: State, parameters: Parameters) -> int:
    wanted = template(parameters.string(1))
    cluster_id = max(parameters.integer(2), 0)
    known(state.clusters, cluster_id, "cluster")
    name, vn_mad = wanted.remove("NAME"), wanted.text("VN_MAD")
    if not name:
        raise OneError(INTERNAL, "No NAME in template for Virtual Network.")
    for vnet in state.vnets.values():
        if vnet.name == name:
            raise OneError(INTERNAL, f"NAME is already taken by NET {vnet.vnet_id}.")
    if not vn_mad:
        raise OneError(INTERNAL, "No VN_MAD in template for Virtual Network.")
    number = state.new_id("VNET")
    vnet = VirtualNetwork(number, name, [cluster_id], wanted, vn_mad=vn_mad, phydev=wanted.text("PHYDEV"))
    vnet.vlan_id, vnet.automatic = _automatic(wanted, "VLAN_ID")
    vnet.outer_vlan_id, vnet.outer_automatic = _automatic(wanted, "OUTER_VLAN_ID")
    vnet.bridge_type = wanted.text("BRIDGE_TYPE") or ("openvswitch" if vn_mad in _OPEN_VSWITCH else "linux")
    vnet.bridge = wanted.text("BRIDGE") or "onebr" + (f".{vnet.vlan_id}" if vnet.vlan_id else str(number))
    groups = {int(group) for group in wanted.text("SECURITY_GROUPS").split(",") if group.strip()} | {0}
    for key, value in (
        ("PHYDEV", vnet.phydev),
        ("BRIDGE", vnet.bridge),
        ("BRIDGE_TYPE", vnet.bridge_type),
        ("SECURITY_GROUPS", ",".join(str(group) for group in sorted(groups))),
    ):
        wanted.replace(key, value)
    state.vnets[number] = vnet
    return number


@method("one.vn.update", mutates=True)
def vn_update(state: State, parameters: Parameters) -> int:
    vnet = _vnet(state, parameters)
    vnet.template = update(vnet.template, parameters, default=0)
    try:
        vnet.updated()
    except RangeError as error:
        raise OneError(INTERNAL, f"Cannot update template. {error}") from None
    vnet.previous = vnet.state
    return vnet.vnet_id


@method("one.vn.delete", mutates=True)
def vn_delete(state: State, parameters: Parameters) -> int:
    """The network stays, locked and without its ranges, until the driver's vnet_delete is through."""
    vnet = _vnet(state, parameters)
    if vnet.used:
        text = "Can not remove a virtual network with leases in use"
    elif vnet.state in (LOCK_CREATE, LOCK_DELETE):
        text = f"Can not remove a Virtual Network, wrong state {STATE_NAMES[vnet.state]}"
    else:
        vnet.ranges.clear()
        vnet.set_state(LOCK_DELETE)
        return vnet.vnet_id
    raise OneError(ACTION, f"Cannot delete virtual network. {text}")


def _could_not_execute(name: str) -> str:
    # Without a blank behind it, as oned prints it.
    return f"Could not execute {name}"


def _ranges(text: str) -> list[dict[str, str]]:
    ranges = template(text).vectors("AR")
    if not ranges:
        raise OneError(INTERNAL, "Wrong AR definition. AR vector attribute is missing.")
    return ranges


@method("one.vn.add_ar", mutates=True)
def vn_add_ar(state: State, parameters: Parameters) -> int:
    vnet = _usable(state, parameters, _could_not_execute("one.vn.add_ar"))
    try:
        vnet.add_range(_ranges(parameters.string(2))[0])
    except RangeError as error:
        raise OneError(INTERNAL, str(error)) from None
    return vnet.vnet_id


@method("one.vn.update_ar", mutates=True)
def vn_update_ar(state: State, parameters: Parameters) -> int:
    vnet = _usable(state, parameters, _could_not_execute("one.vn.update_ar"))
    wanted = _ranges(parameters.string(2))[0]
    number = wanted.get("AR_ID", "")
    if not number.isdigit():
        raise OneError(INTERNAL, "AR/AR_ID attribute is missing.")
    found = vnet.range(int(number))
    if found is None:
        raise OneError(INTERNAL, f"Address Range with ID {int(number)} was not found.")
    try:
        found.update(wanted)
    except RangeError as error:
        raise OneError(INTERNAL, str(error)) from None
    return vnet.vnet_id


@method("one.vn.rm_ar", mutates=True)
def vn_rm_ar(state: State, parameters: Parameters) -> int:
    # The spelling is oned's.
    vnet = _usable(state, parameters, "Could not remove Adress Range, ")
    number, force = parameters.integer(2), parameters.boolean(3, False)
    found = vnet.range(number)
    if found is None:
        raise OneError(INTERNAL, "Address Range does not exist")
    if found.used and not force:
        raise OneError(INTERNAL, "Address Range has leases in use")
    vnet.ranges.remove(found)
    return vnet.vnet_id


def _leases(vnet: VirtualNetwork, text: str) -> list[tuple[AddressRange, int]]:
    """The addresses that a client names: in one range by AR_ID, else in every range that has it."""
    leases = template(text).vectors("LEASES")
    if not leases:
        raise OneError(INTERNAL, "Empty lease description.")
    lease = leases[0]
    given = [name for name in ("IP", "IP6", "MAC") if lease.get(name)]
    if not given:
        raise OneError(INTERNAL, "Missing MAC, IP or IP6.")
    if len(given) > 1:
        raise OneError(INTERNAL, "Only one attribute MAC, IP or IP6 can be set.")
    number = lease.get("AR_ID", "")
    ranges = [item for item in vnet.ranges if not number.isdigit() or item.range_id == int(number)]
    found = [(item, item.index_of(lease)) for item in ranges]
    return [(item, index) for item, index in found if index is not None]


@method("one.vn.hold", mutates=True)
def vn_hold(state: State, parameters: Parameters) -> int:
    vnet = _usable(state, parameters, _could_not_execute("one.vn.hold"))
    free = [(item, index) for item, index in _leases(vnet, parameters.string(2)) if index not in item.leases]
    if not free:
        raise OneError(INTERNAL, "Address is not part of the address range or in use.")
    for item, index in free:
        item.take(index, HELD)
    return vnet.vnet_id


@method("one.vn.release", mutates=True)
def vn_release(state: State, parameters: Parameters) -> int:
    vnet = _usable(state, parameters, _could_not_execute("one.vn.release"))
    for item, index in _leases(vnet, parameters.string(2)):
        item.give_back(index, HELD)
    return vnet.vnet_id
