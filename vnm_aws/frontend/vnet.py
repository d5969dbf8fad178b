"""Run `vnet_create` and `vnet_delete`, which OpenNebula starts on the front-end for each network of this driver.

What `vnet_create` prints becomes part of the network's template: the VNI, the MTU, and the address ranges of a pool. It changes
nothing in EC2; that is for the hook of the ready network, and for the reconciler.
"""

from __future__ import annotations

import os
import sys

from .. import mtu
from ..errors import AwsOvsError
from ..journal import ERROR, INFO, explain, log
from ..names import ALLOCATION_ID, EXTERNAL_IP, PRIVATE_IP
from . import objects, settings
from .attempts import Attempts
from .elastic_ips import foreign
from .free_addresses import Chooser
from .objects import Network
from .oned import range_template, template
from .plan import Plan
from .pools import claimed, is_pool
from .validation import Validation
from .world import World


def main(argv: list[str]) -> int:
    """Run the action that the program's name says.

    Args:
        argv: the program's name, and the network's ID. The document is on stdin.

    Returns:
        the exit code.
    """
    action = os.path.basename(argv[0])
    line = " ".join([action, *argv[1:]])
    try:
        document = sys.stdin.buffer.read(objects.SIZE_LIMIT + 1)
        if action == "vnet_create":
            print(create(World(settings.load()), objects.read_network(objects.read_document(document))))
    except Exception as error:  # noqa: BLE001 - the network's ERROR shows a sentence; the journal has the rest
        sentence = explain(error, line)
        # The network's ERROR shows a plain line; one that begins with "ERROR:" would be lost.
        print(f"{action}: {sentence}", file=sys.stderr)
        log(ERROR, f"{line}: {sentence}")
        return 1
    log(INFO, f"{line}: done")
    return 0


def create(world: World, network: Network) -> str:
    """Compose what a new network gets.

    Returns:
        attributes and address ranges in OpenNebula's template syntax.

    Raises:
        AwsOvsError: it is not one that this driver can serve.
    """
    validation = Validation(world)
    errors = validation.problems(network)
    if errors:
        raise errors[0]
    values = {}
    if not network.vlan_id:
        values["VLAN_ID"] = str(validation.choose_vni(network))
    guest_mtu = (
        network.template.get("GUEST_MTU")
        or network.template.get("MTU")
        or str(mtu.for_guests(mtu.VPC, world.driver.internet_mtu, leaves=True))  # it may get a gateway later
    )
    values |= {key: guest_mtu for key in ("MTU", "GUEST_MTU") if not network.template.get(key)}
    lines = [template(values)]
    if is_pool(network):
        lines += [range_template(values) for values in _ranges(world, network)]
    return "\n".join(lines)


def _ranges(world: World, network: Network) -> list[dict[str, str]]:
    """Make an address range for each Elastic IP of the pool that leads to a private address of a host already.

    The others get theirs when the network is ready: a range can be leased at once, so EC2 has to agree first.
    """
    ranges: list[dict[str, str]] = []
    there = set(network.values_of_ranges(ALLOCATION_ID))
    chooser = Chooser(world, network, Attempts(world.settings.state_directory))
    for eip in claimed(world, network, Plan()):
        if eip.allocation_id in there or not eip.private_ip or foreign(world, network, eip):
            continue
        try:
            own = {ALLOCATION_ID: eip.allocation_id, EXTERNAL_IP: eip.public_ip, PRIVATE_IP: eip.private_ip}
            ranges.append({"TYPE": "IP4", "IP": chooser.inside(), "SIZE": "1", **own})
        except AwsOvsError as error:
            log(ERROR, f"vnet_create {network.network_id}: {eip.public_ip}: {error}")
    return ranges
