"""Find private addresses on hosts that no address range has any more, and give back those that this front-end has taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ..errors import AwsOvsError
from ..names import PRIVATE_IP
from .attempts import Attempts
from .ec2_objects import Interface
from .objects import Host
from .plan import Plan
from .world import World


def plan(world: World) -> Plan:
    """Plan that addresses which this front-end has put onto ENIs, and nothing needs any more, leave them."""
    result = Plan()
    taken = world.taken.enis()
    for host, eni, address in _unused(world) if taken else ():
        if taken.get(address) == eni.eni_id and _leading_to(world, eni, address) is None:
            text = f"take {address} from {eni.eni_id}, for no address range has it any more"
            result.change(f"host {host.name}", text, _give_back, world, eni, address)
    return result


def strangers(world: World) -> list[AwsOvsError]:
    """Name the secondary addresses of hosts that no address range has, and that are not known to be the driver's."""
    taken = world.taken.enis()
    unused: dict[str, list[str]] = defaultdict(list)
    hosts: dict[str, Host] = {}
    for host, eni, address in _unused(world):
        if taken.get(address) != eni.eni_id or _leading_to(world, eni, address):
            hosts[eni.eni_id] = host
            unused[eni.eni_id].append(address)
    return [_stranger(world, hosts[eni_id], world.interfaces[eni_id], unused[eni_id]) for eni_id in sorted(unused)]


def _stranger(world: World, host: Host, eni: Interface, addresses: list[str]) -> AwsOvsError:
    led = [
        f"{public_ip} leads to {address}" for address in addresses if (public_ip := _leading_to(world, eni, address))
    ]
    more = f" ({', '.join(led)})" if led else ""
    what = f"no address range has {', '.join(addresses)} on {eni.eni_id} of host {host.name}{more}"
    command = f"aws ec2 unassign-private-ip-addresses --network-interface-id {eni.eni_id} --private-ip-addresses"
    return AwsOvsError(what, f"if nothing uses them, run '{command} {' '.join(addresses)}'")


def _unused(world: World) -> Iterator[tuple[Host, Interface, str]]:
    """List the secondary addresses of hosts that no range, VM or host has, and that are meant for no Elastic IP."""
    used = {
        *(address for network in world.networks for address in network.values_of_ranges(PRIVATE_IP)),
        *(network.template.get(PRIVATE_IP, "") for network in world.networks),
        *(address.private_ip for vm in world.vms for address in vm.addresses),
        *world.stands_for,
        *Attempts(world.settings.state_directory).expected(),
    }
    for eni_id, host in sorted(world.host_of_eni.items()):
        eni = world.interfaces.get(eni_id)
        for address in eni.addresses if eni else ():
            if eni and address != eni.primary and address not in used:
                yield host, eni, address


def _leading_to(world: World, eni: Interface, address: str) -> str | None:
    """Find the Elastic IP that leads to an address of an ENI."""
    eips = world.elastic_ips.values()
    return next((eip.public_ip for eip in eips if (eip.eni_id, eip.private_ip) == (eni.eni_id, address)), None)


def _give_back(world: World, eni: Interface, address: str) -> None:
    """Take an address from an ENI, unless an Elastic IP leads there meanwhile."""
    if not any(eip.eni_id == eni.eni_id for eip in world.ec2.elastic_ips_at([address]).values()):
        world.unassign(eni, [address])
