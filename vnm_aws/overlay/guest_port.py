"""The desired state of one guest port: what a NIC and its aliases mean on the node where the VM runs.

Every address of a guest that may leave through the gateway gets one *node-side* address, which it is exchanged for
without any connection state: the NIC's AWS_PRIVATE_IP or, when it has none, a transit address of this node, which the
node's kernel hides behind its own address. A private address that several NICs share by ports, or that is a second
one for the same guest address, is mapped onto the node-side address with connection state.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

from ..addresses import Prefix, int_to_ip
from ..errors import AwsOvsError
from ..names import NIC_ZONES
from ..rules import Rule
from ..vm import LeavingAlias, Nic, PortRange


class Claim(NamedTuple):
    """What only one guest port of a node may have; its text in external_ids is the node's index of who has what.

    It is a MAC or IP address within a VNI (as text `100/192.168.0.10`), an address of the node side (`10.0.0.41`), or
    some ports of one, by the first and the last (`10.0.0.41:9001-9010`).
    """

    address: str
    vni: int | None = None
    ports: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> Claim:
        """Read a claim; a text of an unknown form, as of a later version, is a claim on just that text."""
        network, slash, address = text.partition("/")
        if slash and network.isdecimal():
            return cls(address, vni=int(network))
        address, _, span = text.partition(":")
        first, _, last = span.partition("-")
        if first.isdecimal() and last.isdecimal():
            return cls(address, ports=(int(first), int(last)))
        return cls(text)

    def __str__(self) -> str:
        if self.vni is not None:
            return f"{self.vni}/{self.address}"
        return f"{self.address}:{self.ports[0]}-{self.ports[1]}" if self.ports else self.address

    def conflicts_with(self, other: Claim) -> bool:
        """Tell whether two VMs must not have both: the same address, and a port that is in both."""
        if self[:2] != other[:2]:
            return False
        if self.ports is None or other.ports is None:
            return True
        return self.ports[0] <= other.ports[1] and other.ports[0] <= self.ports[1]


class Mapping(NamedTuple):
    """Guest address `inside` is `outside` between the bridge and the node's kernel, both ways, without state."""

    inside: str
    outside: str


class SharedAddress(NamedTuple):
    """Private address `private_ip` leads to node-side address `outside` with state; only its `ports`, or all."""

    private_ip: str
    outside: str
    ports: PortRange | None

    @property
    def claim(self) -> Claim:
        """Claim the private address, or those ports of it that lead to the guest."""
        span = (self.ports.external, self.ports.external + self.ports.size - 1) if self.ports else None
        return Claim(self.private_ip, ports=span)


class Member(NamedTuple):
    """What switching needs to know of each guest port of a network; its text is in external_ids.

    Attributes:
        mac: of the NIC; a port that an older version has marked has none.
        any_mac: it may send from other MACs, too.
        gateways: addresses that the guest takes for its gateway's.
        zone: of connection tracking, when security groups decide what it gets; else 0.
        number: the port's number on its bridge.
    """

    mac: str
    any_mac: bool
    gateways: tuple[str, ...]
    zone: int = 0
    number: int = 0

    @classmethod
    def parse(cls, text: str, number: int) -> Member:
        """Read such a text."""
        mac, _, more = text.partition(" ")
        words = more.split()
        zone = next((word.removeprefix(_ZONE) for word in words if word.startswith(_ZONE)), "0")
        gateways = tuple(word for word in words if word != _ANY_MAC and not word.startswith(_ZONE))
        return cls(mac, _ANY_MAC in words, gateways, int(zone) if zone.isdecimal() else 0, number)

    def __str__(self) -> str:
        zone = [f"{_ZONE}{self.zone}"] if self.zone else []
        return " ".join([self.mac, *self.gateways, *([_ANY_MAC] if self.any_mac else []), *zone])


_ANY_MAC, _ZONE = "any-mac", "zone="


class GuestPort(NamedTuple):
    """One NIC on this node; all that the flows are made of but the port numbers."""

    vm_id: int
    nic_id: int
    name: str
    bridge: str
    vni: int
    mac: str
    addresses: tuple[str, ...]
    ip6: tuple[str, ...]
    gateways: tuple[str, ...]
    filter_mac: bool
    filter_ip: bool
    mappings: tuple[Mapping, ...]
    shared: tuple[SharedAddress, ...]
    network_id: int = -1
    raw_ethernet: bool = False
    vpc_access: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    alias_networks: tuple[int, ...] = ()
    withheld: tuple[Mapping, ...] = ()
    """Mappings that are not in force, see `grants`; their addresses are taken all the same."""
    slot: int = 0
    """A number that no other guest port of the node has; 0 in files of versions that gave none."""
    floats: bool = False
    """Whether it has no address because OpenNebula gives it none, though its network has some."""
    rules: tuple[Rule, ...] | None = None
    """Of its security groups; None without groups, and in files of versions that knew none."""
    groups: tuple[int, ...] | None = None
    """The IDs of its security groups; None in files of versions that knew none."""
    further_claims: tuple[str, ...] = ()
    """Claims on what others stand for on this node, see `stand_ins`; none in a file."""
    picks_up_until: int = 0
    """Until when, in seconds since the node's boot, it picks up connections that connection tracking does not know."""

    @property
    def zone(self) -> int:
        """Tell its zone of connection tracking; 0 when its groups accept everything, or it has none."""
        if self.rules is None or all(
            any(rule.is_open and rule.inbound is way for rule in self.rules) for way in (True, False)
        ):
            return 0
        return NIC_ZONES + self.slot

    @property
    def claims(self) -> list[Claim]:
        """List the claims: MAC and addresses in the VNI, private addresses and ports."""
        own = [Claim(address, self.vni) for address in (self.mac, *self.addresses, *self.ip6)]
        return [
            *own,
            *(Claim(mapping.outside) for mapping in (*self.mappings, *self.withheld)),
            *(shared.claim for shared in self.shared),
            *map(Claim.parse, self.further_claims),
        ]

    def private_addresses(self, transit: Prefix) -> list[str]:
        """List the addresses of the VPC that lead to the guest; the node-side addresses in `transit` are none."""
        outside = [mapping.outside for mapping in self.mappings] + [shared.private_ip for shared in self.shared]
        return [address for address in outside if address not in transit]

    @property
    def member(self) -> Member:
        """Say what the other ports of the network must know."""
        return Member(self.mac, not self.filter_mac, self.gateways, self.zone)


