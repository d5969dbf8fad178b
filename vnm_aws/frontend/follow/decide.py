"""Decide which moves bring the addresses of VMs to their host. Nothing is read or changed here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ...addresses import is_ipv4, shown
from ...errors import AwsOvsError
from ...names import EIP_HOST, EIP_STATUS, ENI_ID, ERROR, FREE_ADDRESSES, INSTANCE_TYPE, PRIVATE_IP, VTEP
from ...table import printable
from ..ec2_errors import Ec2Error
from ..ec2_objects import ElasticIp, Interface, Subnet, enis_of
from ..objects import Address, AwsVm, Host
from ..room import Places
from ..world import Given

_PREFIX = "aws_ovs: "
_DOTTED = re.compile(r"[0-9.]{1,20}\Z")


class Seen(NamedTuple):
    """What both worlds show.

    Attributes:
        given: what networks give to NICs.
        interfaces: ENIs by id, those of the host among them.
        eni_of_address: which of them has each private address.
        elastic_ips: by allocation id.
        host_of_eni: the hosts of live instances by their ENI; empty when nothing in EC2 is to be changed.
        subnets: by id; empty when no address is to be moved.
        limit: how many addresses each ENI of the host can have; 0 when that is not known.
        spare: the addresses that may leave them to make room, by ENI.
        refuges: the ENIs of other hosts where those may go, with their room.
    """

    given: Collection[Given]
    interfaces: Mapping[str, Interface]
    eni_of_address: Mapping[str, Interface]
    elastic_ips: Mapping[str, ElasticIp]
    host_of_eni: Mapping[str, Host]
    subnets: Mapping[str, Subnet]
    limit: int
    spare: Mapping[str, Sequence[str]] = MappingProxyType({})
    refuges: Mapping[str, int] = MappingProxyType({})


class Leave(NamedTuple):
    """Move a private address that no VM of the host has from its ENI to another, to make room; an empty `refuge` is no ENI."""

    vm_id: int
    address: str
    eni_id: str
    refuge: str


class Assign(NamedTuple):
    """Put a private address of a VM on an ENI, from where it is; an empty `source` is no ENI."""

    vm_id: int
    address: str
    source: str
    eni_id: str


class Associate(NamedTuple):
    """Let an Elastic IP of a VM lead to a private address on an ENI."""

    vm_id: int
    allocation_id: str
    public_ip: str
    private_ip: str
    eni_id: str


class Tell(NamedTuple):
    """Set attributes of a VM."""

    vm_id: int
    values: dict[str, str]


class Decision(NamedTuple):
    """The moves in their order, and why VMs cannot have all their addresses, by VM."""

    moves: list[Leave | Assign | Associate | Tell]
    refusals: dict[int, AwsOvsError]


class PlacedError(AwsOvsError):
    """An Elastic IP cannot lead to its private address, or one address is of no use, but the private addresses are on the host.

    Attributes:
        host: where they are.
    """

    def __init__(self, error: AwsOvsError, host: Host, addresses: str = "the private addresses") -> None:
        super().__init__(error.what, f"{error.remedy}; {addresses} are on {host.name}")
        self.host = host


def decide(vms: Iterable[AwsVm], host: Host, seen: Seen) -> Decision:
    """Decide what brings the addresses of VMs to the host where they run.

    The room on the ENIs goes to those that are first. A VM whose private addresses cannot come has no moves; one whose
    Elastic IP cannot lead to them has those before it.
    """
    decision = Decision([], {})
    enis = enis_of(host.eni_ids, seen.interfaces)
    places = Places(enis, seen.limit, seen.spare, seen.refuges)
    at = {address: eni.eni_id for eni in enis for address in eni.addresses}
    for vm in vms:
        try:
            if not enis:
                what = f"EC2 does not show {eni_of(host)}, the ENI of host {host.name}"
                raise AwsOvsError(what, f"run 'oneaws host sync', or correct it with 'onehost update {host.host_id}'")
            vm, wrong = _sound(vm, enis[0], seen)
            absent = missing(vm, host, enis)
            _check_room(host, places, [address for address in absent if address not in at])
            _check(host, enis[0], absent, seen)
            decision.moves.extend(_bring(vm, absent, places, at, seen))
            for address in to_associate(vm, seen.elastic_ips):
                eip = _associable(address, host, seen)
                there = at[address.private_ip]
                decision.moves.append(Associate(vm.vm_id, eip.allocation_id, eip.public_ip, address.private_ip, there))
            if wrong:
                raise PlacedError(wrong, host, "its other private addresses") if vm.addresses else wrong
        except AwsOvsError as error:
            decision.refusals[vm.vm_id] = error
        else:
            if differs(vm, success(vm, host)):
                decision.moves.append(Tell(vm.vm_id, success(vm, host)))
    return decision


def _bring(vm: AwsVm, absent: list[str], places: Places, at: dict[str, str], seen: Seen) -> Iterator[Leave | Assign]:
    """Give addresses of a VM a place on an ENI of its host; `at` says which of them each address is on, or will be."""
    for address in absent:
        if address not in at:
            at[address], leaves = places.take()
            if leaves:
                yield Leave(vm.vm_id, leaves, at.pop(leaves), places.refuge())
        holder = seen.eni_of_address.get(address)
        yield Assign(vm.vm_id, address, holder.eni_id if holder else "", at[address])


def _sound(vm: AwsVm, eni: Interface, seen: Seen) -> tuple[AwsVm, AwsOvsError | None]:
    """Leave out the addresses that a VM cannot have wherever it runs; the VM, and why it cannot have one of them."""
    wrong = {address: error for address in vm.addresses if (error := _flaw(address, eni, seen))}
    kept = tuple(address for address in vm.addresses if address not in wrong)
    return vm._replace(addresses=kept), next(iter(wrong.values()), None)


def _flaw(address: Address, eni: Interface, seen: Seen) -> AwsOvsError | None:
    """Say why a VM cannot have an address.

    oned lets the owner of a network hide attributes within another (`MTU = [ AWS_PRIVATE_IP = … ]`), and NICs get them.
    """
    network_id, again = address.network_id, "detach the NIC, and attach it again to get what the range has"
    private_ip = address.leased if _DOTTED.match(address.leased) else shown(address.leased)
    if (network_id, address.leased, address.elastic_ip) not in seen.given:
        what = f"{private_ip} is not what an address range of network {network_id} gives now"
        if (network_id, address.leased, "") in seen.given:
            what = f"{shown(address.elastic_ip)} is not the Elastic IP that network {network_id} gives now"
        return AwsOvsError(what, again)
    if address.dead_end:
        what = f"{private_ip} {address.dead_end}"
        return AwsOvsError(what, "give that network a GATEWAY and attach the NIC again, or detach the alias")
    if not is_ipv4(address.private_ip):
        subnet = seen.subnets.get(eni.subnet_id)
        what = f"{private_ip} is not in {subnet.cidr if subnet else 'any subnet'}, for it is no IPv4 address"
        where = f"'onevnet updatear {network_id} {address.ar_id}'" if address.ar_id >= 0 else "the address range"
        remedy = f"correct {PRIVATE_IP} of network {network_id} with {where}; then {again}"
        return AwsOvsError(what, remedy)
    return None


def find(address: Address, elastic_ips: Mapping[str, ElasticIp]) -> ElasticIp | None:
    """Find the Elastic IP of an address: by its allocation, or for want of one by the public address."""
    if address.allocation_id or not address.external_ip:
        return elastic_ips.get(address.allocation_id)
    return next((eip for eip in elastic_ips.values() if eip.public_ip == address.external_ip), None)


def eni_of(host: Host) -> str:
    """Name the ENI of a host.

    Raises:
        AwsOvsError: OpenNebula does not know it.
    """
    eni_id = host.eni_id
    if not eni_id:
        what = f"host {host.name} has no {ENI_ID}"
        raise AwsOvsError(what, "tag its instance so that host_filter matches, and run 'oneaws host sync'")
    return eni_id


def missing(vm: AwsVm, host: Host, enis: Iterable[Interface]) -> list[str]:
    """List the private addresses of a VM that are not known to be on an ENI of its host.

    A VM that came back before EC2 shows where its addresses went would find them here. So what EC2 shows counts only for
    one that was brought here last, or never anywhere. An earlier version set the status alone, and a failure leaves
    open where they are: then they are assigned once more, which changes nothing where they are right.
    """
    last = vm.user_template.get(EIP_HOST, "")
    known = last == str(host.host_id) or not (last or vm.user_template.get(EIP_STATUS))
    there = {address for eni in enis if known for address in eni.addresses}
    return sorted({address.private_ip for address in vm.addresses} - there)


def to_associate(vm: AwsVm, elastic_ips: Mapping[str, ElasticIp]) -> list[Address]:
    """List the addresses of a VM to which their Elastic IPs do not lead."""
    addresses = {address.elastic_ip: address for address in vm.addresses if address.elastic_ip}
    eips = ((address, find(address, elastic_ips)) for address in addresses.values())
    return [address for address, eip in eips if eip is None or eip.private_ip != address.private_ip]


def _check_room(host: Host, places: Places, new: list[str]) -> None:
    """Refuse addresses that find no place on the ENIs of a host."""
    if len(new) > places.left():
        raise AwsOvsError(
            f"host {host.name} ({host.template.get(INSTANCE_TYPE)}) has {places} addresses, no room for {', '.join(new)}",
            f"migrate the VM, or let it require {FREE_ADDRESSES} > 0 in SCHED_REQUIREMENTS",
        )


def _check(host: Host, eni: Interface, absent: list[str], seen: Seen) -> None:
    """Refuse in time, and clearly, what EC2 would refuse."""
    subnet = seen.subnets.get(eni.subnet_id)
    outside = [address for address in absent if subnet is not None and not subnet.has(address)]
    if subnet is not None and outside:
        raise AwsOvsError(
            f"{', '.join(outside)} is not in {subnet.cidr}, the subnet of host {host.name}, and an address cannot leave its "
            "subnet",
            "migrate the VM to a host in the subnet of the address",
        )
    for address in absent:
        holder = seen.eni_of_address.get(address)
        if holder is not None and holder.primary == address:
            what = f"{address} is the primary address of {holder.eni_id} and never moves"
            raise AwsOvsError(what, "correct AWS_PRIVATE_IP of the network")
        if holder is not None and holder.eni_id not in seen.host_of_eni:
            what = f"{address} is on {holder.eni_id}, which is no OpenNebula host"
            raise AwsOvsError(what, "take it away there, or correct AWS_PRIVATE_IP")


def _associable(address: Address, host: Host, seen: Seen) -> ElasticIp:
    """Find the Elastic IP of an address, which must not be in use by what is no VM.

    Raises:
        PlacedError: it is, or there is no such Elastic IP.
    """
    eip = find(address, seen.elastic_ips)
    if eip is None:
        named = f" ({address.allocation_id})" if address.allocation_id else ""
        what = f"Elastic IP {address.external_ip}{named} is not in this account and Region"
        raise PlacedError(AwsOvsError(what, "detach it from the VM"), host)
    owner = seen.host_of_eni.get(eip.eni_id)
    if eip.eni_id and owner is None:
        what = f"Elastic IP {eip.public_ip} is associated with {eip.eni_id}, which is no OpenNebula host"
    elif owner is not None and owner.template.get(VTEP) == eip.private_ip:
        what = f"Elastic IP {eip.public_ip} is the public address of host {owner.name} itself"
    else:
        return eip
    raise PlacedError(AwsOvsError(what, "disassociate it there"), host)


def success(vm: AwsVm, host: Host) -> dict[str, str]:
    """Compose the attributes of a VM whose addresses are where they should be."""
    public = sorted({address.external_ip or address.private_ip for address in vm.addresses})
    stand_ins = sorted({address.private_ip for address in vm.addresses if address.stands_for})
    by = f" (by {' '.join(stand_ins)})" if stand_ins else ""
    status = printable(f"OK: {' '.join(public)} on {host.name}{by}")
    return {EIP_STATUS: status, EIP_HOST: str(host.host_id), **_no_error(vm)}


def _no_error(vm: AwsVm) -> dict[str, str]:
    """Compose what takes back an ERROR of ours; an attribute can be emptied without knowing the others, but not removed."""
    return {ERROR: ""} if vm.user_template.get(ERROR, "").startswith(_PREFIX) else {}


def failure(error: AwsOvsError) -> dict[str, str]:
    """Compose the attributes of a VM that cannot have its addresses; what concerns the account is no error of the VM."""
    if isinstance(error, Ec2Error) and error.spares_vms:
        return {
            EIP_STATUS: "WAITING: EC2 does not serve the front-end just now; addresses follow when it does",
            EIP_HOST: "",
        }
    host_id = str(error.host.host_id) if isinstance(error, PlacedError) else ""
    sentence = printable(str(error))
    return {EIP_STATUS: f"FAILED: {sentence}", EIP_HOST: host_id, ERROR: f"{_PREFIX}{sentence}"}


def waiting(vm: AwsVm, left: Mapping[str, AwsVm]) -> dict[str, str]:
    """Compose the attributes of a VM whose addresses are all shared, and with others now."""
    texts = [f"{address} is shared, VM {other.vm_id} on {other.host} has it" for address, other in sorted(left.items())]
    return {EIP_STATUS: printable(f"WAITING: {', '.join(texts)}"), EIP_HOST: "", **_no_error(vm)}


def nothing_left(vm: AwsVm) -> dict[str, str]:
    """Compose the attributes of a VM that has no address in AWS any more."""
    return {key: "" for key in (EIP_STATUS, EIP_HOST) if vm.user_template.get(key)} | _no_error(vm)


def differs(vm: AwsVm, values: dict[str, str]) -> bool:
    """Say whether a VM lacks one of these attributes."""
    return any(vm.user_template.get(key, "") != value for key, value in values.items())


def describe(decision: Decision, host: Host, seen: Seen) -> str:
    """Tell people the moves of a decision."""
    leaving: dict[tuple[str, str], set[str]] = defaultdict(set)
    ways: dict[tuple[str, str], set[str]] = defaultdict(set)
    associations: dict[str, str] = {}
    for move in decision.moves:
        if isinstance(move, Leave):
            leaving[move.eni_id, move.refuge].add(move.address)
        elif isinstance(move, Assign):
            ways[move.source, move.eni_id].add(move.address)
        elif isinstance(move, Associate):
            associations[move.public_ip] = move.private_ip
    parts = []
    for (eni_id, refuge), addresses in sorted(leaving.items()):
        to = f" to {_named(refuge, seen.host_of_eni.get(refuge))}" if refuge else ""
        parts.append(f"make room: take {', '.join(sorted(addresses))} from {_named(eni_id, host)}{to}")
    for (source, eni_id), addresses in sorted(ways.items()):
        text, there = ", ".join(sorted(addresses)), _named(eni_id, host)
        if source == eni_id:
            parts.append(f"assign {text} to {there} once more")
        else:
            origin = f" from {_named(source, seen.host_of_eni.get(source))}" if source else ""
            parts.append(f"move {text}{origin} to {there}")
    parts += [f"associate Elastic IP {public} with {private}" for public, private in sorted(associations.items())]
    return ", ".join(parts) or f"set {EIP_STATUS}"


def _named(eni_id: str, host: Host | None) -> str:
    return f"{host.name} ({eni_id})" if host else eni_id
