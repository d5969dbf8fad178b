"""Find ports that VMs with an Elastic IP are open at by their own security groups, and AWS' groups of the host are not."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lxml import etree

from ..addresses import Prefix
from ..document import texts
from ..errors import AwsOvsError
from ..names import PRIVATE_IP
from ..rules import ICMP, TCP, UDP, Groups
from ..vm import DRIVER
from . import security_groups
from .ec2_objects import Rule
from .world import World

_ALL = (0, 65535)
_MOST_VMS = 500
"""Of a page."""


class _Gap(NamedTuple):
    """Ports of a protocol that the groups of hosts do not let in."""

    groups: tuple[str, ...]
    protocol: str
    first: int
    last: int


def unreached(world: World) -> list[AwsOvsError]:
    """Look at the VMs that run with an Elastic IP. What lets in everything names no ports, and is not looked at."""
    blocks = [Prefix(cidr, "the VPC's block") for cidr in world.vpc_cidrs]
    hosts = {host.host_id: world.interfaces.get(host.eni_id) for host in world.hosts}
    associated = {eip.private_ip for eip in world.elastic_ips.values() if eip.private_ip}
    wanted = {
        machine.vm_id: eni.groups
        for machine in world.vms
        if machine.on_host and any(item.private_ip in associated for item in machine.addresses)
        if (eni := hosts.get(machine.host_id)) is not None and eni.groups
    }
    groups = world.ec2.security_groups({group for names in wanted.values() for group in names}) if wanted else {}
    gaps: dict[_Gap, list[int]] = defaultdict(list)
    for vm_id, protocol, ports in _accepted(world, sorted(wanted), associated):
        names = wanted[vm_id]
        let_in = _let_in(security_groups.rules_of(groups, names, "ingress"), protocol, blocks)
        for first, last in _missing(ports, let_in):
            gaps[_Gap(names, protocol, first, last)].append(vm_id)
    return [_error(gap, sorted({*vm_ids})) for gap, vm_ids in sorted(gaps.items())]


def _accepted(world: World, vm_ids: Sequence[int], associated: set[str]) -> Iterator[tuple[int, str, tuple[int, int]]]:
    """List the ports that VMs accept from anywhere by their groups, read of their documents as hosts read them."""
    for start in range(0, len(vm_ids), _MOST_VMS):
        page = vm_ids[start : start + _MOST_VMS]
        for document in world.oned.vm_documents(page[0], page[-1]):
            vm_id = int(document.findtext("ID") or -1)
            if vm_id in page:
                for protocol, ports in {*_of_vm(document, associated)}:
                    yield vm_id, protocol, ports


def _of_vm(document: etree._Element, associated: set[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    groups = Groups(document)
    nics = [dict(texts(nic)) for nic in document.iterfind("TEMPLATE/NIC")]
    aliases = [dict(texts(alias)) for alias in document.iterfind("TEMPLATE/NIC_ALIAS")]
    for nic in nics:
        own = [nic, *(alias for alias in aliases if alias.get("PARENT_ID") == nic.get("NIC_ID"))]
        # Of an address that is shared by ports each VM has but a few, which have other numbers outside.
        whole = any(item.get(PRIVATE_IP) in associated and not item.get("EXTERNAL_PORT_RANGE") for item in own)
        if not whole or nic.get("VN_MAD") != DRIVER:
            continue
        with contextlib.suppress(AwsOvsError):  # its host refuses the rule, and says why
            for rule in groups.of_nic(nic.get("SECURITY_GROUPS", ""), "SECURITY_GROUPS") or ():
                if rule.inbound and rule.nets is None and rule.protocol in (TCP, UDP, ICMP):
                    yield from ((rule.protocol.lower(), ports) for ports in rule.ports or (_ALL,))


def _let_in(rules: Iterable[Rule], protocol: str, blocks: list[Prefix]) -> list[tuple[int, int]]:
    """List the ports of a protocol that AWS' rules let in from outside the VPC."""
    return [
        (rule.first, rule.last) if rule.protocol == protocol != "icmp" else _ALL
        for rule in rules
        if rule.protocol in (protocol, "-1") and security_groups.from_outside(rule, blocks)
    ]


def _missing(ports: tuple[int, int], let_in: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """List the parts of a range that are not let in. Of one that is all ports nobody means every single one."""
    first, last = ports
    if last - first >= _ALL[1] - 1 and let_in:
        return
    for low, high in sorted(let_in):
        if low > first:
            yield from [(first, min(last, low - 1))] if first <= last else []
        first = max(first, high + 1)
    if first <= last:
        yield first, last


def _error(gap: _Gap, vm_ids: list[int]) -> AwsOvsError:
    group, more = gap.groups[0], f" and {len(vm_ids) - 3} more" if len(vm_ids) > 3 else ""
    port = "-1" if gap.protocol == "icmp" else str(gap.first) if gap.first == gap.last else f"{gap.first}-{gap.last}"
    shown = "" if (gap.first, gap.last) == _ALL else f" port {port}"
    what = (
        f"VM {', '.join(map(str, vm_ids[:3]))}{more} with an Elastic IP: the VM's own security groups let in "
        f"{gap.protocol.upper()}{shown} from anywhere, no group of AWS does ({' '.join(gap.groups)})"
    )
    command = (
        f"aws ec2 authorize-security-group-ingress --group-id {group} --protocol {gap.protocol} --port {port} "
        "--cidr 0.0.0.0/0"
    )
    return AwsOvsError(
        what, f"if it is to be reached, run '{command}', which lets packets to the host itself in as well"
    )
