"""The node as a whole: observed once for each action, and brought into the state that everything else stands on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import __version__, config, files
from ..addresses import Network
from ..errors import AwsOvsError
from ..lock import RUN
from ..overlay import bridges, openflow, tunnels, upcalls
from ..overlay.bridges import OVERLAY, Interface
from ..overlay.guest_port import GuestPort
from ..overlay.ovsdb import Ovsdb
from ..overlay.pipeline import flow, overlay_bridge, vnet_bridge
from ..underlay import eni
from . import state

MARKER = f"{RUN}/node.json"
NOT_RUNNING = "not running"
_VSWITCHD_PID = "/run/openvswitch/ovs-vswitchd.pid"


class Observed(NamedTuple):
    """What Open vSwitch has of ours."""

    guests: list[Interface]
    patches: list[Interface]

    def patch(self, bridge: str, vni: int, far: bool = False) -> int:
        """Port number of the patch port of a network, on its bridge or at the far end; 0 when it is not there."""
        name = bridges.patch_name(bridge, vni)[far]
        return next((row.ofport for row in self.patches if row.name == name), 0)

    def members(self, bridge: str, vni: int) -> list[int]:
        """Port numbers of the guest ports of a network on its bridge."""
        network = f"{bridge}/{vni}"
        return [row.ofport for row in self.guests if row.ids.get("aws_ovs-network") == network and row.ofport]

    def far_patches(self, vni: int) -> list[int]:
        """Port numbers on the overlay bridge of the patch ports of a VNI that lead to guest ports."""
        inhabited = {row.ids.get("aws_ovs-network", "") for row in self.guests if row.ofport}
        of_vni = {network for network in inhabited if network.endswith(f"/{vni}")}
        return [
            row.ofport
            for row in self.patches
            if row.ids.get("aws_ovs-on") == OVERLAY and row.ids.get("aws_ovs-network") in of_vni and row.ofport
        ]


class Node:
    """This node; create it with the lock held.

    Raises:
        AwsOvsError: the configuration, the underlay or Open vSwitch is not usable.
    """

    def __init__(self, settings: config.Config, dry_run: bool = False) -> None:
        self.config = settings
        self.dry_run = dry_run
        self.transit = Network(settings.transit_range, "transit_range")
        self.underlay = eni.find(settings.underlay_interface)
        self.db = Ovsdb()

    def observe(self) -> Observed:
        """Read our guest and patch ports."""
        guests, patches = self.db.transact([bridges.select_role("guest"), bridges.select_role("patch")])
        return Observed(bridges.as_interfaces(guests), bridges.as_interfaces(patches))

    def commit(self, changes: bridges.Transaction) -> None:
        """Carry out a transaction and wait for ovs-vswitchd; a dry run prints it."""
        if self.dry_run:
            for reason in changes.reasons:
                print("#", reason)
            for operation in changes.operations:
                print("ovsdb", json.dumps(operation))
        else:
            self.db.commit(changes.operations)

    def flow(self, bundles: openflow.Bundles) -> None:
        """Change flows; a dry run prints them."""
        if self.dry_run:
            for bridge, lines in bundles.items():
                for line in lines:
                    print(bridge, line)
        else:
            openflow.apply(bundles)

    def ensure_base(self) -> None:
        """Make sure that the node itself is set up: a look at one small file when it is, everything when it is not.

        It is not before the first VM, after a restart of ovs-vswitchd (which forgets all flows), and when the
        configuration, the ENI or the driver's version has changed.
        """
        if read_marker() != self.marker() and not self.dry_run:
            self.restore()

    def marker(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "config": list(self.config),
            "underlay": list(self.underlay),
            "ovs-vswitchd": vswitchd(),
        }

    def restore(self) -> None:
        """Build everything that should be on this node from the stored peers and VMs; what is right stays.

        Raises:
            AwsOvsError: ovs-vswitchd does not run, or something is refused.
        """
        made_for = self.marker()  # an ovs-vswitchd that starts while we are at it knows nothing of this
        if made_for["ovs-vswitchd"] == NOT_RUNNING:
            raise AwsOvsError("ovs-vswitchd does not run", "start it: systemctl start openvswitch-switch")
        if self.dry_run:
            from . import preview

            preview.run(self)
            return
        try:
            # One that has just started still shows the port numbers of the one before it.
            self.db.commit([{"op": "comment", "comment": "aws-ovs restore"}])
            self._build()
        finally:
            upcalls.release(self.db)
        files.replace(MARKER, json.dumps(made_for))

    def _build(self) -> None:
        ports = state.everything()
        for changes in self.plans(ports):
            self.commit(changes)
        from ..underlay import kernel  # costs 170 ms

        settings = self.config
        kernel.ensure(self.underlay, settings.gateway_mac, settings.transit_range, settings.internet_mtu)
        self.flow(self.all_flows(ports))

    def plans(self, ports: list[GuestPort]) -> Iterator[bridges.Transaction]:
        """What makes bridges, patch ports and tunnels those that the peers and these ports need, one after the other."""
        yield bridges.plan_overlay(self.db, self.config.datapath_type, self.config.internet_mtu)
        if ports:
            networks = {(port.bridge, port.vni) for port in ports}
            yield bridges.plan_networks(self.db, networks, self.config.datapath_type)
        yield tunnels.plan(self.db, tunnels.load(), self.underlay.address)
        yield bridges.plan_guests(self.db, ports)

    def all_flows(self, ports: list[GuestPort]) -> openflow.Bundles:
        """All flows of the driver's bridges, for ports that are plugged in; they replace what is there."""
        observed = self.observe()
        numbers = {
            row.name: row.ofport for row in bridges.as_interfaces(self.db.transact([bridges.select_role("node")])[0])
        }
        settings = self.config
        overlay = ["flow delete"]
        overlay += overlay_bridge.node(
            numbers[bridges.GATEWAY_PORT], numbers[bridges.REPAIR_PORT], settings.gateway_mac, settings.transit_range
        )
        bundles = {OVERLAY: overlay + self.mesh_flows()}
        networks = {tuple(row.ids["aws_ovs-network"].rsplit("/", 1)) for row in observed.patches}
        for bridge, vni in sorted(networks):
            bundles.setdefault(bridge, ["flow delete"])
            self.add_network(bundles, observed, bridge, int(vni))
        numbers = {row.name: row.ofport for row in observed.guests}
        for port in ports:
            if numbers.get(port.name):
                flows = vnet_bridge.port(port, numbers[port.name], settings.gateway_mac)
                bundles.setdefault(port.bridge, ["flow delete"]).extend(flows)
                far = observed.patch(port.bridge, port.vni, far=True)
                bundles[OVERLAY] += overlay_bridge.port(port, far, settings.gateway_mac)
        return bundles

    def add_network(self, bundles: openflow.Bundles, observed: Observed, bridge: str, vni: int) -> None:
        """Write the flows of a network anew in `bundles`; one without guest ports has none."""
        near, members = observed.patch(bridge, vni), observed.members(bridge, vni)
        if not near:
            return  # it is not on this node, as for a VM that has never been here
        here, overlay = bundles.setdefault(bridge, []), bundles.setdefault(OVERLAY, [])
        here.append(flow.delete(flow.network_cookie(vni)))
        if members:
            here += vnet_bridge.network(vni, near, members, self.config.gateway_mac)
        overlay.append(flow.delete(flow.network_cookie(vni)))
        far = observed.far_patches(vni)
        if far:
            overlay += overlay_bridge.network(vni, far)

    def mesh_flows(self) -> list[str]:
        """Flows that depend on the peers."""
        addresses = {peer.vtep for peer in tunnels.load()} | {self.underlay.address}
        return overlay_bridge.mesh(tunnels.numbers(self.db), sorted(addresses))


def vswitchd() -> str:
    """Which ovs-vswitchd process runs: its pid and start time, or NOT_RUNNING."""
    try:
        with open(_VSWITCHD_PID, encoding="ascii") as file:
            pid = file.read().strip()
        with open(f"/proc/{int(pid)}/stat", encoding="ascii") as file:
            return f"{pid} {file.read().rpartition(')')[2].split()[19]}"
    except (OSError, ValueError, IndexError):
        return NOT_RUNNING


def read_marker() -> Any:
    """What the node's base was last built for; None when it was not since the last boot."""
    try:
        with open(MARKER, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
