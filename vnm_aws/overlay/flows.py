"""Compiling the state of a node into flows: those of the whole node (`all_flows`), or of one VM (`changed_flows`).

Both compose the flows of a guest port in `_add_port`, of what the modules of `pipeline` write for each bridge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..addresses import Prefix
from ..config import Config
from ..names import NETWORK_KEY, OVERLAY, SIDE_KEY, SWITCH_KEY
from ..processes import since_boot
from . import bridges, limits, messages
from .bridges import OvsInterface
from .guest_port import GuestPort, Member
from .openflow import ALL_ANEW, Bundles
from .ovsdb import Ovsdb
from .pipeline import announcement, destinations, flow, groups, overlay_bridge, vnet_bridge


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

    def members(self, vni: int, bridge: str = "") -> list[Member]:
        """List the guest ports of a VNI that are plugged in, on all bridges or on one, by their port numbers."""
        there = [guest for guest in self.guests if guest.ofport and _is_in(guest, vni, bridge)]
        return sorted((Member.parse(guest.ids.get(SWITCH_KEY, ""), guest.ofport) for guest in there), key=_number)

    def far_patches(self, vni: int) -> list[int]:
        """List the port numbers on the overlay bridge of the patch ports of a VNI that lead to guest ports."""
        inhabited = {guest.ids.get(NETWORK_KEY, "") for guest in self.guests if guest.ofport}
        of_vni = {network for network in inhabited if network.endswith(f"/{vni}")}
        return [
            patch.ofport
            for patch in self.patches
            if patch.ids.get(SIDE_KEY) == OVERLAY and patch.ids.get(NETWORK_KEY) in of_vni and patch.ofport
        ]


def _is_in(guest: OvsInterface, vni: int, bridge: str) -> bool:
    on, _, of = guest.ids.get(NETWORK_KEY, "").rpartition("/")
    return of == str(vni) and bridge in ("", on)


def _number(member: Member) -> int:
    return member.number


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
    # What somebody else has marked so is no patch port of ours, and its bridge none of ours.
    ours = [patch for patch in bridges.as_interfaces(patches) if _joins(patch)]
    return Observed(bridges.as_interfaces(guests), ours)


def _joins(patch: OvsInterface) -> bool:
    bridge, _, vni = patch.ids.get(NETWORK_KEY, "").rpartition("/")
    return vni.isdecimal() and patch.name in bridges.patch_name(bridge, int(vni))


def all_flows(observed: Observed, node: list[str], ports: Iterable[GuestPort], settings: Config) -> Bundles:
    """Compile all flows of the driver's bridges; they replace what is there.

    Ports that are not plugged in get none. `node` are the flows of the overlay bridge that depend on no network.

    Raises:
        AwsOvsError: the security groups of a NIC need too many flows.
    """
    numbers = observed.numbers()
    plugged = [port for port in ports if port.name in numbers]
    names = {bridge for bridge, _ in observed.networks} | {port.bridge for port in plugged}
    bundles = {OVERLAY: [ALL_ANEW, *node], **{name: [ALL_ANEW] for name in sorted(names)}}
    for bridge, vni in observed.networks:
        _add_network(bundles, observed, bridge, vni, settings)
    for port in plugged:
        _add_port(bundles, observed, port, numbers[port.name], settings)
        _add_meters(bundles, port, messages.adjust(port.slot, settings.flood_limit))
        _add_zone(bundles, port, settings, is_new=False)
    asked: set[tuple[object, ...]] = set()
    for port in plugged:
        question = (port.bridge, port.vni, port.filter_mac)
        _announce(bundles, observed, port, numbers[port.name], asks=question not in asked)
        asked.add(question)
    return bundles


def changed_flows(observed: Observed, change: Change, settings: Config) -> Bundles:
    """Compile the flows of one VM and its networks anew; `observed` is what will be after the change."""
    vm_id, new = change.vm_id, change.concerning(change.after)
    concerned = [*change.concerning(change.before), *new]
    of_nics = [line for nic_id in sorted(change.concerned) for line in flow.delete_port(vm_id, nic_id)]
    delete = flow.delete_vm(vm_id) if change.whole else of_nics
    bundles: Bundles = {bridge: [*delete] for bridge in [OVERLAY, *(port.bridge for port in concerned)]}
    vnis = {port.vni for port in concerned}  # a VNI may have several bridges, and what is new concerns all of them
    for bridge, vni in observed.networks:
        if vni in vnis:
            _add_network(bundles, observed, bridge, vni, settings)
    numbers = observed.numbers()
    plugged = [port for port in new if port.name in numbers]
    kept = {(port.nic_id, port.slot): port.zone for port in change.before}
    for port in plugged:
        _add_port(bundles, observed, port, numbers[port.name], settings)
        write = messages.keep if (port.nic_id, port.slot) in kept else messages.new
        _add_meters(bundles, port, write(port.slot, settings.flood_limit))
        _add_zone(bundles, port, settings, is_new=kept.get((port.nic_id, port.slot)) != port.zone)
    zones = {port.zone for port in new}
    for port in change.concerning(change.before):
        if port.zone and port.zone not in zones:
            bundles[port.bridge].append(flow.delete_answers(vm_id, port.nic_id))
            bundles[port.bridge].append(messages.forget(port.zone))
    known = {(port.name, port.bridge, port.vni) for port in change.before}
    for port in plugged:
        is_new = (port.name, port.bridge, port.vni) not in known
        _announce(bundles, observed, port, numbers[port.name], asks=is_new or not port.filter_mac)
    return bundles


def _add_network(bundles: Bundles, observed: Observed, bridge: str, vni: int, settings: Config) -> None:
    """Write the flows of a network anew; one without guest ports has none."""
    near, members, everyone = observed.patch(bridge, vni), observed.members(vni, bridge), observed.members(vni)
    if not near:
        return  # it is not on this node, as for a VM that has never been here
    delete, forget = flow.delete(flow.network_cookie(vni)), flow.delete(flow.learned_in_network(vni))
    on_bridge = bundles.setdefault(bridge, [])
    on_bridge.append(delete)
    if members:
        on_bridge += vnet_bridge.network(vni, near, members, everyone, settings.gateway_mac)
    if not any(member.any_mac for member in members):
        on_bridge.append(forget)
    bundles[OVERLAY].append(delete)
    far = observed.far_patches(vni)
    if far:
        bundles[OVERLAY] += overlay_bridge.network(vni, far, {member.mac for member in everyone if member.mac})
    else:
        bundles[OVERLAY].append(forget)


def _add_port(bundles: Bundles, observed: Observed, port: GuestPort, ofport: int, settings: Config) -> None:
    """Write the flows of a guest port whose port number is `ofport`."""
    bundles[port.bridge] += vnet_bridge.port(port, ofport, settings.gateway_mac, settings.learned_macs)
    patch = observed.patch(port.bridge, port.vni, far=True)
    bundles[OVERLAY] += overlay_bridge.port(port, patch, settings.gateway_mac)
    bundles[OVERLAY] += destinations.port(port, Prefix(settings.transit_range, "transit_range"))
    if port.zone:
        bundles[port.bridge] += groups.port(port, ofport, since_boot())


def _add_meters(bundles: Bundles, port: GuestPort, line: str) -> None:
    """Set the meter of a guest port on both bridges: one for what it floods knowingly, one for what has no known place."""
    for bridge in (port.bridge, OVERLAY):
        bundles[bridge].append(line)


def _add_zone(bundles: Bundles, port: GuestPort, settings: Config, is_new: bool) -> None:
    """Prepare the zone of connection tracking of a guest port; a new one forgets whose it was."""
    if port.zone:
        if is_new:
            bundles[port.bridge].append(messages.flush(port.zone))
        bundles[port.bridge].append(limits.limit(settings.datapath_type, port.zone, settings.connections_per_nic))


def _announce(bundles: Bundles, observed: Observed, port: GuestPort, ofport: int, asks: bool) -> None:
    """Tell the peers of a guest port, behind all flows that this needs."""
    near, far = (observed.patch(port.bridge, port.vni, far) for far in (False, True))
    if not near or not far:
        return
    bundles[OVERLAY].append(announcement.send(far, port.mac, asks))
    if asks and not port.filter_mac:
        # Both bridges need the answers. They change at the same time: who is the last asks behind the other.
        bundles[port.bridge].append(announcement.send(ofport, port.mac, asks, f"output:{near}"))
