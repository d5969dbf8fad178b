"""Repairing ICMP errors, which quote the packet that they are about.

Addresses are exchanged without connection state, so the quoted packet must be changed like the packet was: the one in
an error *to* a VM was sent by the VM, so its source is the error's destination; the one in an error *from* a VM was
sent to the VM, so its destination is the error's source. One copy of four bytes does it, whichever VM it is. The
quoted IP header's checksum is corrected with it, and then the ICMP checksum still holds, because both changes cancel
out in its sum. Path MTU discovery depends on this. The nft command cannot say "correct the checksum at that offset",
the kernel can (NFTA_PAYLOAD_CSUM_OFFSET), so these rules go in over netlink.
"""

from __future__ import annotations

from ..errors import AwsOvsError
from .netlink import IPV4, NETDEV

INWARD_CHAIN = "repair_inward"
OUTWARD_CHAIN = "repair_outward"

_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_SOURCE, _DESTINATION, _CHECKSUM = 12, 16, 10
_QUOTED = 8
"""Offset of the quoted IP header behind the start of the ICMP header."""
_REGISTER = 1


def _copy(from_offset: int, to_offset: int) -> list[dict[str, int]]:
    """Copy four bytes of the IP header into the quoted one, and correct the quoted header's checksum."""
    load = {"dreg": _REGISTER, "base": _NETWORK_HEADER, "offset": from_offset, "len": 4}
    store = {
        "sreg": _REGISTER, "base": _TRANSPORT_HEADER, "offset": _QUOTED + to_offset, "len": 4,
        "csum_type": 1, "csum_offset": _QUOTED + _CHECKSUM,
    }  # fmt: skip
    return [load, store]


RULES = ((NETDEV, INWARD_CHAIN, _copy(_DESTINATION, _SOURCE)), (IPV4, OUTWARD_CHAIN, _copy(_SOURCE, _DESTINATION)))
"""Family, chain, and the fields of the rule's payload expressions."""


def ensure() -> None:
    """Fill both repair chains, which `nft.ruleset` has just created empty."""
    from pyroute2.netlink.exceptions import NetlinkError  # costs 170 ms: only when something is not right
    from pyroute2.nftables.expressions import genex
    from pyroute2.nftables.main import NFTables

    for family, chain, fields in RULES:
        rule = [genex("payload", expression) for expression in fields]
        try:
            with NFTables(nfgen_family=family) as nft:
                nft.rule("add", table="aws_ovs", chain=chain, expressions=(rule,))
        except NetlinkError as error:
            what = f"the kernel refused the nft rule of chain {chain} ({error})"
            raise AwsOvsError(what, "check its nf_tables support") from None
