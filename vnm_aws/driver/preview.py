"""`restore --dry-run`: prints what differs, and nothing when all is right."""

from __future__ import annotations

from ..overlay import comparison, upcalls
from ..underlay import kernel
from . import state
from .node import Node


def run(node: Node) -> None:
    """Print the changes that `restore` would make to Open vSwitch's database, the kernel and the flows.

    Raises:
        AwsOvsError: something cannot be read.
    """
    ports, settings, is_right = state.everything(), node.config, True
    for changes in node.plans(ports):
        node.commit(changes)
        is_right = is_right and not changes.operations
    if upcalls.waits(node.db):
        print("# ovs-vswitchd handles no new packets (other_config:flow-restore-wait)")
    for what in kernel.differences(node.underlay, settings.gateway_mac, settings.transit_range, settings.internet_mtu):
        print("kernel", what)
    if not is_right:  # flows are made of port numbers
        print("# what flows should be is known when the changes to the database have been made")
        return
    for bridge, bundle in node.all_flows(ports).items():
        for line in comparison.compare(bridge, bundle):
            print(bridge, line)
