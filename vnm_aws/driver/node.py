"""The node as an action sees it: its settings, its ENI, Open vSwitch, and whether all else is set up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from .. import __version__, config
from ..addresses import Prefix
from ..names import RUN
from ..overlay import flows, openflow, stand_ins
from ..overlay.bridges import Transaction
from ..overlay.grants import Grants, stored
from ..overlay.guest_port import GuestPort
from ..overlay.ovsdb import Ovsdb
from ..table import printable
from ..underlay import eni, kernel

MARKER = f"{RUN}/node.json"
NOT_RUNNING = "not running"
PICK_UP_S = 300
"""How long a NIC picks up connections that connection tracking does not know."""
_VSWITCHD_PID = "/run/openvswitch/ovs-vswitchd.pid"


class Node:
    """This node, made of its parts; `find` finds the real ones. A dry run prints changes and makes none."""

    def __init__(
        self,
        settings: config.Config,
        underlay: eni.Underlay,
        db: Ovsdb,
        dry_run: bool = False,
        apply_flows: Callable[[openflow.Bundles], None] = openflow.apply,
        read_flows: Callable[[str, str], list[str]] = openflow.read,
        look_at_kernel: Callable[[eni.Underlay, config.Config], list[str]] = lambda *_: [],
        told: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.underlay, self.db, self.dry_run = settings, underlay, db, dry_run
        self.transit = Prefix(settings.transit_range, "transit_range")
        self._apply_flows, self._look_at_kernel = apply_flows, look_at_kernel
        self.read_flows = read_flows
        self.grants = Grants.of((stored() if told is None else told).get("grants"))
        self.stand_ins = stand_ins.load()

    @classmethod
    def find(cls, settings: config.Config, dry_run: bool = False) -> Node:
        """Find the parts of this node, all of which must be usable; the caller holds the lock."""
        told = stored()
        underlay = find_underlay(settings, told)
        return cls(settings, underlay, Ovsdb(), dry_run, look_at_kernel=kernel.glance, told=told)

    def in_force(self, ports: list[GuestPort]) -> list[GuestPort]:
        """List guest ports as far as their networks grant what they are, with stand-ins for addresses of other subnets."""
        return [self.stand_ins.in_force(self.grants.limit(port, self.transit)) for port in ports]

    def observe(self) -> flows.Observed:
        """Read our guest and patch ports."""
        return flows.observe(self.db)

    def commit(self, changes: Transaction) -> None:
        """Carry out a transaction and wait for ovs-vswitchd; a dry run prints it."""
        if self.dry_run:
            for reason in changes.reasons:
                print("#", printable(reason))
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
            self._apply_flows(bundles)

    def refuse_overlap(self, blocks: Iterable[str] = ()) -> None:
        """Refuse a transit_range in which this node has something else already; `blocks` are those of the VPC.

        Raises:
            AwsOvsError: the driver's route would take its way.
        """
        eni.refuse_overlap(self.transit, self.underlay, blocks, is_set_up=read_marker() is not None)

    def ensure_base(self) -> bool:
        """Make sure that the node itself is set up: look at a file and at the kernel, do everything when it is not.

        It is not before the first VM, after a restart of ovs-vswitchd (which forgets all flows), and when the
        configuration, the ENI or the driver's version has changed. And others change the kernel: a restart of
        systemd-networkd removes rules and routes that it has not made.

        Returns:
            whether it has been restored: the files of VMs may have changed.

        Raises:
            AwsOvsError: the node cannot be set up.
        """
        self.refuse_overlap()
        if self.dry_run:
            return False
        if read_marker() != self.marker():
            from . import restore  # only then is it needed

            restore.run(self)
            return True
        if self._look_at_kernel(self.underlay, self.config):
            from . import heal

            heal.run(self)
        return False

    def use_enis(self, told: Iterable[tuple[str, str, str]]) -> None:
        """Use these further ENIs from now on, each told by its MAC, primary address and subnet."""
        enis = list(told)
        if enis != [(known.mac, known.address, known.subnet) for known in self.underlay.further]:
            self.underlay = eni.find(self.config.underlay_interface, enis)

    def marker(self) -> dict[str, Any]:
        """Describe what the node's base depends on."""
        return describe(self.config, self.underlay)


def find_underlay(settings: config.Config, told: dict[str, Any]) -> eni.Underlay:
    """Find the ENIs of this node; `told` is the stored peer list, which has the further ones.

    Raises:
        AwsOvsError: the first one cannot be found.
    """
    try:
        enis = [(entry["mac"], entry["address"], entry["subnet"]) for entry in told.get("enis", ())]
    except (TypeError, KeyError):  # somebody has written into it; `check` says so
        enis = []
    return eni.find(settings.underlay_interface, enis)


def describe(settings: config.Config, underlay: eni.Underlay) -> dict[str, Any]:
    """Describe what a node's base depends on."""
    return {
        "version": __version__,
        "config": list(settings),
        "underlay": [underlay.interface, underlay.address, underlay.subnet, underlay.mtu],
        "ovs-vswitchd": vswitchd(),
    }


def vswitchd() -> str:
    """Tell which ovs-vswitchd process runs: its pid and start time, or NOT_RUNNING."""
    try:
        with open(_VSWITCHD_PID, encoding="ascii") as file:
            pid = file.read().strip()
        with open(f"/proc/{int(pid)}/stat", encoding="ascii") as file:
            return f"{pid} {file.read().rpartition(')')[2].split()[19]}"
    except (OSError, ValueError, IndexError):
        return NOT_RUNNING


def read_marker() -> Any:
    """Read what the node's base was last built for; None when it was not since the last boot."""
    try:
        with open(MARKER, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
