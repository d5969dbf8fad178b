"""Read hosts, networks and VMs, as oned describes them, from its XML into typed values.

The same elements come from the pools, from `info` calls and from what a hook gets. A pool's address ranges have no
leases; `one.vn.info` has them. Only lxml is needed, so that a hook can see quickly whether it is concerned.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import NamedTuple

from lxml import etree

from ..addresses import ip_to_int, is_ipv4
from ..document import texts
from ..errors import AwsOvsError
from ..names import (
    ALLOCATION_ID,
    EIP_HOST,
    EIP_STATUS,
    ENI_ID,
    ENI_IDS,
    EXTERNAL_IP,
    HOST_STAND_INS,
    INSTANCE_STATE,
    PRIVATE_IP,
    TERMINATED,
)
from ..rules import lets_everything_in
from ..vm import DRIVER
from .vm_states import ACTIVE, MIGRATING, ON_HOST

STATE_INIT, STATE_MONITORED, STATE_ERROR, STATE_DISABLED, STATE_OFFLINE = 0, 2, 3, 4, 8
"""States of a host; the other ones say that monitoring is under way."""

NETWORK_READY, NETWORK_LOCK_CREATE, NETWORK_ERROR, NETWORK_UPDATE_FAILURE = 1, 2, 5, 6
NETWORK_USABLE = (NETWORK_READY, NETWORK_UPDATE_FAILURE)
"""A network on which the update of some VM failed serves all others as before."""

SIZE_LIMIT = 16 * 1024 * 1024
"""Bytes of a document on stdin, of which a program reads no more than one besides."""


class Host(NamedTuple):
    """A host. `template` holds its plain attributes, monitored ones included."""

    host_id: int
    name: str
    state: int
    cluster_id: int
    cluster: str
    vms: tuple[int, ...]
    template: dict[str, str]

    @property
    def eni_id(self) -> str:
        """Name the ENI that carries its tunnels, and addresses of its VMs; empty when it is not known."""
        return self.template.get(ENI_ID, "")

    @property
    def eni_ids(self) -> tuple[str, ...]:
        """Name all its ENIs that have addresses of VMs, the first one first."""
        further = self.template.get(ENI_IDS, "").split()
        return tuple(dict.fromkeys([self.eni_id, *further])) if self.eni_id else ()

    @property
    def stand_ins(self) -> dict[str, str]:
        """Find what stands there for private addresses of other subnets, by those."""
        pairs = (word.partition("=") for word in self.template.get(HOST_STAND_INS, "").split())
        return {private_ip: address for private_ip, _, address in pairs if is_ipv4(private_ip) and is_ipv4(address)}

    @property
    def terminated(self) -> bool:
        """Say whether its instance is no more."""
        return self.template.get(INSTANCE_STATE) == TERMINATED

    def reported(self, name: str) -> int | None:
        """Read a number that its probe reports; None when it does not."""
        text = self.template.get(name, "")
        return int(text) if text.isascii() and text.isdecimal() else None


class AddressRange(NamedTuple):
    """An address range; `leases` are the VMs that hold an address of it (-1: held by hand), from `one.vn.info` only."""

    ar_id: int
    ip: str
    size: int
    used: int
    leases: tuple[int, ...]
    attributes: dict[str, str]


class Network(NamedTuple):
    """A virtual network. `owner` is the ID of a user.

    `asked` are the ranges of a network that is being created, which oned makes afterwards. `nested` are the attributes
    that are inside of others, as `MTU/DNS`, but for what oned itself has so.
    """

    network_id: int
    name: str
    owner: str
    state: int
    driver: str
    bridge: str
    vlan_id: str
    parent: str
    clusters: tuple[int, ...]
    template: dict[str, str]
    ranges: tuple[AddressRange, ...]
    asked: tuple[dict[str, str], ...]
    nested: tuple[str, ...]

    def spans(self) -> list[tuple[int, int]]:
        """List the first and last address of each range, as numbers; ranges without IPv4 addresses have none."""
        sizes = [(item.ip, item.size) for item in self.ranges]
        for values in self.asked:
            sizes.append((values.get("IP", ""), _whole(values.get("SIZE", ""), 1)))
        return [(ip_to_int(ip), ip_to_int(ip) + size - 1) for ip, size in sizes if is_ipv4(ip)]

    def values_of_ranges(self, attribute: str) -> list[str]:
        """List the values that an attribute has in the ranges."""
        ranges = [*(item.attributes for item in self.ranges), *self.asked]
        return [values[attribute] for values in ranges if values.get(attribute)]

    def gives(self) -> list[tuple[str, tuple[str, str]]]:
        """List AWS_PRIVATE_IP, and AWS_ALLOCATION_ID and EXTERNAL_IP, that its ranges give to NICs.

        What a range lacks is the network's.
        """
        each = [{**self.template, **item.attributes} for item in self.ranges]
        return [
            (values[PRIVATE_IP], (values.get(ALLOCATION_ID, ""), values.get(EXTERNAL_IP, "")))
            for values in each
            if values.get(PRIVATE_IP)
        ]

    @property
    def ours(self) -> bool:
        """Say whether this driver serves it."""
        return self.driver == DRIVER


class Address(NamedTuple):
    """An address of a NIC or alias that AWS knows, and the network and range that it says it is from.

    `dead_end` says of an alias why nothing would come back from the guest; it is empty when all is right. Several VMs may have
    a lease of one that is `shared`. `stands_for` is its AWS_PRIVATE_IP where another one
    stands for that on the host.
    """

    private_ip: str
    external_ip: str
    allocation_id: str
    network_id: int
    ar_id: int = -1
    dead_end: str = ""
    shared: bool = False
    stands_for: str = ""

    @property
    def elastic_ip(self) -> str:
        """Name its Elastic IP: by the allocation, or for want of one by the public address; empty when it has none."""
        return self.allocation_id or self.external_ip

    @property
    def leased(self) -> str:
        """Name the AWS_PRIVATE_IP that came with its lease."""
        return self.stands_for or self.private_ip


class OpenNic(NamedTuple):
    """A NIC with an address in AWS, its own or an alias', that lets everything in.

    Attributes:
        network_id: the NIC's own network, also when an alias has the address.
        by: the security groups that let everything in, ID and name; none when the NIC has no groups.
        others: the IDs of its other groups.
    """

    nic_id: int
    network_id: int
    by: tuple[tuple[int, str], ...]
    others: tuple[int, ...]


class AwsVm(NamedTuple):
    """A VM and its addresses in AWS.

    `on_host`: it is on the host now, `since` when it came there; `migrating`: it is on its way there.
    """

    vm_id: int
    name: str
    on_host: bool
    host_id: int
    host: str
    addresses: tuple[Address, ...]
    user_template: dict[str, str]
    open_nics: tuple[OpenNic, ...] = ()
    migrating: bool = False
    since: int = 0

    @property
    def told(self) -> bool:
        """Say whether it has been told what became of addresses."""
        return any(self.user_template.get(key) for key in (EIP_STATUS, EIP_HOST))


class Group(NamedTuple):
    """A security group of VMs. To some of them its present rules are on their way, to others they did not come."""

    group_id: int
    name: str
    waiting: tuple[int, ...]
    failed: tuple[int, ...]


def _plain(element: etree._Element | None) -> dict[str, str]:
    """Read the plain attributes of a template; those that have elements of their own are left out."""
    return {str(item.tag): item.text or "" for item in element if not len(item)} if element is not None else {}


def _nested(template: etree._Element | None) -> Iterator[str]:
    for outer in template if template is not None else ():
        if outer.tag not in ("AR", "VNET_UPDATE"):
            yield from (f"{outer.tag}/{inner.tag}" for inner in outer)


def _text(element: etree._Element, path: str) -> str:
    return element.findtext(path) or ""


def _whole(text: str, default: int = -1) -> int:
    """Read a number that fits into 64 bits; for any other text, return the default."""
    try:
        return int(text) if len(text) < 19 else default
    except ValueError:
        return default


def _number(element: etree._Element, path: str, default: int = -1) -> int:
    return _whole(_text(element, path), default)


def _ids(element: etree._Element, path: str) -> tuple[int, ...]:
    return tuple(_whole(item.text or "") for item in element.iterfind(path))


def read_host(element: etree._Element) -> Host:
    """Read a HOST element."""
    return Host(
        _number(element, "ID"),
        _text(element, "NAME"),
        _number(element, "STATE"),
        _number(element, "CLUSTER_ID"),
        _text(element, "CLUSTER"),
        _ids(element, "VMS/ID"),
        _plain(element.find("TEMPLATE")),
    )


_RANGE_OWN = {
    *("AR_ID", "TYPE", "IP", "IP_END", "MAC", "MAC_END", "SIZE"),
    *("SHARED", "NEXT_INDEX", "USED_LEASES", "LEASES", "ALLOCATED"),
}
"""What oned itself keeps of a range; the rest are custom attributes, all of which `update_ar` replaces."""


def _range(element: etree._Element) -> AddressRange:
    custom = {key: value for key, value in _plain(element).items() if key not in _RANGE_OWN}
    leases = _ids(element, "LEASES/LEASE/VM")
    used = _number(element, "USED_LEASES", len(leases))
    return AddressRange(
        _number(element, "AR_ID"), _text(element, "IP"), _number(element, "SIZE", 0), used, leases, custom
    )


def read_network(element: etree._Element) -> Network:
    """Read a VNET element."""
    template, state = element.find("TEMPLATE"), _number(element, "STATE")
    # Later oned makes no ranges of them, and the network's owner may write what he likes there.
    asked = template.findall("AR") if template is not None and state == NETWORK_LOCK_CREATE else []
    return Network(
        _number(element, "ID"),
        _text(element, "NAME"),
        _text(element, "UID"),
        state,
        _text(element, "VN_MAD"),
        _text(element, "BRIDGE"),
        _text(element, "VLAN_ID"),
        _text(element, "PARENT_NETWORK_ID"),
        _ids(element, "CLUSTERS/ID"),
        _plain(template),
        tuple(_range(item) for item in element.iterfind("AR_POOL/AR")),
        tuple(_plain(item) for item in asked),
        tuple(_nested(template)),
    )


def read_vm(element: etree._Element) -> AwsVm:
    """Read a VM element."""
    last = element.find("HISTORY_RECORDS/HISTORY[last()]")
    addresses = [
        Address(
            _text(nic, PRIVATE_IP),
            _text(nic, EXTERNAL_IP),
            _text(nic, ALLOCATION_ID),
            _number(nic, "NETWORK_ID"),
            _number(nic, "AR_ID"),
            _dead_end(element, nic),
            _text(nic, "SHARED").upper() == "YES",
        )
        for kind in ("NIC", "NIC_ALIAS")
        for nic in element.iterfind(f"TEMPLATE/{kind}")
        if _has_address(nic)
    ]
    life = _number(element, "LCM_STATE") if _number(element, "STATE") == ACTIVE else -1
    return AwsVm(
        _number(element, "ID"),
        _text(element, "NAME"),
        life in ON_HOST,
        -1 if last is None else _number(last, "HID"),
        "" if last is None else _text(last, "HOSTNAME"),
        tuple(addresses),
        _plain(element.find("USER_TEMPLATE")),
        tuple(_open_nics(element)) if addresses else (),
        life in MIGRATING,
        0 if last is None else _number(last, "STIME", 0),
    )


def _dead_end(vm: etree._Element, nic: etree._Element) -> str:
    """Say why an alias of kind EXTERNAL is of no use: its address leads to that of the parent, which knows no way out."""
    if nic.tag != "NIC_ALIAS" or _text(nic, "EXTERNAL").upper() != "YES":
        return ""
    number = _text(nic, "PARENT_ID")
    parents = [other for other in vm.iterfind("TEMPLATE/NIC") if _text(other, "NIC_ID") == number]
    aliases = [
        other
        for other in vm.iterfind("TEMPLATE/NIC_ALIAS")
        if _text(other, "PARENT_ID") == number and _text(other, "EXTERNAL").upper() != "YES"
    ]
    if not parents or any(_text(other, "GATEWAY") for other in (*parents, *aliases)):
        return ""
    network = _text(parents[0], "NETWORK_ID")
    return f"is of an EXTERNAL alias of NIC {number}, whose network {network} has no GATEWAY, so nothing leaves there"


def _open_nics(vm: etree._Element) -> Iterator[OpenNic]:
    """Find the open NICs of a VM. Groups of an alias do not count: those of its parent hold for all addresses."""
    reached = {_text(alias, "PARENT_ID") for alias in vm.iterfind("TEMPLATE/NIC_ALIAS") if _has_address(alias)}
    letting_in = {
        _number(rule, "SECURITY_GROUP_ID"): _text(rule, "SECURITY_GROUP_NAME")
        for rule in vm.iterfind("TEMPLATE/SECURITY_GROUP_RULE")
        if lets_everything_in(dict(texts(rule)))
    }
    for nic in vm.iterfind("TEMPLATE/NIC"):
        if _text(nic, "VN_MAD") == DRIVER and (_has_address(nic) or _text(nic, "NIC_ID") in reached):
            named = map(_whole, _text(nic, "SECURITY_GROUPS").split(","))
            groups = [group for group in named if group >= 0]
            by = tuple((group, letting_in[group]) for group in groups if group in letting_in)
            if by or not groups:
                others = tuple(group for group in groups if group not in letting_in)
                yield OpenNic(_number(nic, "NIC_ID"), _number(nic, "NETWORK_ID"), by, others)


def _has_address(nic: etree._Element) -> bool:
    return _text(nic, "VN_MAD") == DRIVER and bool(_text(nic, PRIVATE_IP))


def read_group(element: etree._Element) -> Group:
    """Read a SECURITY_GROUP element."""
    return Group(
        _number(element, "ID"),
        _text(element, "NAME"),
        _ids(element, "OUTDATED_VMS/ID") + _ids(element, "UPDATING_VMS/ID"),
        _ids(element, "ERROR_VMS/ID"),
    )


def read_document(stdin: bytes) -> etree._Element:
    """Read the document that a hook or `vnet_create` gets on stdin, base64-encoded.

    Raises:
        AwsOvsError: it is not one.
    """
    advice = "look at the hook's ARGUMENTS with 'onehook show'"
    if len(stdin) > SIZE_LIMIT:
        raise AwsOvsError(f"the document on stdin is larger than {SIZE_LIMIT} bytes", advice)
    try:
        text = binascii.a2b_base64(b"".join(stdin.split()), strict_mode=True)
        parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
        root = etree.fromstring(text, parser)
    except (binascii.Error, etree.XMLSyntaxError, ValueError):
        raise AwsOvsError("stdin does not hold a document of OpenNebula, base64-encoded", advice) from None
    return root
