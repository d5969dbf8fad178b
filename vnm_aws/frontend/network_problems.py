"""Let each network say what is wrong with it: AWS_OVS_ERROR of its template, empty when all is right.

oned asks no driver whether a network may be changed, so nobody can refuse what `onevnet update` does to one.
"""

from __future__ import annotations

from ..names import NETWORK_PROBLEM
from ..table import printable
from .objects import NETWORK_USABLE
from .plan import Plan
from .validation import Validation
from .world import World


def plan(world: World) -> Plan:
    """Plan the changes that let the networks say what is wrong with them."""
    result, validation = Plan(), Validation(world)
    for network in sorted(world.networks, key=lambda network: network.network_id):
        if not network.ours or network.state not in NETWORK_USABLE:
            continue
        wanted = printable(". ".join(map(str, validation.problems(network))))
        if network.template.get(NETWORK_PROBLEM, "") != wanted:
            text = f"set {NETWORK_PROBLEM}: {wanted}" if wanted else f"empty {NETWORK_PROBLEM}"
            values = {NETWORK_PROBLEM: wanted}
            result.change(f"network {network.name}", text, world.oned.update_network, network.network_id, values)
    return result
