"""What the lists of `oneaws` show, as plain values: one dictionary a line, the keys are the columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ..errors import AwsOvsError
from . import mesh, pools, registration, validation
from .hosts import FREE
from .objects import AddressRange, Host, Network
from .world import ALLOCATION, ENI_ID, INSTANCE_ID, POOL, PRIVATE, PUBLIC, STATE, TYPE, World

_STATES = {0: "init", 1: "update", 2: "on", 3: "err", 4: "dsbl", 5: "retry", 6: "init", 7: "dsbl", 8: "off"}
"""What `onehost list` calls a host's states."""


def hosts(world: World) -> list[dict[str, Any]]:
    """The hosts that are EC2 instances."""
    return [
        {
            "ID": host.host_id,
            "NAME": host.name,
            "CLUSTER": host.cluster,
            "INSTANCE": host.template[INSTANCE_ID],
            "TYPE": host.template.get(TYPE, "-"),
            "ZONE": host.template.get("EC2_AZ", "-"),
            "ENI": host.template.get(ENI_ID, "-"),
            "EC2": host.template.get(STATE, "-"),
            "FREE": host.template.get(FREE, "-"),
            "TVM": len(host.vms),
            "STAT": _state(host),
        }
        for host in world.hosts
        if host.template.get(INSTANCE_ID)
    ]


def _state(host: Host) -> str:
    return _STATES.get(host.state, str(host.state))


def peers(world: World) -> list[dict[str, Any]]:
    """The hosts of the mesh, with what their own probes say."""
    return [
        {
            "ID": host.host_id,
            "NAME": host.name,
            "VTEP": vtep,
            "LIST": "ok" if told else "behind",
            "UP": host.template.get("AWS_OVS_PEERS_UP", "-"),
            "DOWN": host.template.get("AWS_OVS_PEERS_DOWN", "-"),
            "MTU": host.template.get("AWS_OVS_GUEST_MTU", "-"),
            "VERSION": host.template.get("AWS_OVS_VERSION", "-"),
            "STAT": _state(host),
            "ERROR": host.template.get("AWS_OVS_ERROR") or "-",
        }
        for host, vtep, told in mesh.members(world)
    ]


def elastic_ips(world: World, only: set[int]) -> list[dict[str, Any]]:
    """The Elastic IPs of the networks, and those of the pools that have no range yet.

    Args:
        world: both worlds.
        only: IDs of networks; all when it is empty.
    """
    lines = []
    for known in sorted(world.networks, key=lambda one: one.network_id):
        concerned = known.template.get(POOL) or known.values_of_ranges(PRIVATE)
        if known.ours and concerned and (not only or known.network_id in only):
            lines += _of_network(world, world.with_leases(known.network_id))
    return lines


def _of_network(world: World, network: Network) -> list[dict[str, Any]]:
    status, reasons = _reports(world, network)
    ranges = [one for one in network.ranges if one.attributes.get(PRIVATE)]
    lines = [_of_range(world, network, one, status) for one in ranges]
    there = {one.attributes.get(ALLOCATION) for one in ranges}
    for eip in world.elastic_ips.values():
        target = f"Elastic IP {eip.public_ip}"
        if eip.allocation_id not in there and target in status:
            lines.append(_line(world, network, eip.public_ip, eip.private_ip, eip.allocation_id, status[target]))
    for line in lines:
        line["REASON"] = "; ".join(reasons[f"Elastic IP {line['EXTERNAL_IP']}"])
    whole = "; ".join(reasons[f"network {network.name}"])
    return [*([_line(world, network, "-", "", "-", "problem") | {"REASON": whole}] if whole else []), *lines]


def _reports(world: World, network: Network) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What the reconciler would do to each Elastic IP of a pool, or has to say about it."""
    reasons: dict[str, list[str]] = defaultdict(list)
    status = {}
    if network.template.get(POOL):
        plan = pools.plan(world, network)
        for change in plan.changes:
            status[change.target] = "pending"
            reasons[change.target].append(change.text)
        for problem in plan.problems:
            status[problem.target] = "problem"
            reasons[problem.target].append(problem.text)
    return status, reasons


def _of_range(world: World, network: Network, held: AddressRange, status: dict[str, str]) -> dict[str, Any]:
    public_ip = held.attributes.get(PUBLIC, "")
    private_ip, allocation = held.attributes[PRIVATE], held.attributes.get(ALLOCATION, "")
    eip = world.elastic_ips.get(allocation)
    leads = "ok" if not allocation or (eip is not None and eip.private_ip == private_ip) else "unmapped"
    line = _line(world, network, public_ip, private_ip, allocation, status.get(f"Elastic IP {public_ip}", leads))
    vms = " ".join("held" if vm_id < 0 else str(vm_id) for vm_id in held.leases)
    return line | {"AR": held.ar_id, "IP": held.ip, "VM": vms or "-"}


def _line(
    world: World, network: Network, public_ip: str, private_ip: str, allocation: str, status: str
) -> dict[str, Any]:
    eni = world.eni_of_address.get(private_ip)
    host = world.host_of_eni.get(eni.eni_id) if eni else None
    return {
        "EXTERNAL_IP": public_ip,
        "ALLOCATION": allocation,
        "PRIVATE_IP": private_ip or "-",
        "NETWORK": network.name,
        "AR": "-",
        "IP": "-",
        "VM": "-",
        "HOST": host.name if host else eni.eni_id if eni else "-",
        "STATUS": status,
    }


def quota(world: World) -> dict[str, int]:
    """How many Elastic IPs the Region has and may have; 0 when EC2 does not say."""
    return {"allocated": len(world.elastic_ips), "quota": world.ec2.elastic_ip_quota()}


def networks(world: World, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The networks of the driver, all or certain ones, and what is wrong with them.

    Raises:
        AwsOvsError: a network is not there, or not one of the driver.
    """
    chosen = [world.network(name) for name in names] or [one for one in world.networks if one.ours]
    for one in chosen:
        if not one.ours:
            raise AwsOvsError(
                f"network {one.name} has VN_MAD {one.driver}, not aws_ovs", "choose another from 'onevnet list'"
            )
    return [_checked(world, one) for one in sorted(chosen, key=lambda one: one.network_id)]


def _checked(world: World, network: Network) -> dict[str, Any]:
    found = validation.problems(network, world.networks, world.driver)
    return {
        "ID": network.network_id,
        "NAME": network.name,
        "BRIDGE": network.bridge,
        "VNI": network.vlan_id or str(world.driver.vni_base + network.network_id),
        "STATUS": "problem" if found else "ok",
        "PROBLEMS": [str(bad) for bad in found],
    }


def hooks(world: World) -> list[dict[str, Any]]:
    """The driver's hooks."""
    return [
        {"ID": one.hook_id if one.hook_id >= 0 else "-", "NAME": one.name, "STATUS": one.state}
        for one in registration.registrations(world)
    ]
