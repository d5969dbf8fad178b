"""`heal`: put back what others have changed on this node; nothing happens when all is right.

`watch` starts it when something differs. Flows and ports are compared by `check`, and built by `restore`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..config import Config
from ..journal import INFO, log
from ..underlay import kernel, routing
from ..underlay.eni import Underlay
from ..underlay.netlink import Address
from . import node as node_module
from . import restore, state, strangers
from .node import Node


def run(node: Node) -> None:
    """Repair the node, and say in the journal what was not right.

    Raises:
        AwsOvsError: something cannot be repaired.
    """
    made_for = node_module.read_marker()
    if not isinstance(made_for, dict):
        return  # it has never been set up; the first VM or the peer list does that
    if made_for != node.marker():
        log(INFO, "heal: ovs-vswitchd, the ENI, the configuration or the driver is not what this node was set up for")
        restore.run(node)
        return
    node.refuse_overlap()
    of_vms = strangers.private_addresses(node.transit, node.underlay, state.everything().ports)
    remove(strangers.taken(of_vms))
    repair_kernel(node.underlay, node.config, of_vms)


def remove(taken: Iterable[tuple[Address, str]]) -> None:
    """Take the addresses of VMs off the node's interfaces."""
    for entry, whose in taken:
        routing.remove(entry)
        log(INFO, f"heal: removed {entry}, which is the private address of {whose}")


def repair_kernel(underlay: Underlay, settings: Config, of_vms: Collection[str], tables: bool = True) -> None:
    """Repair the kernel's part; `of_vms` are the private addresses of VMs, `tables` is whether the nft tables, too."""
    for what in kernel.ensure(underlay, settings, of_vms, tables):
        log(INFO, f"heal: repaired that {what}")
