"""`restore`: everything that should be on this node is built from the stored peers and VMs; what is right stays."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .. import files
from ..errors import AwsOvsError
from ..overlay import bridges, comparison, flows, tunnels, upcalls
from ..overlay.guest_port import GuestPort
from ..overlay.openflow import Bundles
from ..overlay.pipeline import overlay_bridge
from ..underlay import kernel
from . import node as node_module
from . import state
from .node import NOT_RUNNING, Node


def run(node: Node) -> None:
    """Build the node.

    Raises:
        AwsOvsError: ovs-vswitchd does not run, or something is refused.
    """
    made_for = node.marker()  # an ovs-vswitchd that starts while we are at it knows nothing of this
    if made_for["ovs-vswitchd"] == NOT_RUNNING:
        raise AwsOvsError("ovs-vswitchd does not run", "start it: systemctl start openvswitch-switch")
    if node.dry_run:
        _preview(node)
        return
    try:
        # One that has just started still shows the port numbers of the one before it.
        node.db.commit([{"op": "comment", "comment": "aws-ovs restore"}])
        _build(node)
    finally:
        upcalls.release(node.db)
    files.replace(node_module.MARKER, json.dumps(made_for))


def _build(node: Node) -> None:
    ports, settings = state.everything(), node.config
    for changes in plans(node, ports):
        node.commit(changes)
    kernel.ensure(node.underlay, settings.gateway_mac, settings.transit_range, settings.internet_mtu)
    node.flow(all_flows(node, ports))


def _preview(node: Node) -> None:
    """Print what differs in Open vSwitch's database, the kernel and the flows; nothing when all is right."""
    ports, settings, is_right = state.everything(), node.config, True
    for changes in plans(node, ports):
        node.commit(changes)
        is_right = is_right and not changes.operations
    if upcalls.waits(node.db):
        print("# ovs-vswitchd handles no new packets (other_config:flow-restore-wait)")
    for what in kernel.differences(node.underlay, settings.gateway_mac, settings.transit_range, settings.internet_mtu):
        print("kernel", what)
    if not is_right:  # flows are made of port numbers
        print("# what flows should be is known when the changes to the database have been made")
        return
    for bridge, bundle in all_flows(node, ports).items():
        for line in comparison.compare(bridge, bundle):
            print(bridge, line)


def plans(node: Node, ports: list[GuestPort]) -> Iterator[bridges.Transaction]:
    """Plan the bridges, patch ports and tunnels that the peers and these ports need.

    Each transaction is planned when the one before it has been carried out.
    """
    yield bridges.plan_overlay(node.db, node.config.datapath_type, node.config.internet_mtu)
    if ports:
        networks = {(port.bridge, port.vni) for port in ports}
        yield bridges.plan_networks(node.db, networks, node.config.datapath_type)
    yield tunnels.plan(node.db, tunnels.load(), node.underlay.address)
    yield bridges.plan_guests(node.db, ports)


def all_flows(node: Node, ports: list[GuestPort]) -> Bundles:
    """Compile all flows of the driver's bridges, for ports that are plugged in; they replace what is there."""
    observed, settings = node.observe(), node.config
    (rows,) = node.db.transact([bridges.select_role("node")])
    numbers = {port.name: port.ofport for port in bridges.as_interfaces(rows)}
    gateway, repair = numbers[bridges.GATEWAY_PORT], numbers[bridges.REPAIR_PORT]
    base = overlay_bridge.node(gateway, repair, settings.gateway_mac, settings.transit_range)
    base += tunnels.flows(node.db, tunnels.load(), node.underlay.address)
    return flows.all_flows(observed, base, ports, settings.gateway_mac)
