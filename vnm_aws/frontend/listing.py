"""Collect what the lists of `oneaws` show, as plain values: one dictionary a line, the keys are the columns.

Programs read them as JSON: numbers are numbers, what is not known or not there is None, and every line has every key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import names
from ..errors import AwsOvsError
from ..overlay.tunnels import PeerList
from . import mesh, pools, registration, room
from .follow.decide import find
from .objects import Address, AddressRange, Network
from .validation import Validation, vni_of
from .world import World

_STATES = {0: "init", 1: "update", 2: "on", 3: "err", 4: "dsbl", 5: "retry", 6: "init", 7: "dsbl", 8: "off"}
"""What `onehost list` calls a host's states."""


def host_lines(world: World) -> list[dict[str, Any]]:
    """List the hosts that are EC2 instances."""
    return [
        {
            "ID": host.host_id,
            "NAME": host.name,
            "CLUSTER": host.cluster,
            "INSTANCE": host.template[names.INSTANCE_ID],
            "TYPE": host.template.get(names.INSTANCE_TYPE) or None,
            "ZONE": host.template.get(names.ZONE) or None,
            "ENI": host.eni_id or None,
            "EC2": host.template.get(names.INSTANCE_STATE) or None,
            "FREE": host.reported(names.FREE_ADDRESSES),
            "TVM": len(host.vms),
            "STAT": _STATES.get(host.state, str(host.state)),
        }
        for host in world.hosts
        if host.template.get(names.INSTANCE_ID)
    ]


def peer_lines(world: World, wanted: PeerList) -> list[dict[str, Any]]:
    """List the hosts of the mesh, with what their own probes say, and whether they have a list."""
    return [
        {
            "ID": host.host_id,
            "NAME": host.name,
            "VTEP": vtep,
            "LIST": "ok" if told else "behind",
            "UP": host.reported(names.PEERS_UP),
            "DOWN": host.reported(names.PEERS_DOWN),
            "MTU": host.reported(names.HOST_MTU),
            "VERSION": host.template.get(names.HOST_VERSION) or None,
            "REPORTED": host.reported(names.HOST_TIME),
            "STAT": _STATES.get(host.state, str(host.state)),
            "ERROR": host.template.get(names.HOST_ERROR) or None,
        }
        for host, vtep, told in mesh.members(world, wanted)
    ]


def elastic_ip_lines(world: World, only: set[int]) -> list[dict[str, Any]]:
    """List the Elastic IPs of all networks, or those with certain IDs, and those of the pools that have no range yet."""
    lines = []
    for network in sorted(world.networks, key=lambda network: network.network_id):
        concerned = network.template.get(names.POOL) or network.values_of_ranges(names.PRIVATE_IP)
        if network.ours and concerned and (not only or network.network_id in only):
            lines += _of_network(world, network._replace(ranges=tuple(world.ranges(network))))
    return lines


def _of_network(world: World, network: Network) -> list[dict[str, Any]]:
    status, reasons = _reports(world, network)
    ranges = [item for item in network.ranges if item.attributes.get(names.PRIVATE_IP)]
    lines = [_of_range(world, network, item, status) for item in ranges]
    there = {item.attributes.get(names.ALLOCATION_ID) for item in ranges}
    for eip in world.elastic_ips.values():
        target = f"Elastic IP {eip.public_ip}"
        if eip.allocation_id not in there and target in status:
            lines.append(_line(world, network, eip.public_ip, eip.private_ip, eip.allocation_id, status[target]))
    for line in lines:
        line["REASON"] = "; ".join(reasons[f"Elastic IP {line['EXTERNAL_IP']}"])
    whole = "; ".join(reasons[f"network {network.name}"])
    return [*([_line(world, network, "", "", "", "problem") | {"REASON": whole}] if whole else []), *lines]


