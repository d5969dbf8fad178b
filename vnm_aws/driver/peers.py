"""`peers`: make the mesh of this node follow the list that the front-end sends."""

from __future__ import annotations

import contextlib

from .. import files
from ..names import OVERLAY, PEER_LIST, PEER_LIST_LIMIT
from ..overlay import tunnels
from ..overlay.grants import Grants
from ..overlay.pipeline import overlay_bridge
from .node import Node


def run(node: Node, document: bytes | None) -> None:
    """Store a peer list and make the tunnels follow it; without a document, follow the stored one again.

    Raises:
        AwsOvsError: the list is not valid, or Open vSwitch refuses a change; the stored list and the tunnels are as
        before then.
    """
    earlier = _stored()
    if document is not None:
        tunnels.parse(document)
        if not node.dry_run:
            files.replace(PEER_LIST, document.decode())
    try:
        _follow(node)
    except BaseException:
        if document is not None and not node.dry_run:
            with contextlib.suppress(Exception):
                if earlier is None:
                    files.remove(PEER_LIST)
                else:
                    files.replace(PEER_LIST, earlier.decode())
                _follow(node)
        raise


def _follow(node: Node) -> None:
    told = tunnels.load()
    node.use_enis(told.further)
    node.refuse_overlap(told.vpc_cidrs)
    node.ensure_base()
    grants = Grants.of(told.grants)
    if grants != node.grants:
        # What VMs may do has changed: all their flows are made again, in one step.
        from . import restore

        node.grants = grants
        restore.run(node)
        return
    changes = tunnels.plan(node.db, told.peers, node.underlay.address)
    node.commit(changes)
    forget = [overlay_bridge.forget_learned()] if changes.operations else []
    node.flow({OVERLAY: forget + mesh_flows(node, told)})


def mesh_flows(node: Node, told: tunnels.PeerList) -> list[str]:
    """Compile the flows of the overlay bridge that depend on the peer list, in place of all earlier ones."""
    return tunnels.flows(node.db, told, node.underlay.address, node.underlay.subnet, node.config.transit_range)


def _stored() -> bytes | None:
    try:
        with open(PEER_LIST, "rb") as file:
            return file.read(PEER_LIST_LIMIT + 1)
    except FileNotFoundError:
        return None
