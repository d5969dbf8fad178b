"""`restore`: everything that should be on this node is built from the stored peers and VMs; what is right stays."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from .. import files
from ..errors import AwsOvsError
from ..journal import ERROR, log
from ..names import GATEWAY_PORT, REPAIR_PORT
from ..overlay import bridges, comparison, flows, tunnels, upcalls
from ..overlay.openflow import Bundles
from ..overlay.ovsdb import select
from ..overlay.pipeline import destinations, flow, overlay_bridge
from ..processes import since_boot
from ..underlay import kernel
from . import connections, state, strangers
from . import node as node_module
from .node import NOT_RUNNING, Node
from .peers import mesh_flows


def run(node: Node) -> None:
    """Build the node.

    What is on a bridge that is somebody else's is left out, and said.

    Raises:
        AwsOvsError: ovs-vswitchd does not run, or something is refused.
    """
    made_for = node.marker()  # an ovs-vswitchd that starts while we are at it knows nothing of this
    if made_for["ovs-vswitchd"] == NOT_RUNNING:
        raise AwsOvsError("ovs-vswitchd does not run", "start it: systemctl start openvswitch-switch")
    node.refuse_overlap(tunnels.load().vpc_cidrs)
    if not node.dry_run:
        _complete(state.everything(), is_new=_built_for() != made_for["ovs-vswitchd"])  # also what is left out below
    stored, refused = strangers.own(node)
    for bridge, refusal in refused.items():
        print(f"aws-ovs: restore: VMs on {bridge} are left out: {refusal}", file=sys.stderr)
        log(ERROR, f"restore: VMs on {bridge} are left out: {refusal}")
    if node.dry_run:
        _preview(node, stored)
        return
    try:
        # One that has just started still shows the port numbers of the one before it.
        node.db.commit([{"op": "comment", "comment": "aws-ovs restore"}])
        _build(node, stored)
    finally:
        upcalls.release(node.db)
    files.replace(node_module.MARKER, json.dumps(made_for))


def _built_for() -> Any:
    """Tell for which process of ovs-vswitchd the node was built; None when it was not."""
    built = node_module.read_marker()
    return built.get("ovs-vswitchd") if isinstance(built, dict) else None


def _build(node: Node, stored: state.Stored) -> None:
    for changes in plans(node, stored):
        node.commit(changes)
    kernel.ensure(node.underlay, node.config, strangers.private_addresses(node.transit, node.underlay, stored.ports))
    node.flow(all_flows(node, stored))


def _complete(stored: state.Stored, is_new: bool) -> None:
    """Write down what the files of VMs lack: slots, if a version gave none, and that a new ovs-vswitchd knows no connections."""
    until = since_boot() + node_module.PICK_UP_S
    for vm_id in {port.vm_id for port in stored.ports}:
        ports = [port for port in stored.ports if port.vm_id == vm_id]
        if is_new:
            ports = [port._replace(picks_up_until=until) if port.zone else port for port in ports]
        if ports != state.load(vm_id):
            state.save(vm_id, ports)


def _preview(node: Node, stored: state.Stored) -> None:
    """Print what differs in Open vSwitch's database, the kernel and the flows; nothing when all is right."""
    is_right = True
    for changes in plans(node, stored):
        node.commit(changes)
        is_right = is_right and not changes.operations
    if upcalls.waits(node.db):
        print("# ovs-vswitchd handles no new packets (other_config:flow-restore-wait)")
    of_vms = strangers.private_addresses(node.transit, node.underlay, stored.ports)
    for what in kernel.differences(node.underlay, node.config, of_vms):
        print("kernel", what)
    if not is_right:  # flows are made of port numbers
        print("# what flows should be is known when the changes to the database have been made")
        return
    for what in connections.wrong_limits(node, stored.ports):
        print("connection tracking", what)
    for bridge, bundle in all_flows(node, stored).items():
        for line in comparison.compare(bridge, bundle):
            print(bridge, line)


def plans(node: Node, stored: state.Stored) -> Iterator[bridges.Transaction]:
    """Plan the bridges, patch ports and tunnels that the peers and the stored ports need, and the marks of guest ports.

    Each transaction is planned when the one before it has been carried out.
    """
    yield bridges.plan_overlay(node.db, node.config.datapath_type, node.config.internet_mtu)
    if stored.ports:
        networks = {(port.bridge, port.vni) for port in stored.ports}
        yield bridges.plan_networks(node.db, networks, node.config.datapath_type, _claimed)
    yield tunnels.plan(node.db, tunnels.load().peers, node.underlay.address)
    yield bridges.plan_guests(node.db, node.in_force(stored.ports), untouched=stored.unreadable)


def _claimed(_: str) -> None:
    """Say nothing: `strangers.own` has left out what is on bridges of others."""


def all_flows(node: Node, stored: state.Stored) -> Bundles:
    """Compile all flows of the driver's bridges, for ports that are plugged in; they replace what is there.

    What there is of a VM whose file cannot be read is among them, as it is: the marks of its ports say which networks
    need flows for it, and cookies say which flows are its own.
    """
    observed, settings = node.observe(), node.config
    rows, there = node.db.transact([bridges.select_role("node"), select("Bridge", [], ["name", "external_ids"])])
    numbers = {port.name: port.ofport for port in bridges.as_interfaces(rows)}
    gateway, repair = numbers[GATEWAY_PORT], numbers[REPAIR_PORT]
    base = [
        *overlay_bridge.node(gateway, repair, settings.gateway_mac),
        *destinations.node(settings.transit_range),
        *mesh_flows(node, tunnels.load()),
    ]
    bundles = flows.all_flows(observed, base, node.in_force(stored.ports), settings)
    driven = bridges.driven(there)  # whatever ports are marked as: nothing is written to bridges of others
    bundles = {bridge: lines for bridge, lines in bundles.items() if bridge in driven}
    for bridge, lines in bundles.items():
        for vm_id in stored.unreadable:
            lines += node.read_flows(bridge, flow.of_vm(vm_id))
    return bundles
