"""Virtual networks of the oned stand-in: address ranges, leases, and their documents as oned prints them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from .template import Template, element, ids
from .wire import INTERNAL, OneError

READY, LOCK_CREATE, LOCK_DELETE, ERROR, UPDATE_FAILURE = 1, 2, 3, 5, 6
STATE_NAMES = ("INIT", "READY", "LOCK_CREATE", "LOCK_DELETE", "DONE", "ERROR", "UPDATE_FAILURE")

_OWNER_VM = 0x1000000000
_OWNER_ID = 0xFFFFFFFF
HELD = -1
"""The VM of an address that one.vn.hold took."""

_TYPES = ("IP4", "ETHER", "IP4_6", "IP6", "IP4_6_STATIC", "IP6_STATIC")
_GENERATED = ("MAC_END", "IP_END", "USED_LEASES", "LEASES", "PARENT_NETWORK_AR_ID", "ALLOCATED")
_PERMISSIONS = "".join(
    f"<{who}_{what}>{flag}</{who}_{what}>"
    for who, flags in (("OWNER", "110"), ("GROUP", "000"), ("OTHER", "000"))
    for what, flag in zip("UMA", flags, strict=True)
)


def _mac(first: str, offset: int) -> str:
    number = int(first.replace(":", ""), 16) + offset
    return ":".join(f"{number:012x}"[at : at + 2] for at in range(0, 12, 2))


class AddressRange:
    """An address range.

    Attributes:
        attributes: as oned keeps them: AR_ID, TYPE, SIZE, MAC, SHARED, IP for IPv4, and custom ones.
        leases: who has an address, by its place in the range.
        sharers: who else has an address, of a range with SHARED, where several VMs may.
    """

    def __init__(self, range_id: int, wanted: dict[str, str]) -> None:
        """Make the range that one.vn.add_ar makes of what a client wants. Raises OneError."""
        attributes = {name: value for name, value in wanted.items() if name not in _GENERATED}
        kind = attributes.get("TYPE", "").upper()
        if kind not in _TYPES:
            raise OneError(INTERNAL, "Unknown or missing address range TYPE.")
        attributes["SHARED"] = "YES" if attributes.get("SHARED", "").upper() == "YES" else "NO"
        mac = attributes.get("MAC", "")
        if kind.startswith("IP4"):
            try:
                mac = mac or _mac("02:00:00:00:00:00", int(ipaddress.IPv4Address(attributes.get("IP", ""))))
            except ipaddress.AddressValueError:
                raise OneError(INTERNAL, "Wrong or empty IP attribute") from None
        else:
            attributes.pop("IP", None)
            # The real oned takes a random one; a fixed one makes tests repeatable.
            mac = mac or _mac("02:00:f0:00:00:00", range_id << 16)
        if not attributes.get("SIZE", "").isdigit():
            raise OneError(INTERNAL, "Wrong SIZE for address range")
        self.attributes = {**attributes, "MAC": mac.lower(), "AR_ID": str(range_id)}
        self.leases: dict[int, int] = {}
        self.sharers: list[tuple[int, int]] = []

    @property
    def range_id(self) -> int:
        return int(self.attributes["AR_ID"])

    @property
    def size(self) -> int:
        return int(self.attributes["SIZE"])

    def update(self, wanted: dict[str, str]) -> None:
        """Take all attributes from `wanted`, but those that oned keeps. Raises OneError."""
        attributes = {name: value for name, value in wanted.items() if name not in (*_GENERATED, "IP")}
        for name in ("TYPE", "SHARED", "MAC", "IP", "AR_ID"):
            if name in self.attributes:
                attributes[name] = self.attributes[name]
        size = attributes.get("SIZE") or str(self.size)
        if any(index >= int(size) for index in self.leases):
            raise OneError(
                INTERNAL, "New SIZE cannot be applied. There are used leases that would fall outside the range."
            )
        self.attributes = {**attributes, "SIZE": size}
        self._note_leases()

    def take(self, index: int, vm_id: int) -> None:
        """Give the address to a VM, or hold it."""
        if index in self.leases:
            self.sharers.append((index, vm_id))
        self.leases.setdefault(index, vm_id)
        self._note_leases()

    def give_back(self, index: int) -> None:
        """Take the address back; of several VMs, from the first."""
        del self.leases[index]
        others = [owner for owner in self.sharers if owner[0] == index]
        if others:
            self.sharers.remove(others[0])
            self.leases[index] = others[0][1]
        self._note_leases()

    def address(self, index: int) -> str:
        """Give the IPv4 address (of a range without one, the MAC) at an index."""
        first = self.attributes.get("IP")
        return str(ipaddress.IPv4Address(first) + index) if first else _mac(self.attributes["MAC"], index)

    @property
    def owners(self) -> list[tuple[int, int]]:
        """List places and who has them."""
        return sorted([*self.leases.items(), *self.sharers])

    @property
    def is_shared(self) -> bool:
        """Tell whether several VMs may have one address."""
        return self.attributes["SHARED"] == "YES"

    def _note_leases(self) -> None:
        self.attributes["ALLOCATED"] = "".join(
            f" {index} {_OWNER_VM | vm_id & _OWNER_ID}" for index, vm_id in self.owners
        )

    def pool_xml(self) -> str:
        """Write it as one.vnpool.info prints it: what the database has."""
        return element("AR", self.attributes)

    def xml(self) -> str:
        """Write it as one.vn.info prints it, with the leases."""
        values = "".join(element(key, value) for key, value in sorted(self.attributes.items()) if key != "ALLOCATED")
        ends = "".join(element(f"{name}_END", text) for name, text in self._addresses(self.size - 1).items())
        leases = "".join(element("LEASE", {**self._addresses(index), "VM": str(vm_id)}) for index, vm_id in self.owners)
        leases = f"<LEASES>{leases}</LEASES>" if leases else "<LEASES/>"
        return f"<AR>{values}{ends}<USED_LEASES>{len(self.leases)}</USED_LEASES>{leases}</AR>"

    def _addresses(self, index: int) -> dict[str, str]:
        mac = {"MAC": _mac(self.attributes["MAC"], index)}
        return {**mac, "IP": self.address(index)} if self.attributes.get("IP") else mac


@dataclass
class VirtualNetwork:
    """A virtual network; `state` as in one.vn.info."""

    vnet_id: int
    name: str
    clusters: list[int]
    template: Template
    is_automatic: bool
    state: int = LOCK_CREATE
    previous: int = 0
    ranges: list[AddressRange] = field(default_factory=list)
    next_range: int = 0

    def range(self, range_id: int) -> AddressRange | None:
        """Find the range of that AR_ID."""
        return next((item for item in self.ranges if item.range_id == range_id), None)

    def add_range(self, wanted: dict[str, str]) -> None:
        """Add an address range. Raises OneError."""
        self.ranges.append(AddressRange(self.next_range, wanted))
        self.next_range += 1

    def set_state(self, state: int) -> None:
        """Change the state as oned does and writes it."""
        self.state = self.previous = state

    def update(self, wanted: Template) -> None:
        """Take another template, with what oned keeps and adds."""
        for name in ("VN_MAD", "BRIDGE", "BRIDGE_TYPE"):
            wanted.put(name, wanted.text(name) or self.template.text(name))
        for name in ("PHYDEV", "VLAN_ID", "OUTER_VLAN_ID"):
            wanted.put(name, wanted.text(name))
        if self.is_automatic:
            wanted.take("VLAN_ID")
        self.template, self.previous = wanted, self.state

    def xml(self, pool: bool = False) -> str:
        """Write the document of one.vn.info, or of a network in one.vnpool.info."""
        texts = {name: self.template.text(name) for name in ("VN_MAD", "PHYDEV", "VLAN_ID", "OUTER_VLAN_ID")}
        optional = "".join(element(name, text) if text else f"<{name}/>" for name, text in texts.items())
        bridge = "".join(element(name, self.template.text(name)) for name in ("BRIDGE", "BRIDGE_TYPE"))
        ranges = "".join(item.pool_xml() if pool else item.xml() for item in self.ranges)
        used = sum(len(item.leases) for item in self.ranges)
        return (
            f"<VNET><ID>{self.vnet_id}</ID><UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>"
            f"<NAME>{self.name}</NAME><PERMISSIONS>{_PERMISSIONS}</PERMISSIONS>{ids('CLUSTERS', self.clusters)}"
            f"{bridge}{element('STATE', self.state)}{element('PREV_STATE', self.previous)}<PARENT_NETWORK_ID/>{optional}"
            f"<VLAN_ID_AUTOMATIC>{int(self.is_automatic)}</VLAN_ID_AUTOMATIC>"
            "<OUTER_VLAN_ID_AUTOMATIC>0</OUTER_VLAN_ID_AUTOMATIC>"
            f"<USED_LEASES>{used}</USED_LEASES><VROUTERS></VROUTERS><UPDATED_VMS></UPDATED_VMS>"
            "<OUTDATED_VMS></OUTDATED_VMS><UPDATING_VMS></UPDATING_VMS><ERROR_VMS></ERROR_VMS>"
            f"{self.template.xml()}<AR_POOL>{ranges}</AR_POOL></VNET>"
        )