def _reports(world: World, network: Network) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Collect what the reconciler would do to each Elastic IP of a pool, or has to say about it."""
    reasons: dict[str, list[str]] = defaultdict(list)
    status = {}
    if network.template.get(names.POOL):
        plan = pools.plan(world, network)
        for change in plan.changes:
            status[change.target] = "pending"
            reasons[change.target].append(change.text)
        for problem in plan.problems:
            status[problem.target] = "problem"
            reasons[problem.target].append(problem.text)
    return status, reasons


def _of_range(world: World, network: Network, item: AddressRange, status: dict[str, str]) -> dict[str, Any]:
    public_ip = item.attributes.get(names.EXTERNAL_IP, "")
    private_ip, allocation = item.attributes[names.PRIVATE_IP], item.attributes.get(names.ALLOCATION_ID, "")
    address = Address(private_ip, public_ip, allocation, network.network_id)
    eip = find(address, world.elastic_ips) if address.elastic_ip else None
    stand_in = eip.private_ip if eip is not None and world.stands_for.get(eip.private_ip) == private_ip else ""
    is_led = not address.elastic_ip or (eip is not None and eip.private_ip == (stand_in or private_ip))
    report = status.get(f"Elastic IP {public_ip}", "ok" if is_led else "unmapped")
    line = _line(world, network, public_ip, private_ip, allocation, report, stand_in)
    vms = [vm_id for vm_id in item.leases if vm_id >= 0]
    return line | {"AR": item.ar_id, "IP": item.ip or None, "VM": vms, "HELD": len(vms) < len(item.leases)}


def _line(
    world: World, network: Network, public_ip: str, private_ip: str, allocation: str, status: str, stand_in: str = ""
) -> dict[str, Any]:
    eni = world.eni_of_address.get(stand_in or private_ip)
    host = world.host_of_eni.get(eni.eni_id) if eni else None
    return {
        "EXTERNAL_IP": public_ip or None,
        "ALLOCATION": allocation or None,
        "PRIVATE_IP": private_ip or None,
        "STAND_IN": stand_in or None,
        "NETWORK": network.name,
        "AR": None,
        "IP": None,
        "VM": [],
        "HELD": False,
        "HOST": host.name if host else eni.eni_id if eni else None,
        "STATUS": status,
        "REASON": "",
    }


class Quota(NamedTuple):
    """How many Elastic IPs the Region has, and may have; None when EC2 does not say."""

    allocated: int
    quota: int | None


def quota(world: World) -> Quota:
    """Count the Elastic IPs of the Region."""
    return Quota(len(world.elastic_ips), world.ec2.elastic_ip_quota() or None)


def network_lines(world: World, wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """List the networks of the driver, all or certain ones, and what is wrong with them.

    Raises:
        AwsOvsError: a network is not there, or not one of the driver.
    """
    chosen = [world.network(name) for name in wanted] or [network for network in world.networks if network.ours]
    for network in chosen:
        if not network.ours:
            what = f"network {network.name} has VN_MAD {network.driver}, not aws_ovs"
            raise AwsOvsError(what, "choose another from 'onevnet list'")
    validation = Validation(world)
    return [_checked(world, validation, network) for network in sorted(chosen, key=lambda network: network.network_id)]


def _checked(world: World, validation: Validation, network: Network) -> dict[str, Any]:
    errors = validation.problems(network)
    return {
        "ID": network.network_id,
        "NAME": network.name,
        "BRIDGE": network.bridge,
        "VNI": vni_of(network, network.vlan_id, world.driver),
        "VPC": network.template.get(names.VPC_ACCESS, "").strip().upper() or "NO",
        "RAW": network.template.get(names.RAW_ETHERNET, "").strip().upper() or "NO",
        "STATUS": "problem" if errors else "ok",
        "PROBLEMS": [str(error) for error in errors],
        "SCHED_REQUIREMENTS": room.requirements(world, network) or None,
    }


def hook_lines(world: World) -> list[dict[str, Any]]:
    """List the driver's hooks."""
    return [
        {"ID": hook.hook_id if hook.hook_id >= 0 else None, "NAME": hook.name, "STATUS": hook.state}
        for hook in registration.registrations(world)
    ]