def plan(vm_id: int, nic: Nic, vni: int, transit: Prefix, kept: dict[str, str], used: set[str]) -> GuestPort:
    """Plan the guest port that a NIC asks for; `nic` has those aliases that are to be in force.

    Args:
        transit: where transit addresses come from.
        kept: node-side addresses that the port has already, by guest address; transit ones are used again, so that a
            second run changes nothing, and connections outlive the end of another alias.
        used: transit addresses of other ports; the ones that this port gets are added.

    Raises:
        AwsOvsError: no transit address is left.
    """
    insides = [nic.ip, *(nic.ip if alias.external else alias.ip for alias in nic.aliases)]
    own = dict.fromkeys(filter(None, [nic.ip, *(alias.ip for alias in nic.aliases if not alias.external)]))
    wishes = [
        (private_ip, inside, ports)
        for (private_ip, ports), inside in zip(nic.private_addresses(), insides, strict=True)
        if private_ip and inside
    ]
    outside: dict[str, str] = {}
    for private_ip, inside, ports in wishes:
        if ports is None:
            outside.setdefault(inside, private_ip)
    leaving = own if nic.gateways else {inside for _, inside, _ in wishes}
    outside |= _transit_addresses([ip for ip in own if ip in leaving and ip not in outside], transit, kept, used)
    shared = tuple(SharedAddress(ip, outside[inside], ports) for ip, inside, ports in wishes if outside[inside] != ip)
    mappings = tuple(Mapping(inside, address) for inside, address in outside.items())
    ip6 = tuple(dict.fromkeys((*nic.ip6, *(address for alias in nic.aliases for address in alias.ip6))))
    return GuestPort(
        vm_id, nic.nic_id, nic.target, nic.bridge, vni, nic.mac, tuple(own), ip6, nic.gateways,
        nic.filter_mac, nic.filter_ip, mappings, shared, network_id=nic.network_id, raw_ethernet=nic.raw_ethernet,
        vpc_access=nic.vpc_access, dns=nic.dns, alias_networks=tuple(alias.network_id for alias in nic.aliases),
        floats=nic.floats, groups=nic.groups, rules=nic.rules,
    )  # fmt: skip


def without(port: GuestPort, alias: LeavingAlias, transit: Prefix, used: set[str]) -> GuestPort:
    """Derive the port of a NIC that loses an alias, of what the port has.

    Args:
        port: the port as it is.
        alias: the alias.
        transit: where transit addresses come from.
        used: transit addresses in use; the ones that this port gets are added.
    """
    address, private_ip = alias.ip, alias.private_ip
    networks = [str(network_id) for network_id in port.alias_networks]
    if alias.network_id in networks:
        networks.remove(alias.network_id)
    outside = {inside: node_side for inside, node_side in port.mappings if inside != address}
    gone = {node_side for inside, node_side in port.mappings if inside == address}
    shared = [one for one in port.shared if one.private_ip != private_ip and one.outside not in gone]
    for inside in [inside for inside, node_side in outside.items() if node_side == private_ip]:
        del outside[inside]
        if port.gateways or any(one.outside == private_ip for one in shared):
            outside |= _transit_addresses([inside], transit, {}, used)
            shared = [one._replace(outside=outside[inside]) if one.outside == private_ip else one for one in shared]
    return port._replace(
        addresses=tuple(one for one in port.addresses if one != address),
        ip6=tuple(one for one in port.ip6 if one not in alias.ip6),
        mappings=tuple(Mapping(inside, node_side) for inside, node_side in outside.items()),
        shared=tuple(shared),
        alias_networks=tuple(map(int, networks)),
    )


def choose_slot(kept: int, used: set[int]) -> int:
    """Choose a number for a port, and add it to `used`: the one that it has if nobody else has it, else the least."""
    slot = kept if kept and kept not in used else next(number for number in count(1) if number not in used)
    used.add(slot)
    return slot


def _transit_addresses(insides: list[str], transit: Prefix, kept: dict[str, str], used: set[str]) -> dict[str, str]:
    """Choose a transit address for each guest address, the one that it has if possible; the arguments are `plan`'s."""
    again = {ip: kept[ip] for ip in insides if ip in kept and kept[ip] in transit and kept[ip] not in used}
    used.update(again.values())
    for ip in insides:
        again[ip] = again.get(ip) or _free(transit, used)
        used.add(again[ip])
    return {ip: again[ip] for ip in insides}


def _free(transit: Prefix, used: set[str]) -> str:
    for value in range(transit.first + 1, transit.first + transit.size - 1):
        if int_to_ip(value) not in used:
            return int_to_ip(value)
    what = f"transit_range {transit} has no free address"
    raise AwsOvsError(what, "enlarge it in aws_ovs.yaml and run 'onehost sync -f'")
