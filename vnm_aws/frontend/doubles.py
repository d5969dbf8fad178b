"""Remove the second range of an Elastic IP from its pool, which two front-ends make that both take themselves for the leader.

Both keep the same one: a leased one, else the oldest. A second one that is leased, too, is reported by the pool's plan.
"""

from __future__ import annotations

from collections import defaultdict

from ..names import ALLOCATION_ID, EXTERNAL_IP
from .objects import AddressRange, Network
from .plan import Plan
from .pools import pools
from .world import World


def plan(world: World) -> Plan:
    """Plan the removal of idle ranges whose Elastic IP has another one in the same pool."""
    result = Plan()
    for network in pools(world):
        alike: dict[str, list[AddressRange]] = defaultdict(list)
        for item in world.ranges(network):
            if item.attributes.get(ALLOCATION_ID) and not item.attributes.get("PORT_START"):
                alike[item.attributes[ALLOCATION_ID]].append(item)
        for allocation_id, ranges in alike.items():
            kept, *others = sorted(ranges, key=lambda item: (not item.used, item.ar_id))
            for item in others:
                if not item.used:
                    name = kept.attributes.get(EXTERNAL_IP) or allocation_id
                    text = f"remove range {item.ar_id} of network {network.name}, for range {kept.ar_id} has it already"
                    result.change(f"Elastic IP {name}", text, _remove, world, network, item, kept)
    return result


def _remove(world: World, network: Network, idle: AddressRange, kept: AddressRange) -> None:
    """Remove a range if both are still there: another front-end may be doing the same. oned refuses one that is leased."""
    now = {item.ar_id for item in world.oned.network(network.network_id).ranges}
    if {idle.ar_id, kept.ar_id} <= now:
        world.oned.remove_range(network.network_id, idle.ar_id)
