"""The OpenFlow pipeline: which tables a packet visits, on which bridge.

    VNET bridge (vnet_bridge.py)
    guest -------> 0 PORT_SECURITY -> 5 GUARD -> 6 OUTBOUND ==> 10 GATEWAY --> back to the guest: ARP and ping of the gateway
                       |                ^                           |  +------> patch port: other IP for the gateway
                       +-> 3 SOURCE -> 4 LIMIT                      v
    patch port --> 0 PORT_SECURITY -----------------------------> 20 SWITCH ==> guests of this bridge, patch port
                                                                    +-> 25 LEARNED, then 26 DELIVER ==> the same, for other MACs

    On the ways with ==>, for a NIC whose security groups do not accept everything (groups.py):
    6 OUTBOUND, 30 INBOUND -> 31 DIRECTION -> 32 IN_RULES, 33 OUT_RULES -> 35 ACCEPTED -> 36 COMMITTED

    Overlay bridge (overlay_bridge.py)
    patch port --> 0 CLASSIFY -> 20 FROM_GUEST -> 40 OUTWARD -> 41 DESTINATION -> 45 TO_NODE -> aws_gw
                                      |                              |   |                ^
                                      |                              |   +-> 42 ANSWER ---+   (connection tracking)
                                      |                              +-> 43 HAIRPIN -> 12 INWARD
                                      +--> 30 LEARNED --> the tunnel or patch port of a known MAC
                                      |         |
                                      |         +--> 31 FLOOD -> tunnels, and 32 LOCAL
    tunnel ------> 0 CLASSIFY -> 22 FROM_TUNNEL -> 32 LOCAL -> patch ports of the VNI
    aws_gw ------> 0 CLASSIFY -> 10 ARRIVAL -> 12 INWARD -> 15 DELIVER -> patch port; ICMP errors: aws_icmp
                                                 |  ^
                                              11 SHARED (connection tracking)
    aws_icmp ----> 0 CLASSIFY -> patch port

SOURCE and LIMIT are for NICs that may send from other MACs than their own; a NIC that may send any Ethernet skips GUARD.
Connection tracking comes between OUTBOUND or INBOUND and DIRECTION; what it does not track visits 34 ANSWERS instead.

A packet with an address that has no flow in INWARD visits SHARED, which sends it to INWARD again with the address that
connection tracking knows. A table without a matching flow drops.
"""

from __future__ import annotations

from enum import IntEnum


class VnetTable(IntEnum):
    """The tables of a VNET bridge, in the order in which a packet visits them."""

    PORT_SECURITY = 0
    SOURCE = 3
    LIMIT = 4
    GUARD = 5
    OUTBOUND = 6
    GATEWAY = 10
    SWITCH = 20
    LEARNED = 25
    DELIVER = 26
    INBOUND = 30
    DIRECTION = 31
    IN_RULES = 32
    OUT_RULES = 33
    ANSWERS = 34
    ACCEPTED = 35
    COMMITTED = 36


class OverlayTable(IntEnum):
    """The tables of the overlay bridge: first on the way from a guest, then on the way from the node's kernel."""

    CLASSIFY = 0
    FROM_GUEST = 20
    FROM_TUNNEL = 22
    LEARNED = 30
    FLOOD = 31
    LOCAL = 32
    OUTWARD = 40
    DESTINATION = 41
    ANSWER = 42
    HAIRPIN = 43
    TO_NODE = 45
    ARRIVAL = 10
    INWARD = 12
    SHARED = 11
    DELIVER = 15


# The registers that a packet carries from table to table, as actions name them and as a match does. Ports have 16 bits.
OUTPUT_PORT, OUTPUT_PORT_BITS = "NXM_NX_REG0[]", "NXM_NX_REG0[0..15]"
VNI, VNI_MATCH = "NXM_NX_REG1[]", "reg1"
WAS_LEARNED, WAS_LEARNED_MATCH = "NXM_NX_REG2[0]", "reg2=0x1/0x1"
TO_GUEST = "NXM_NX_REG2[1..2]"
TURNED_BACK = "NXM_NX_REG2[2]"
FROM_GUEST_MATCH, TO_GUEST_MATCH = "reg2=0x0/0x2", "reg2=0x2/0x2"
"""Whether security groups decide on a packet on its way to a guest; else it comes from one."""
ZONE, KIND = "NXM_NX_REG4[0..15]", "NXM_NX_REG4[16..18]"
"""The zone of connection tracking of the NIC whose security groups decide, and by what they do: see groups.py."""

SLOT, SLOT_MATCH = "NXM_NX_REG3[]", "reg3"
"""The number of the guest port that sent a packet. Registers are empty behind a patch port, the mark is not."""
MARK = "NXM_NX_PKT_MARK[]"

NODE_MAC = "02:a5:0e:00:00:02"
"""The MAC of the internal port aws_gw, the kernel's end; it is seen on this node only."""

MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"
"""A bit that the MAC of a group has, and that of a sender never."""

RARP = "dl_type=0x8035"
"""How hypervisors announce a VM that has moved, and nodes their NICs."""

LEARNED_S = 300
"""Seconds after which a bridge forgets where a MAC is that it has learned, as Linux bridges do."""

MOST_LEARNED = 4096
"""MACs that a bridge learns of one network: a flood of them must not fill the memory."""
