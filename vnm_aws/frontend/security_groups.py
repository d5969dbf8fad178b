"""Look at AWS' own security groups of the hosts' ENIs: what the tunnels need, and what lets in more than them.

One set of groups serves the host and all VMs whose addresses are on its ENI. Which ports VMs need nobody knows here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..addresses import Prefix, is_ipv4
from ..errors import AwsOvsError
from ..names import VTEP, VXLAN_PORT
from . import peer_list
from .ec2_objects import Rule, SecurityGroup
from .objects import Host
from .world import World

_Groups = Mapping[str, SecurityGroup]
_Sets = Mapping[tuple[str, ...], list[Host]]
_ALL_IPV4 = "0.0.0.0/0"


def look(world: World) -> tuple[list[AwsOvsError], str]:
    """Look at the groups of all hosts of the mesh.

    Returns:
        what keeps hosts from each other's tunnels, or lets others into them; and whose Elastic IPs nobody outside the VPC
        reaches, as a sentence that is empty when all are reached.
    """
    sets, blocks = _sets(world), [Prefix(cidr, "the VPC's block") for cidr in world.vpc_cidrs]
    groups = world.ec2.security_groups({group for names in sets for group in names})
    errors = [*_missing(sets, groups), *_missing_outwards(sets, groups)]
    for group in groups.values():
        for rule in group.ingress:
            wide = [cidr for cidr in rule.cidrs if rule.covers("udp", VXLAN_PORT) and not _within(cidr, blocks)]
            errors += [_open(sets, groups, group, rule, cidr) for cidr in wide]
    used = {eip.eni_id for eip in world.elastic_ips.values() if eip.private_ip}
    closed = [
        host
        for names, hosts in sets.items()
        for host in hosts
        if host.eni_id in used and not any(from_outside(rule, blocks) for rule in rules_of(groups, names, "ingress"))
    ]
    return errors, f"nothing outside the VPC reaches the Elastic IPs on {_named(closed)}" if closed else ""


def _sets(world: World) -> _Sets:
    """List the hosts of the mesh by the security groups of their ENIs."""
    sets: dict[tuple[str, ...], list[Host]] = defaultdict(list)
    for host in peer_list.hosts(world):
        eni = world.interfaces.get(host.eni_id)
        if eni is not None and eni.groups and is_ipv4(host.template[VTEP]):
            sets[eni.groups].append(host)
    return sets


def rules_of(groups: _Groups, names: Iterable[str], direction: str) -> list[Rule]:
    """List the rules that groups of these names have in a direction, `ingress` or `egress`."""
    return [rule for name in names if name in groups for rule in getattr(groups[name], direction)]


class _Gap(NamedTuple):
    """Hosts with the same groups, and peers with the same groups that no rule of these names."""

    groups: tuple[str, ...]
    hosts: list[Host]
    of_peers: tuple[str, ...]
    peers: list[Host]


def _gaps(sets: _Sets, groups: _Groups, direction: str) -> Iterator[_Gap]:
    """Find the peers that the tunnels of hosts do not reach, or that do not reach them, by `direction` of the rules."""
    for names, hosts in sets.items():
        rules = [rule for rule in rules_of(groups, names, direction) if rule.covers("udp", VXLAN_PORT)]
        for of_peers, peers in sets.items():
            alone = of_peers == names and len(hosts) == 1  # a host has no tunnel to itself
            out = [peer for peer in peers if not any(_names(rule, of_peers, peer.template[VTEP]) for rule in rules)]
            if out and not alone:
                yield _Gap(names, hosts, of_peers, out)


def _missing(sets: _Sets, groups: _Groups) -> Iterator[AwsOvsError]:
    """Find the hosts whose tunnels are not let in by others."""
    for gap in _gaps(sets, groups, "ingress"):
        what = f"security group {gap.groups[0]} of {_named(gap.hosts)} does not let in UDP {VXLAN_PORT}"
        yield AwsOvsError(f"{what} from {_named(gap.peers)}", f"run {_let_in(gap)}")


def _missing_outwards(sets: _Sets, groups: _Groups) -> Iterator[AwsOvsError]:
    for gap in _gaps(sets, groups, "egress"):
        what = f"security group {gap.groups[0]} of {_named(gap.hosts)} does not let out UDP {VXLAN_PORT}"
        to = f"UserIdGroupPairs=[{{GroupId={gap.of_peers[0]}}}]"
        rule = f"IpProtocol=udp,FromPort={VXLAN_PORT},ToPort={VXLAN_PORT},{to}"
        command = f'aws ec2 authorize-security-group-egress --group-id {gap.groups[0]} --ip-permissions "{rule}"'
        yield AwsOvsError(f"{what} to {_named(gap.peers)}", f"run '{command}'")


def _let_in(gap: _Gap) -> str:
    """Write the command that closes a gap in what is let in."""
    return (
        f"'aws ec2 authorize-security-group-ingress --group-id {gap.groups[0]} --protocol udp --port {VXLAN_PORT} "
        f"--source-group {gap.of_peers[0]}'"
    )


def _names(rule: Rule, groups: Sequence[str], address: str) -> bool:
    """Say whether a rule names a host; what is in a prefix list nobody knows here."""
    prefixes = (cidr for cidr in rule.cidrs if ":" not in cidr)
    return (
        bool({*rule.groups} & {*groups})
        or rule.prefix_lists
        or any(cidr == _ALL_IPV4 or address in Prefix(cidr, "a security group's prefix") for cidr in prefixes)
    )


def _within(cidr: str, blocks: list[Prefix]) -> bool:
    if ":" in cidr or cidr == _ALL_IPV4:
        return False
    prefix = Prefix(cidr, "a security group's prefix")
    return any(
        block.first <= prefix.first and prefix.first + prefix.size <= block.first + block.size for block in blocks
    )


def from_outside(rule: Rule, blocks: list[Prefix]) -> bool:
    """Say whether a rule lets in somebody outside the VPC."""
    return rule.prefix_lists or any(not _within(cidr, blocks) for cidr in rule.cidrs)


def _open(sets: _Sets, groups: _Groups, group: SecurityGroup, rule: Rule, cidr: str) -> AwsOvsError:
    """Make the error for a rule that lets others into the tunnels; without it, hosts must still reach each other."""
    hosts = [host for names, hosts in sets.items() if group.group_id in names for host in hosts]
    what = f"security group {group.group_id} of {_named(hosts)} lets in UDP {VXLAN_PORT} from {cidr}, more than the VPC"
    if (rule.first, rule.last) != (VXLAN_PORT, VXLAN_PORT) or ":" in cidr:
        remedy = "let in the ports by which VMs are to be reached, each by a rule of its own, then remove this rule: "
        command = f"aws ec2 describe-security-group-rules --filters Name=group-id,Values={group.group_id}"
        return AwsOvsError(what, f"{remedy}'{command}' lists them")
    closed = rule._replace(cidrs=tuple(other for other in rule.cidrs if other != cidr))
    rules = tuple(closed if other == rule else other for other in group.ingress)
    without = {**groups, group.group_id: group._replace(ingress=rules)}
    first = [_let_in(gap) for gap in _gaps(sets, without, "ingress")]
    revoke = f"aws ec2 revoke-security-group-ingress --group-id {group.group_id} --protocol udp --port {VXLAN_PORT}"
    return AwsOvsError(what, "run " + ", then ".join([*first, f"'{revoke} --cidr {cidr}'"]))


def _named(hosts: Sequence[Host]) -> str:
    """Name the first hosts of many."""
    names = [host.name for host in hosts]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"host{'s' if len(names) > 1 else ''} {' '.join(names[:3])}{more}"
