"""The MTU of guests: the one rule, for the node and the front-end."""

from __future__ import annotations

from .addresses import number

VXLAN_OVERHEAD = 50
"""Bytes that a tunnel adds to a guest's IP packet: its Ethernet header (14), VXLAN (8), UDP (8) and IPv4 (20)."""

LEAST = 576
"""Every IPv4 host must accept packets of this length (RFC 791), and many send them without asking for the MTU."""
GREATEST = 65535
"""The length of an IPv4 packet has 16 bits."""
VPC = 9001
"""The greatest MTU inside a VPC, which the network MTU documentation of EC2 gives."""


def parse(text: str, what: str) -> int:
    """Read an MTU of guests, which must be within the bounds."""
    return number(text, what, LEAST, GREATEST)


def for_guests(link: int, internet: int, leaves: bool) -> int:
    """Compute the largest MTU that a guest may use.

    Args:
        link: MTU of the ENI or, where no node is known, VPC.
        internet: MTU at the Internet gateway.
        leaves: the network has a gateway, so that packets can leave to the Internet.
    """
    return (min(link, internet) if leaves else link) - VXLAN_OVERHEAD
