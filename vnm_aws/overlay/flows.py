"""Compiling the state of a node into flows: those of the whole node (`all_flows`), or of one VM (`changed_flows`).

Both compose the flows of a guest port in `_add_port`, of what the modules of `pipeline` write for each bridge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..addresses import Prefix
from ..names import NETWORK_KEY, OVERLAY, SIDE_KEY
from . import bridges
from .bridges import OvsInterface
from .guest_port import GuestPort
from .openflow import Bundles
from .ovsdb import Ovsdb
from .pipeline import destinations, flow, overlay_bridge, vnet_bridge


class Observed(NamedTuple):
    """What Open vSwitch has of ours."""

    guests: list[OvsInterface]
    patches: list[OvsInterface]

    @property
    def networks(self) -> list[tuple[str, int]]:
        """List the bridge and VNI of each network that has patch ports, in order."""
        names = {tuple(patch.ids[NETWORK_KEY].rsplit("/", 1)) for patch in self.patches}
        return [(bridge, int(vni)) for bridge, vni in sorted(names)]

    def numbers(self) -> dict[str, int]:
        """List the port numbers of the guest ports that are plugged in, by their names."""
        return {guest.name: guest.ofport for guest in self.guests if guest.ofport}

    def patch(self, bridge: str, vni: int, far: bool = False) -> int:
        """Look up the port number of a network's patch port, on its bridge or at the far end; 0 when there is none."""
        name = bridges.patch_name(bridge, vni)[far]
        return next((patch.ofport for patch in self.patches if patch.name == name), 0)

    def members(self, bridge: str, vni: int) -> list[int]:
        """List the port numbers of the guest ports of a network on its bridge."""
        network = f"{bridge}/{vni}"
        return [guest.ofport for guest in self.guests if guest.ids.get(NETWORK_KEY) == network and guest.ofport]

    def far_patches(self, vni: int) -> list[int]:
        """List the port numbers on the overlay bridge of the patch ports of a VNI that lead to guest ports."""
        inhabited = {guest.ids.get(NETWORK_KEY, "") for guest in self.guests if guest.ofport}
        of_vni = {network for network in inhabited if network.endswith(f"/{vni}")}
        return [
            patch.ofport
            for patch in self.patches
            if patch.ids.get(SIDE_KEY) == OVERLAY and patch.ids.get(NETWORK_KEY) in of_vni and patch.ofport
        ]


class Change(NamedTuple):
    """A VM's guest ports as they are, and as they are to be.

    Attributes:
        concerned: the NIC_IDs whose flows are written anew; those of the VM's other NICs stay untouched.
        whole: delete whatever flows of the VM there are, also those of NICs that nobody remembers.
    """

    vm_id: int
    before: list[GuestPort]
    after: list[GuestPort]
    concerned: set[int]
    whole: bool = False

    def concerning(self, ports: list[GuestPort]) -> list[GuestPort]:
        """Choose the ports whose flows are written anew."""
        return [port for port in ports if port.nic_id in self.concerned]


def observe(db: Ovsdb) -> Observed:
    """Read our guest and patch ports."""
    guests, patches = db.transact([bridges.select_role("guest"), bridges.select_role("patch")])
    return Observed(bridges.as_interfaces(guests), bridges.as_interfaces(patches))


def all_flows(
    observed: Observed, node: list[str], ports: Iterable[GuestPort], gateway_mac: str, transit: Prefix
) -> Bundles:
    """Compile all flows of the driver's bridges; they replace what is there.

    Ports that are not plugged in get none. `node` are the flows of the overlay bridge that depend on no network.
    """
    numbers = observed.numbers()
    plugged = [port for port in ports if port.name in numbers]
    names = {bridge for bridge, _ in observed.networks} | {port.bridge for port in plugged}
    bundles = {OVERLAY: ["flow delete", *node], **{name: ["flow delete"] for name in sorted(names)}}
    for bridge, vni in observed.networks:
        _add_network(bundles, observed, bridge, vni, gateway_mac)
    for port in plugged:
        _add_port(bundles, observed, port, numbers[port.name], gateway_mac, transit)
    return bundles


def changed_flows(observed: Observed, change: Change, gateway_mac: str, transit: Prefix) -> Bundles:
    """Compile the flows of one VM and its networks anew; `observed` is what will be after the change."""
    vm_id, new = change.vm_id, change.concerning(change.after)
    concerned = [*change.concerning(change.before), *new]
    of_nics = [flow.delete(flow.port_cookie(vm_id, nic_id)) for nic_id in sorted(change.concerned)]
    delete = [flow.delete_vm(vm_id)] if change.whole else of_nics
    bundles: Bundles = {bridge: [*delete] for bridge in [OVERLAY, *(port.bridge for port in concerned)]}
    for bridge, vni in sorted({(port.bridge, port.vni) for port in concerned}):
        _add_network(bundles, observed, bridge, vni, gateway_mac)
    numbers = observed.numbers()
    for port in new:
        if port.name in numbers:
            _add_port(bundles, observed, port, numbers[port.name], gateway_mac, transit)
            bundles[port.bridge].append(vnet_bridge.announce(port, numbers[port.name]))
    return bundles


def _add_network(bundles: Bundles, observed: Observed, bridge: str, vni: int, gateway_mac: str) -> None:
    """Write the flows of a network anew; one without guest ports has none."""
    near, members = observed.patch(bridge, vni), observed.members(bridge, vni)
    if not near:
        return  # it is not on this node, as for a VM that has never been here
    delete = flow.delete(flow.network_cookie(vni))
    bundles[bridge].append(delete)
    if members:
        bundles[bridge] += vnet_bridge.network(vni, near, members, gateway_mac)
    bundles[OVERLAY].append(delete)
    far = observed.far_patches(vni)
    if far:
        bundles[OVERLAY] += overlay_bridge.network(vni, far)


def _add_port(
    bundles: Bundles, observed: Observed, port: GuestPort, ofport: int, gateway_mac: str, transit: Prefix
) -> None:
    """Write the flows of a guest port whose port number is `ofport`."""
    bundles[port.bridge] += vnet_bridge.port(port, ofport, gateway_mac)
    patch = observed.patch(port.bridge, port.vni, far=True)
    bundles[OVERLAY] += overlay_bridge.port(port, patch, gateway_mac)
    bundles[OVERLAY] += destinations.port(port, transit)
