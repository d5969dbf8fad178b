"""The text of a flow for `ovs-ofctl bundle`, and the cookie that names its owner.

The first byte of a cookie says what kind of owner it is: 0xa5 a NIC, 0xa6 a network, 0xa7 the node itself. What a bridge
has learned by itself has 0xa8, at a NIC, or 0xa9, in a network. What passes at a NIC for a time has 0xaa: answers that it
waits for; connections that it picks up have 0xab.
"""

from __future__ import annotations

from . import MARK, SLOT, VNI, VNI_MATCH

_PORT_COOKIE, _NETWORK_COOKIE, NODE_COOKIE = 0xA5 << 56, 0xA6 << 56, 0xA7 << 56
_LEARNED_AT_PORT, _LEARNED_IN_NETWORK, _ANSWERS, _PICKED_UP = 0xA8 << 56, 0xA9 << 56, 0xAA << 56, 0xAB << 56
_PASSING = tuple(kind >> 56 for kind in (_LEARNED_AT_PORT, _LEARNED_IN_NETWORK, _ANSWERS, _PICKED_UP))
MESH_COOKIE = NODE_COOKIE | 2
_OF_VM = (1 << 64) - (1 << 16)
"""The mask of a cookie without its NIC_ID."""


def port_cookie(vm_id: int, nic_id: int) -> int:
    """Make the cookie of a NIC's flows: 0xa5, the VM's ID, the NIC_ID (16 bits)."""
    return _PORT_COOKIE | vm_id << 16 | nic_id


def network_cookie(vni: int) -> int:
    """Make the cookie of a network's flows: 0xa6, the VNI."""
    return _NETWORK_COOKIE | vni


def learned_at_port(vm_id: int, nic_id: int) -> int:
    """Make the cookie of what is learned at a NIC: 0xa8, the VM's ID, the NIC_ID."""
    return _LEARNED_AT_PORT | vm_id << 16 | nic_id


def learned_in_network(vni: int) -> int:
    """Make the cookie of what is learned of a network: 0xa9, the VNI."""
    return _LEARNED_IN_NETWORK | vni


def answers(vm_id: int, nic_id: int) -> int:
    """Make the cookie of the answers that a NIC waits for: 0xaa, the VM's ID, the NIC_ID."""
    return _ANSWERS | vm_id << 16 | nic_id


def picked_up(vm_id: int, nic_id: int) -> int:
    """Make the cookie of the flows by which a NIC picks up connections: 0xab, the VM's ID, the NIC_ID."""
    return _PICKED_UP | vm_id << 16 | nic_id


def is_passing(cookie: int) -> bool:
    """Tell whether the flow goes by itself: a bridge has learned it, or it is there for a time."""
    return cookie >> 56 in _PASSING


def owner(cookie: int) -> tuple[int, int] | None:
    """Read VM ID and NIC_ID out of a cookie; None when no NIC owns the flow."""
    return ((cookie >> 16) & 0xFFFFFFFFFF, cookie & 0xFFFF) if cookie >> 56 == 0xA5 else None


def is_of_node(cookie: int) -> bool:
    """Tell whether a network or the node itself owns the flow."""
    return cookie >> 56 in (0xA6, 0xA7)


def add(cookie: int, table: int, priority: int, match: str, actions: str) -> str:
    """Write the line that adds a flow."""
    comma = "," if match else ""
    return f"flow add cookie={cookie:#x},table={table},priority={priority}{comma}{match} actions={actions}"


def for_a_time(line: str, seconds: int) -> str:
    """Let a flow that `add` has written vanish after so many seconds."""
    return line.replace(",table=", f",hard_timeout={seconds},table=", 1)


def delete(cookie: int) -> str:
    """Write the line that deletes all flows with a cookie."""
    return f"flow delete cookie={cookie:#x}/-1"


def of_vm(vm_id: int) -> str:
    """Write the match for the cookies of all NICs of a VM."""
    return f"cookie={port_cookie(vm_id, 0):#x}/{_OF_VM:#x}"


def delete_port(vm_id: int, nic_id: int) -> list[str]:
    """Write the lines that delete the flows of a NIC, and what was learned at it, but for the answers that it waits for."""
    kinds = (port_cookie, learned_at_port, picked_up)
    return [delete(kind(vm_id, nic_id)) for kind in kinds]


def delete_answers(vm_id: int, nic_id: int) -> str:
    """Write the line that deletes the answers that a NIC waits for."""
    return delete(answers(vm_id, nic_id))


def delete_vm(vm_id: int) -> list[str]:
    """Write the lines that delete the flows of all NICs of a VM, and what was learned at them."""
    kinds = (port_cookie, learned_at_port, answers, picked_up)
    return [f"flow delete cookie={kind(vm_id, 0):#x}/{_OF_VM:#x}" for kind in kinds]


def delete_learned_in_networks() -> str:
    """Write the line that deletes what was learned of all networks."""
    return f"flow delete cookie={_LEARNED_IN_NETWORK:#x}/{0xFF << 56:#x}"


def goto(table: int) -> str:
    """Write the action that continues in another table."""
    return f"resubmit(,{table})"


def in_network(vni: int) -> str:
    """Write the match for packets of a network."""
    return f"{VNI_MATCH}={vni:#x}"


def set_network(vni: int) -> str:
    """Write the action that makes a packet one of a network."""
    return f"load:{vni:#x}->{VNI}"


def to_overlay(patch: int) -> str:
    """Write the actions that send a packet to the overlay bridge, with the slot of the port that it is from.

    They are the last ones: what another port got after them would have a mark.
    """
    return f"move:{SLOT}->{MARK},output:{patch}"


def as_number(address: str) -> str:
    """Write a MAC or IPv4 address as one hexadecimal number, as `load` wants it."""
    if ":" in address:
        return "0x" + address.replace(":", "")
    return "0x" + "".join(f"{int(part):02x}" for part in address.split("."))
