"""The OpenFlow pipeline: which tables a packet visits, on which bridge.

    VNET bridge (vnet_bridge.py)
                                      +--> back to the guest: ARP and ping of the gateway
                                      |    +--> patch port: other IP for the gateway
                                      |    |
    guest -------> 0 PORT_SECURITY -> 10 GATEWAY -> 20 SWITCH -> guests of this bridge, patch port
    patch port --> 0 PORT_SECURITY -----------------^

    Overlay bridge (overlay_bridge.py)
    patch port --> 0 CLASSIFY -> 20 FROM_GUEST -> 40 OUTWARD -> 41 DESTINATION -> 45 TO_NODE -> aws_gw
                                      |                              |   |                ^
                                      |                              |   +-> 42 ANSWER ---+   (connection tracking)
                                      |                              +-> 43 HAIRPIN -> 12 INWARD
                                      +--> 30 LEARNED --> the tunnel or patch port of a known MAC
                                      |         |
                                      +---------+--> 31 FLOOD -> tunnels, and 32 LOCAL
    tunnel ------> 0 CLASSIFY -> 32 LOCAL -> patch ports of the VNI
    aws_gw ------> 0 CLASSIFY -> 10 ARRIVAL -> 12 INWARD -> 15 DELIVER -> patch port; ICMP errors: aws_icmp
                                                 |  ^
                                              11 SHARED (connection tracking)
    aws_icmp ----> 0 CLASSIFY -> patch port

A packet with an address that has no flow in INWARD visits SHARED, which sends it to INWARD again with the address that
connection tracking knows. A table without a matching flow drops.
"""

from __future__ import annotations

from enum import IntEnum


class VnetTable(IntEnum):
    """The tables of a VNET bridge, in the order in which a packet visits them."""

    PORT_SECURITY = 0
    GATEWAY = 10
    SWITCH = 20


class OverlayTable(IntEnum):
    """The tables of the overlay bridge: first on the way from a guest, then on the way from the node's kernel."""

    CLASSIFY = 0
    FROM_GUEST = 20
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

NODE_MAC = "02:a5:0e:00:00:02"
"""The MAC of the internal port aws_gw, the kernel's end; it is seen on this node only."""

MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"
