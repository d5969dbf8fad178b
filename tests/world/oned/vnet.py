"""Virtual networks of the oned stand-in: address ranges, leases, and their documents as oned prints them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from .objects import ids, number_of, template_of, text_of
from .template import Template, cdata, element, vector

READY, LOCK_CREATE, LOCK_DELETE, ERROR, UPDATE_FAILURE = 1, 2, 3, 5, 6
STATE_NAMES = ("INIT", "READY", "LOCK_CREATE", "LOCK_DELETE", "DONE", "ERROR", "UPDATE_FAILURE")

_OWNER_VM = 0x1000000000
_OWNER_ID = 0xFFFFFFFF
HELD = -1
"""The VM of an address that one.vn.hold took."""

_GENERATED = ("MAC_END", "IP_END", "USED_LEASES", "LEASES", "PARENT_NETWORK_AR_ID")
_MEMBERS = ("UPDATED_VMS", "OUTDATED_VMS", "UPDATING_VMS", "ERROR_VMS")


class RangeError(ValueError):
    """What a client wants of an address range is not possible; the message is oned's."""


def _mac(first: str, offset: int) -> str:
    number = int(first.replace(":", ""), 16) + offset
    return ":".join(f"{number:012x}"[at : at + 2] for at in range(0, 12, 2))


class AddressRange:
    """An address range.

    Args:
        attributes: as oned keeps them: AR_ID, TYPE, SIZE, MAC, SHARED, IP for IPv4, and custom ones.
    """

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes
        self.leases: dict[int, list[int]] = {}
        numbers = [int(word) for word in attributes.get("ALLOCATED", "").split()]
        for index, owner in zip(numbers[::2], numbers[1::2], strict=True):
            vm_id = owner & _OWNER_ID
            self.leases.setdefault(index, []).append(HELD if vm_id == _OWNER_ID else vm_id)

    @classmethod
    def requested(cls, range_id: int, wanted: dict[str, str]) -> AddressRange:
        """The range that one.vn.add_ar makes of what a client wants. Raises RangeError."""
        attributes = {name: value for name, value in wanted.items() if name not in (*_GENERATED, "ALLOCATED")}
        kind = attributes.get("TYPE", "").upper()
        if kind not in ("IP4", "ETHER", "IP4_6", "IP6", "IP4_6_STATIC", "IP6_STATIC"):
            raise RangeError("Unknown or missing address range TYPE.")
        attributes["SHARED"] = "YES" if attributes.get("SHARED", "").upper() == "YES" else "NO"
        mac = attributes.get("MAC", "")
        if kind.startswith("IP4"):
            try:
                mac = mac or _mac("02:00:00:00:00:00", int(ipaddress.IPv4Address(attributes.get("IP", ""))))
            except ipaddress.AddressValueError:
                raise RangeError("Wrong or empty IP attribute") from None
        else:
            attributes.pop("IP", None)
            # The real oned takes a random one; a fixed one makes tests repeatable.
            mac = mac or _mac("02:00:f0:00:00:00", range_id << 16)
        attributes["MAC"] = mac.lower()
        if not attributes.get("SIZE", "").isdigit():
            raise RangeError("Wrong SIZE for address range")
        attributes["AR_ID"] = str(range_id)
        return cls(attributes)

    @property
    def range_id(self) -> int:
        return int(self.attributes["AR_ID"])

    @property
    def size(self) -> int:
        return int(self.attributes["SIZE"])

    @property
    def used(self) -> int:
        """How many leases there are."""
        return sum(len(owners) for owners in self.leases.values())

    def update(self, wanted: dict[str, str]) -> None:
        """Take all attributes from `wanted`, but those that oned keeps. Raises RangeError."""
        attributes = {name: value for name, value in wanted.items() if name not in _GENERATED and name != "IP"}
        for name in ("TYPE", "SHARED", "MAC", "IP", "AR_ID"):
            if name in self.attributes:
                attributes[name] = self.attributes[name]
        size = attributes.get("SIZE") or str(self.size)
        if not size.isdigit():
            raise RangeError("Unable to read the SIZE attribute, it must be number >= 0")
        if any(index >= int(size) for index in self.leases):
            raise RangeError("New SIZE cannot be applied. There are used leases that would fall outside the range.")
        attributes["SIZE"], attributes["ALLOCATED"] = size, ""
        self.attributes = attributes
        self._note_leases()

    def index_of(self, lease: dict[str, str]) -> int | None:
        """Which address of the range a lease's IP or MAC is, None for none."""
        for name in ("IP", "MAC"):
            if lease.get(name):
                return next((index for index in range(self.size) if self._address(name, index) == lease[name]), None)
        return None

    def take(self, index: int, vm_id: int) -> None:
        """Give the address to a VM, or hold it."""
        self.leases.setdefault(index, []).append(vm_id)
        self._note_leases()

    def give_back(self, index: int, vm_id: int) -> None:
        """Take the address back, if the VM has it."""
        owners = self.leases.get(index, [])
        if vm_id in owners:
            owners.remove(vm_id)
            if not owners:
                del self.leases[index]
            self._note_leases()

    def free_index(self) -> int | None:
        """The first address that nobody has."""
        return next((index for index in range(self.size) if index not in self.leases), None)

    def address(self, index: int) -> str:
        """The IPv4 address (of a range without one, the MAC) at an index."""
        return self._address("IP", index) or self._address("MAC", index)

    def _address(self, name: str, index: int) -> str:
        first = self.attributes.get(name, "")
        if not first:
            return ""
        return str(ipaddress.IPv4Address(first) + index) if name == "IP" else _mac(first, index)

    def _note_leases(self) -> None:
        self.attributes["ALLOCATED"] = "".join(
            f" {index} {_OWNER_VM | vm_id & _OWNER_ID}"
            for index, owners in sorted(self.leases.items())
            for vm_id in owners
        )

    def pool_xml(self) -> str:
        """As one.vnpool.info prints it: what the database has."""
        return vector("AR", self.attributes)

    def xml(self) -> str:
        """As one.vn.info prints it, with the leases."""
        values = "".join(element(key, value) for key, value in sorted(self.attributes.items()) if key != "ALLOCATED")
        ends = element("MAC_END", self._address("MAC", self.size - 1))
        if self.attributes.get("IP"):
            ends += element("IP_END", self._address("IP", self.size - 1))
        leases = "".join(self._lease_xml(index, vm_id) for index, vm_id in self._each_lease())
        leases = f"<LEASES>{leases}</LEASES>" if leases else "<LEASES/>"
        return f"<AR>{values}{ends}<USED_LEASES>{self.used}</USED_LEASES>{leases}</AR>"

    def _each_lease(self) -> Iterator[tuple[int, int]]:
        for index, owners in sorted(self.leases.items()):
            for vm_id in sorted(owners):
                yield index, vm_id

    def _lease_xml(self, index: int, vm_id: int) -> str:
        values = {"MAC": self._address("MAC", index), "VM": str(vm_id)}
        if self.attributes.get("IP"):
            values["IP"] = self._address("IP", index)
        return vector("LEASE", values)


