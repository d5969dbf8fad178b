"""What networks let their NICs do, as the front-end tells it with the peer list.

Who may update a network, as the owner of a reservation may, can bring any attribute to its NICs: OpenNebula hands down all
values of a vector attribute, and restricts only single ones (VirtualNetwork::nic_attribute of 7.0 to 7.4). So what a NIC
may do more than any other is what its network grants, whatever the NIC says. A node that was told nothing believes the NIC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..addresses import Prefix
from ..errors import AwsOvsError
from ..names import FILTER_IP, FILTER_MAC, PEER_LIST, PEER_LIST_LIMIT, PRIVATE_IP, RAW_ETHERNET, VPC_ACCESS
from .guest_port import GuestPort, Mapping


def grant(network_id: int, attribute: str, value: str) -> str:
    """Write a grant as the peer list has it."""
    return f"{network_id} {attribute} {value}"


def stored() -> dict[str, Any]:
    """Read the stored peer list, which was checked before it was stored; the boot path has no time for more."""
    try:
        with open(PEER_LIST, encoding="utf-8") as file:
            told = json.loads(file.read(PEER_LIST_LIMIT))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


class Grants(NamedTuple):
    """Answer what a network grants; `lines` are those of the peer list, None when it has none."""

    lines: frozenset[str] | None

    @classmethod
    def of(cls, lines: Iterable[str] | None) -> Grants:
        """Take the lines as the peer list has them."""
        try:
            return cls(None if lines is None else frozenset(lines))
        except TypeError:  # somebody has written into the stored list
            return cls(None)

    def limit(self, port: GuestPort, transit: Prefix) -> GuestPort:
        """Take from a port what none of its networks grants; one of an older version does not know its network."""
        if self.lines is None or port.network_id < 0:
            return port
        networks = (port.network_id, *port.alias_networks)

        def granted(attribute: str, value: str) -> bool:
            return any(grant(network_id, attribute, value) in (self.lines or ()) for network_id in networks)

        has_lease = bool(port.addresses or port.ip6 or port.floats)  # one of an Ethernet range has none
        gateways = tuple(address for address in port.gateways if granted("GATEWAY", address))
        withheld: tuple[Mapping, ...] = ()
        if not gateways:
            tracked = {shared.outside for shared in port.shared}
            withheld = tuple(pair for pair in port.mappings if pair.outside in transit and pair.outside not in tracked)
        return port._replace(
            filter_mac=port.filter_mac or not granted(FILTER_MAC, "NO"),
            filter_ip=port.filter_ip or (has_lease and not granted(FILTER_IP, "NO")),
            raw_ethernet=port.raw_ethernet and granted(RAW_ETHERNET, "YES"),
            vpc_access=tuple(prefix for prefix in port.vpc_access if granted(VPC_ACCESS, prefix)),
            dns=tuple(server for server in port.dns if granted("DNS", server)),
            gateways=gateways,
            mappings=tuple(pair for pair in port.mappings if pair not in withheld),
            withheld=withheld,
        )

    def refuse_private_ip(self, network_id: int, address: str) -> None:
        """Refuse a private address that is another network's.

        Raises:
            AwsOvsError: only other networks grant it.
        """
        ending = f" {PRIVATE_IP} {address}"
        owners = sorted(int(line.split()[0]) for line in self.lines or () if line.endswith(ending))
        if owners and network_id >= 0 and network_id not in owners:
            what = f"{PRIVATE_IP} {address} is an address of network {owners[0]}, not of network {network_id}"
            raise AwsOvsError(what, f"give the VM a lease of network {owners[0]}: onevm nic-attach")
