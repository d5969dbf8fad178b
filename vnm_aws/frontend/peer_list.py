"""Compose the list that every host gets: its peers, and which addresses of the VPC are whose."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import files
from ..addresses import ip_to_int, ipv4
from ..errors import AwsOvsError
from ..names import FILTER_IP, FILTER_MAC, INSTANCE_ID, PRIVATE_IP, RAW_ETHERNET, VPC_ACCESS, VTEP
from ..overlay import tunnels
from ..overlay.grants import grant
from ..overlay.tunnels import Eni, Peer, PeerList
from ..reach import dns_servers, vpc_access
from .ec2_objects import Interface
from .objects import Host
from .plan import Problem
from .world import World


def hosts(world: World) -> list[Host]:
    """List the hosts of the mesh: those of the served clusters that have a VXLAN endpoint and whose instance lives."""
    members, _ = _sorted_out(world)
    return members


def refusals(world: World) -> list[Problem]:
    """Say which hosts would be of the mesh, but for their endpoints."""
    _, problems = _sorted_out(world)
    return problems


def _sorted_out(world: World) -> tuple[list[Host], list[Problem]]:
    """Part the hosts of the mesh from those with an endpoint that no host would accept, or that is another's already."""
    members: dict[str, list[Host]] = {}
    problems = []
    for host in sorted(world.hosts, key=lambda host: host.host_id):
        vtep = host.template.get(VTEP, "")
        if host.cluster_id not in world.served or not vtep or host.terminated:
            continue
        try:
            members.setdefault(ipv4(vtep, VTEP), []).append(host)
        except AwsOvsError as error:
            remedy = f"correct it with 'onehost update {host.host_id}'; meanwhile the host is not in the mesh"
            problems.append(Problem(f"host {host.name}", error.what, remedy))
    for vtep, same in members.items():
        if len(same) > 1:
            names = " ".join(host.name for host in same)
            what = f"have the same VXLAN endpoint {vtep}"
            problems.append(Problem(f"hosts {names}", what, "delete the host that is no more"))
    return [same[0] for same in members.values()], problems


def _peers(world: World) -> list[Peer]:
    return sorted((Peer(host.name, host.template[VTEP]) for host in hosts(world)), key=lambda peer: peer.name)


def present(world: World) -> tuple[PeerList, AwsOvsError | None]:
    """Compose the list that hosts should have; while EC2 cannot be read, of what it said last, with the reason."""
    try:
        return _compose(world), None
    except AwsOvsError as error:
        return remembered(world), error


def _compose(world: World) -> PeerList:
    """Compose the list of both worlds.

    Raises:
        AwsOvsError: EC2 cannot be read, or shows nothing of the hosts, which a wrong filter or Region brings about.
    """
    instances = {host.template.get(INSTANCE_ID) for host in hosts(world)} - {None}
    if instances and not world.vpc_cidrs:
        what = f"EC2 shows no VPC of the hosts, nor an instance that matches {world.settings.host_filter}"
        raise AwsOvsError(what, "correct region, vpc_id or host_filter in the settings")
    peers = _peers(world)
    own = [eni for eni in world.interfaces.values() if eni.instance_id in instances]
    nodes = {address for eni in own for address in (eni.primary, eni.public_ip) if address}
    endpoints = {peer.vtep for peer in peers}
    private_ips = {address for address in _of_vms(world) if _may_be_of_vms(world, address)}
    return PeerList(
        peers,
        tuple(sorted(world.vpc_cidrs)),
        _sorted(nodes - endpoints),
        _sorted(private_ips - nodes - endpoints),
        _grants(world),
    )


def _grants(world: World) -> tuple[str, ...]:
    """List what networks let their NICs do: the values of single attributes, which only administrators write."""
    lines: set[str] = set()
    for network in world.networks:
        for values in (network.template, *(item.attributes for item in network.ranges)) if network.ours else ():
            lines.update(grant(network.network_id, attribute, value) for attribute, value in _granted(values))
    return tuple(sorted(lines))