@dataclass
class VirtualNetwork:
    """A virtual network; `state` as in one.vn.info."""

    vnet_id: int
    name: str
    clusters: list[int]
    template: Template
    bridge: str = ""
    bridge_type: str = ""
    vn_mad: str = ""
    phydev: str = ""
    vlan_id: str = ""
    outer_vlan_id: str = ""
    automatic: int = 0
    outer_automatic: int = 0
    state: int = LOCK_CREATE
    previous: int = 0
    ranges: list[AddressRange] = field(default_factory=list)
    next_range: int = 0
    members: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in _MEMBERS})

    @classmethod
    def read(cls, node: etree._Element) -> VirtualNetwork:
        """The network of a document of one.vnpool.info."""
        vnet = cls(
            number_of(node, "ID"),
            text_of(node, "NAME"),
            [int(item.text or 0) for item in node.findall("CLUSTERS/ID")],
            template_of(node),
            text_of(node, "BRIDGE"),
            text_of(node, "BRIDGE_TYPE"),
            text_of(node, "VN_MAD"),
            text_of(node, "PHYDEV"),
            text_of(node, "VLAN_ID"),
            text_of(node, "OUTER_VLAN_ID"),
            number_of(node, "VLAN_ID_AUTOMATIC"),
            number_of(node, "OUTER_VLAN_ID_AUTOMATIC"),
            number_of(node, "STATE"),
            number_of(node, "PREV_STATE"),
            [AddressRange(values) for values in template_of(node, "AR_POOL").vectors("AR")],
        )
        vnet.next_range = max((item.range_id + 1 for item in vnet.ranges), default=0)
        vnet.members = {name: {int(item.text or 0) for item in node.findall(f"{name}/ID")} for name in _MEMBERS}
        return vnet

    @property
    def used(self) -> int:
        """How many leases its ranges have."""
        return sum(item.used for item in self.ranges)

    def range(self, range_id: int) -> AddressRange | None:
        """The range of that AR_ID."""
        return next((item for item in self.ranges if item.range_id == range_id), None)

    def add_range(self, wanted: dict[str, str]) -> AddressRange:
        """Add an address range. Raises RangeError."""
        added = AddressRange.requested(self.next_range, wanted)
        self.next_range += 1
        self.ranges.append(added)
        return added

    def set_state(self, state: int) -> None:
        """Change the state as oned does and writes it."""
        self.state = self.previous = state

    def updated(self) -> None:
        """Take over what a changed template says of the network itself. Raises RangeError when VN_MAD is missing."""
        if not self.template.text("VN_MAD"):
            self.template.replace("VN_MAD", self.vn_mad)
            raise RangeError("No VN_MAD in template for Virtual Network.")
        self.vn_mad = self.template.text("VN_MAD")
        self.bridge_type = self.template.text("BRIDGE_TYPE") or self.bridge_type
        self.phydev = self.template.text("PHYDEV")
        self.bridge = self.template.text("BRIDGE") or self.bridge
        for name, value in (("BRIDGE_TYPE", self.bridge_type), ("PHYDEV", self.phydev), ("BRIDGE", self.bridge)):
            self.template.replace(name, value)
        if self.automatic:
            self.template.remove("VLAN_ID")
        else:
            self.vlan_id = self.template.text("VLAN_ID")
            self.template.replace("VLAN_ID", self.vlan_id)
        if self.outer_automatic:
            self.template.remove("OUTER_VLAN_ID")
        else:
            self.outer_vlan_id = self.template.text("OUTER_VLAN_ID")
            self.template.replace("OUTER_VLAN_ID", self.outer_vlan_id)

    def xml(self, pool: bool = False) -> str:
        """The document of one.vn.info, or of a network in one.vnpool.info."""
        ranges = "".join(item.pool_xml() if pool else item.xml() for item in self.ranges)
        rights = (("OWNER", "110"), ("GROUP", "000"), ("OTHER", "000"))
        permissions = "".join(
            f"<{who}_{what}>{flag}</{who}_{what}>"
            for who, flags in rights
            for what, flag in zip("UMA", flags, strict=True)
        )
        optional = "".join(
            f"<{name}>{cdata(value)}</{name}>" if value else f"<{name}/>"
            for name, value in (
                ("VN_MAD", self.vn_mad),
                ("PHYDEV", self.phydev),
                ("VLAN_ID", self.vlan_id),
                ("OUTER_VLAN_ID", self.outer_vlan_id),
            )
        )
        members = "".join(ids(name, self.members[name]) for name in _MEMBERS)
        return (
            f"<VNET><ID>{self.vnet_id}</ID><UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>"
            f"<NAME>{self.name}</NAME><PERMISSIONS>{permissions}</PERMISSIONS>{ids('CLUSTERS', self.clusters)}"
            f"{element('BRIDGE', self.bridge)}{element('BRIDGE_TYPE', self.bridge_type)}"
            f"{element('STATE', self.state)}{element('PREV_STATE', self.previous)}<PARENT_NETWORK_ID/>{optional}"
            f"<VLAN_ID_AUTOMATIC>{self.automatic}</VLAN_ID_AUTOMATIC>"
            f"<OUTER_VLAN_ID_AUTOMATIC>{self.outer_automatic}</OUTER_VLAN_ID_AUTOMATIC>"
            f"<USED_LEASES>{self.used}</USED_LEASES><VROUTERS></VROUTERS>{members}{self.template.xml()}"
            f"<AR_POOL>{ranges}</AR_POOL></VNET>"
        )