def _granted(values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Read the attributes of a network or range as nodes read those of a NIC; what is not valid grants nothing."""
    for attribute in (PRIVATE_IP, "GATEWAY"):
        with contextlib.suppress(AwsOvsError):
            yield attribute, ipv4(values.get(attribute, ""), attribute)
    with contextlib.suppress(AwsOvsError):
        yield from ((VPC_ACCESS, prefix) for prefix in vpc_access(values.get(VPC_ACCESS, ""), VPC_ACCESS))
    yield from (("DNS", server) for server in dns_servers(values.get("DNS", "")))
    for attribute, word in ((RAW_ETHERNET, "YES"), (FILTER_MAC, "NO"), (FILTER_IP, "NO")):
        if values.get(attribute, "").strip().upper() == word:
            yield attribute, word


def _sorted(addresses: set[str]) -> tuple[str, ...]:
    return tuple(sorted(addresses, key=ip_to_int))


def _of_ranges(world: World) -> Iterator[str]:
    """List AWS_PRIVATE_IP of all address ranges; a host would refuse the whole list for a text that is no address."""
    for network in world.networks:
        for private_ip, _ in network.gives() if network.ours else ():
            try:
                yield ipv4(private_ip, PRIVATE_IP)
            except AwsOvsError:
                continue  # `oneaws vnet check` names it


def _of_vms(world: World) -> Iterator[str]:
    """List the addresses that VMs may have: those of ranges, and those that stand for one of them on a host."""
    yield from _of_ranges(world)
    yield from world.stands_for


def _may_be_of_vms(world: World, address: str) -> bool:
    """Say whether a VM may have a private address: it is free, or a secondary one of a host."""
    eni = world.eni_of_address.get(address)
    return eni is None or (eni.eni_id in world.host_of_eni and eni.primary != address)


def remembered(world: World) -> PeerList:
    """Compose the list without EC2: of its part, the last list that was sent tells."""
    peers, private_ips = _peers(world), {*_of_vms(world)}
    try:
        last = tunnels.load(_path(world))
    except (AwsOvsError, OSError):
        last = PeerList([])
    known = private_ips & {*last.private_ips} if last.peers else private_ips - {peer.vtep for peer in peers}
    return PeerList(peers, last.vpc_cidrs, last.node_addresses, _sorted(known), _grants(world))


def of_host(world: World, peer_list: PeerList, host: Host, enis: Sequence[Interface] = ()) -> PeerList:
    """Complete a list by what is told only one host: its further ENIs; while EC2 cannot be read, those that it was told last.

    Args:
        world: both worlds.
        peer_list: what every host is told.
        host: the one.
        enis: its ENIs as they will be, if EC2 does not show that yet.
    """
    if len(host.eni_ids) < 2:
        return peer_list
    try:
        further = (enis or world.enis(host))[1:]
        told = [Eni(eni.mac, eni.primary, world.subnets[eni.subnet_id].cidr, eni.addresses[1:]) for eni in further]
    except (AwsOvsError, KeyError):
        told = [Eni(*entry) for entry in _further_enis(world).get(str(host.host_id), [])]
    return peer_list._replace(enis=tuple(eni._replace(addresses=_sorted({*eni.addresses})) for eni in told))


def _further_enis(world: World) -> dict[str, Any]:
    """Read which further ENIs hosts were told last."""
    try:
        with open(f"{world.settings.state_directory}/enis.json", encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}


def document(peer_list: PeerList) -> str:
    """Write a list as a host reads it."""
    values = {**peer_list._asdict(), "peers": [peer._asdict() for peer in peer_list.peers]}
    enis = [eni._asdict() for eni in values.pop("enis")]
    return json.dumps(values | ({"enis": enis} if enis else {}))


def remember(world: World, peer_list: PeerList, sent: Mapping[int, PeerList]) -> None:
    """Keep a list that is sent, and what only certain hosts, by their IDs, were told with it."""
    files.replace(_path(world), document(peer_list))
    further = {str(host_id): list(each.enis) for host_id, each in sent.items() if each.enis}
    if further:
        files.replace(f"{world.settings.state_directory}/enis.json", json.dumps(_further_enis(world) | further))


def _path(world: World) -> str:
    return f"{world.settings.state_directory}/peers.json"
