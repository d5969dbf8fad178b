"""Read the VM that OpenNebula describes to a network driver into typed values, all of which are checked."""

from __future__ import annotations

import re
from typing import NamedTuple

from lxml import etree

from . import addresses, document, mtu
from .document import Fields
from .errors import AwsOvsError
from .names import FILTER_IP, FILTER_MAC, PRIVATE_IP, RAW_ETHERNET, VPC_ACCESS
from .reach import dns_servers, vpc_access
from .rules import Groups, Rule, group_ids

DRIVER = "aws_ovs"
MAX_VNI = 0xFFFFFF
_IP6 = ("IP6", "IP6_LINK", "IP6_ULA", "IP6_GLOBAL")


class PortRange(NamedTuple):
    """Lead `size` ports from `external` on, at the shared private address, to the VM's ports from `internal` on."""

    external: int
    internal: int
    size: int


class Alias(NamedTuple):
    """Describe a NIC_ALIAS: a further address of its parent NIC."""

    nic_id: int
    ip: str | None
    external: bool
    private_ip: str | None
    ports: PortRange | None
    gateway: str | None
    attach: bool
    network_id: int = -1
    ip6: tuple[str, ...] = ()


class Nic(NamedTuple):
    """Describe a NIC of this driver, with its aliases."""

    nic_id: int
    target: str
    bridge: str
    vlan_id: int | None
    network_id: int
    mac: str
    ip: str | None
    ip6: tuple[str, ...]
    gateway: str | None
    mtu: int | None
    filter_mac: bool
    filter_ip: bool
    floats: bool
    """Whether it has no address because it is to have but the floating one of a virtual router."""
    private_ip: str | None
    ports: PortRange | None
    attach: bool
    raw_ethernet: bool
    vpc_access: tuple[str, ...]
    """Prefixes of private addresses that the guest may reach outside its network."""
    dns: tuple[str, ...]
    aliases: tuple[Alias, ...]
    groups: tuple[int, ...] = ()
    """The IDs of its security groups."""
    rules: tuple[Rule, ...] | None = None
    """Of its security groups, which govern the addresses of its aliases, too; None when it has no groups."""

    def vni(self, vni_base: int) -> int:
        """Return VLAN_ID, or for a VNET older than the driver `vni_base` + NETWORK_ID: the same on every node."""
        return self.vlan_id if self.vlan_id is not None else vni_base + self.network_id

    def private_addresses(self) -> tuple[tuple[str | None, PortRange | None], ...]:
        """Return AWS_PRIVATE_IP and ports of the NIC and of each alias."""
        return ((self.private_ip, self.ports), *((alias.private_ip, alias.ports) for alias in self.aliases))

    @property
    def leases(self) -> tuple[tuple[int, str], ...]:
        """List the private addresses, each with the network that it is of."""
        leases = [(self.network_id, self.private_ip), *((alias.network_id, alias.private_ip) for alias in self.aliases)]
        return tuple((network_id, address) for network_id, address in leases if address)

    @property
    def gateways(self) -> tuple[str, ...]:
        """List the gateway addresses that the guest may ask for at this NIC."""
        wanted = [self.gateway, *(alias.gateway for alias in self.aliases if not alias.external)]
        return tuple(dict.fromkeys(address for address in wanted if address))


class Vm(NamedTuple):
    """Hold what a driver action needs to know of a VM.

    Attributes:
        attaching: whether the action concerns one NIC, alias or other element only; it may be none of `nics`.
        passthrough: the PCI devices, among what the action is about, that are to be NICs of the driver's networks.
        foreign_targets: ports that NICs of other drivers name otherwise than OpenNebula does.
    """

    vm_id: int
    hostname: str
    nics: tuple[Nic, ...]
    attaching: bool
    passthrough: tuple[str, ...] = ()
    foreign_targets: tuple[str, ...] = ()

    @property
    def concerned(self) -> tuple[Nic, ...]:
        """List the NICs that the action is about: the NIC being attached or detached, an alias's parent; else all."""
        if not self.attaching:
            return self.nics
        return tuple(nic for nic in self.nics if nic.attach or any(alias.attach for alias in nic.aliases))

    @property
    def concerned_ids(self) -> tuple[int, ...]:
        """List the NIC_IDs of those."""
        return tuple(nic.nic_id for nic in self.concerned)


class LeavingAlias(NamedTuple):
    """Tell what a detached alias had, as text: its parent's NIC_ID, the addresses that it gave to it, and its network."""

    parent_id: str
    ip: str
    private_ip: str
    network_id: str
    ip6: tuple[str, ...] = ()


class Leaving(NamedTuple):
    """Hold what can be read of a VM of which something ends, or all: its ID, and which elements are marked.

    Attributes:
        attaching: whether one element ends, and not the VM.
        nic_ids: the NICs that end.
        aliases: the aliases that end.
        vm: all of it, when all can be read.
        trouble: why not.
    """

    vm_id: int
    attaching: bool
    nic_ids: tuple[int, ...]
    aliases: tuple[LeavingAlias, ...]
    vm: Vm | None
    trouble: str

    @property
    def concerned_ids(self) -> tuple[int, ...]:
        """List the NIC_IDs that the action is about, as far as they can be read."""
        return self.vm.concerned_ids if self.vm else self.nic_ids


def port_name(vm_id: int, nic_id: int | str) -> str:
    """Name the port of a NIC, as OpenNebula does unless a user has written a TARGET."""
    return f"one-{vm_id}-{nic_id}"


def parse(text: bytes) -> Vm:
    """Read the VM that an XML document describes.

    Raises:
        AwsOvsError: it is no VM, lacks what is needed, or holds a bad value.
    """
    root = document.tree(text)
    return _vm(root, document.attached(root))


def parse_whole(text: bytes) -> Vm:
    """Read a VM that is to be written anew as a whole, whatever is being attached to it meanwhile.

    Raises:
        AwsOvsError: as `parse`.
    """
    return _vm(document.tree(text), [])


def parse_leaving(text: bytes) -> Leaving:
    """Read what ends of a VM. What is wrong with the rest of the document is no reason to keep it.

    Raises:
        AwsOvsError: the VM's ID cannot be read.
    """
    root = document.tree(text)
    vm_id, attached = document.vm_id(root), document.attached(root)
    vm, trouble = None, ""
    try:
        vm = _vm(root, attached)
    except AwsOvsError as error:
        trouble = str(error)
    numbers = [dict(document.texts(element)).get("NIC_ID", "") for element in attached if element.tag == "NIC"]
    nic_ids = tuple(int(number) for number in numbers if number.isdecimal() and len(number) < 6)
    aliases = (dict(document.texts(element)) for element in attached if element.tag == "NIC_ALIAS")
    return Leaving(vm_id, bool(attached), nic_ids, tuple(map(_leaving_alias, aliases)), vm, trouble)


def _leaving_alias(texts: dict[str, str]) -> LeavingAlias:
    own = {} if texts.get("EXTERNAL", "").upper() == "YES" else texts
    ip6 = tuple(filter(None, (_canonical(own.get(key, "")) for key in _IP6)))
    parent, network = texts.get("PARENT_ID", ""), texts.get("NETWORK_ID", "")
    return LeavingAlias(parent, own.get("IP", ""), texts.get(PRIVATE_IP, ""), network, ip6)


def _canonical(ip6: str) -> str:
    try:
        return addresses.ipv6(ip6, "")
    except AwsOvsError:
        return ""


def _vm(root: etree._Element, attached: list[etree._Element]) -> Vm:
    vm_id = document.vm_id(root)
    hostnames = [element.text or "" for element in root.iterfind("HISTORY_RECORDS/HISTORY/HOSTNAME")]
    cards = [element for element in root.iterfind("TEMPLATE/PCI") if _is_passthrough(element)]
    passthrough = tuple(Fields(card).name for card in cards if not attached or card in attached)
    nics = [_NicFields(element) for element in root.iterfind("TEMPLATE/NIC")]
    aliases = [_NicFields(element) for element in root.iterfind("TEMPLATE/NIC_ALIAS")]
    ours = [nic for nic in nics if nic.driver == DRIVER]
    if not ours and not any(alias.driver == DRIVER for alias in aliases) and not attached and not cards:
        raise AwsOvsError(f"the VM document has no NIC with VN_MAD {DRIVER}", "check the VN_MAD of its networks")
    targets = {nic.text("TARGET"): port_name(vm_id, nic.text("NIC_ID")) for nic in nics if nic.driver != DRIVER}
    return Vm(
        vm_id,
        hostnames[-1] if hostnames else "",
        _nics(vm_id, nics, aliases, _context_mtus(root), Groups(root)),
        bool(attached),
        passthrough,
        tuple(target for target, own in targets.items() if target not in ("", own)),
    )


def _is_passthrough(element: etree._Element) -> bool:
    """Tell whether a PCI device is to be a NIC of a network of the driver."""
    texts = dict(document.texts(element))
    return texts.get("TYPE", "").upper() == "NIC" and texts.get("VN_MAD") == DRIVER


class _NicFields(Fields):
    """Give what a NIC or NIC_ALIAS has, as checked values.

    Attributes:
        driver: whose it is. OpenNebula gives a NIC of NETWORK_MODE DUMMY no network: what it has is a user's text.
    """

    def __init__(self, element: etree._Element) -> None:
        super().__init__(element)
        self.driver = "" if self.text("NETWORK_MODE").upper() == "DUMMY" else self.text("VN_MAD")

    def target(self, vm_id: int) -> str:
        """Read TARGET, which may be no port but the NIC's own: the hypervisor removes a port that is in its way."""
        target = addresses.device_name(self.text("TARGET"), self.what("TARGET"))
        own = port_name(vm_id, self.number("NIC_ID", 0, 65535))
        if target != own:
            what = f"{self.what('TARGET')} {target} is not {own}, the name of the NIC's own port"
            raise AwsOvsError(what, "instantiate the VM, or attach the NIC, without TARGET")
        return target

    def ip6(self) -> tuple[str, ...]:
        """Read the IPv6 addresses of a lease. A NIC that only floats has none: what it has is a user's text."""
        keys = () if self.floats else _IP6
        return tuple(addresses.ipv6(self.text(key), self.what(key)) for key in keys if self.text(key))

    @property
    def floats(self) -> bool:
        """Tell whether OpenNebula gives it no address, but the floating one of a virtual router."""
        return self.text("FLOATING_IP").upper() == self.text("FLOATING_ONLY").upper() == "YES"

    def private_ip(self, inside: str | None) -> str | None:
        """Read AWS_PRIVATE_IP, which needs the guest address `inside` to lead to."""
        address = self.address(PRIVATE_IP)
        if address and not inside:
            what = f"{self.what(PRIVATE_IP)} {address} needs an IP of the VM"
            raise AwsOvsError(what, "use an IP4 address range")
        return address

    def vpc_access(self) -> tuple[str, ...]:
        return vpc_access(self.text(VPC_ACCESS), self.what(VPC_ACCESS))

    def ports(self) -> PortRange | None:
        """Read EXTERNAL_PORT_RANGE and INTERNAL_PORT_RANGE as oned writes them: `9001:9010` and `1-10/9001`."""
        external, internal = self.text("EXTERNAL_PORT_RANGE"), self.text("INTERNAL_PORT_RANGE")
        if not external and not internal:
            return None
        outer = re.fullmatch(r"([0-9]{1,5})[:-]([0-9]{1,5})", external)
        inner = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})(?:/([0-9]{1,5}))?", internal)
        if not outer or not inner:
            wrong = "EXTERNAL_PORT_RANGE" if not outer else "INTERNAL_PORT_RANGE"
            what = f"{self.what(wrong)} {addresses.shown(self.text(wrong))} is not a range as oned writes it"
            remedy = "set PORT_START and PORT_SIZE of the address range again"
            raise AwsOvsError(f"{what} (9001:9010 and 1-10/9001)", remedy)
        low, high, first, last = int(outer[1]), int(outer[2]), int(inner[1]), int(inner[2])
        if not (1 <= low <= high <= 65535 and 1 <= first <= last <= 65535) or high - low != last - first:
            what = f"{self.name}: the port ranges {external} and {internal} do not fit each other or leave 1-65535"
            raise AwsOvsError(what, "correct PORT_START and PORT_SIZE of the address range")
        if inner[3] and int(inner[3]) != low:
            what = f"{self.what('INTERNAL_PORT_RANGE')} {internal} is based on port {inner[3]}"
            raise AwsOvsError(f"{what}, but EXTERNAL_PORT_RANGE starts at {low}", "correct the address range")
        return PortRange(low, first, high - low + 1)


def _nics(
    vm_id: int, fields: list[_NicFields], aliases: list[_NicFields], guest_mtus: dict[str, str], groups: Groups
) -> tuple[Nic, ...]:
    ours = [nic for nic in fields if nic.driver == DRIVER]
    drivers = {nic.text("NIC_ID"): nic.driver for nic in fields}
    for alias in [alias for alias in aliases if alias.driver == DRIVER]:
        parent = alias.text("PARENT_ID")
        if parent not in drivers:
            what = f"{alias.what('PARENT_ID')} {addresses.shown(parent)} is no NIC of the VM"
            raise AwsOvsError(what, "detach the alias")
        if drivers[parent] != DRIVER and alias.text(PRIVATE_IP):
            what = f"{alias.name} needs the Elastic IP mapping of {DRIVER}, but its parent NIC {parent}"
            other = addresses.shown(drivers[parent])
            raise AwsOvsError(f"{what} belongs to driver {other}", f"attach it to a NIC of {DRIVER}")
    _refuse_twice("NIC_ID", [nic.text("NIC_ID") for nic in ours])
    nics = []
    for nic in ours:
        own = [alias for alias in aliases if alias.text("PARENT_ID") == nic.text("NIC_ID")]
        ids = (nic.text("SECURITY_GROUPS"), nic.what("SECURITY_GROUPS"))
        nics.append(_nic(vm_id, nic, own, guest_mtus)._replace(groups=group_ids(*ids), rules=groups.of_nic(*ids)))
    _refuse_twice(PRIVATE_IP, [ip for nic in nics for ip, ports in nic.private_addresses() if ip and not ports])
    return tuple(nics)


def _refuse_twice(key: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise AwsOvsError(f"two NICs of the VM have {key} {value}", "detach one of them")


def _context_mtus(root: etree._Element) -> dict[str, str]:
    """Return ETHx_MTU of the context, by NIC_ID: the GUEST_MTU of the network, which the NIC itself does not carry."""
    return {
        match[1]: element.text.strip()
        for element in root.iterfind("TEMPLATE/CONTEXT/*")
        if (match := re.fullmatch(r"ETH([0-9]+)_MTU", str(element.tag))) and element.text
    }


def _nic(vm_id: int, fields: _NicFields, aliases: list[_NicFields], guest_mtus: dict[str, str]) -> Nic:
    """Read a NIC, all but its security groups."""
    ip = fields.address("IP")
    gateway = fields.address("GATEWAY")
    if gateway and gateway == ip:
        raise AwsOvsError(f"{fields.what('GATEWAY')} {gateway} is the VM's own IP", "correct the network's GATEWAY")
    private_ip, ip6 = fields.private_ip(ip), fields.ip6()
    of_guest = guest_mtus.get(fields.text("NIC_ID"), "")
    texts = ((fields.text("MTU"), fields.what("MTU")), (of_guest, f"{fields.name}: GUEST_MTU"))
    mtus = [mtu.parse(text, what) for text, what in texts if text]
    return Nic(
        nic_id=fields.number("NIC_ID", 0, 65535),
        target=fields.target(vm_id),
        bridge=addresses.device_name(fields.text("BRIDGE"), fields.what("BRIDGE")),
        vlan_id=fields.number("VLAN_ID", 1, MAX_VNI) if fields.text("VLAN_ID") else None,
        network_id=fields.number("NETWORK_ID", 0, 2**31 - 1),
        mac=addresses.mac(fields.text("MAC"), fields.what("MAC")),
        ip=ip,
        ip6=ip6,
        gateway=gateway,
        mtu=max(mtus) if mtus else None,
        filter_mac=fields.enabled(FILTER_MAC, True),
        # A NIC of an Ethernet address range has no IP that could be told from a false one.
        filter_ip=fields.enabled(FILTER_IP, bool(ip or ip6 or fields.floats)),
        floats=fields.floats,
        private_ip=private_ip,
        ports=fields.ports() if private_ip else None,
        attach=fields.enabled("ATTACH", False),
        raw_ethernet=fields.enabled(RAW_ETHERNET, False),
        vpc_access=fields.vpc_access(),
        dns=dns_servers(fields.text("DNS")),
        aliases=tuple(_alias(alias, ip) for alias in aliases),
    )


def _alias(fields: _NicFields, parent_ip: str | None) -> Alias:
    external = fields.enabled("EXTERNAL", False)
    ip = fields.address("IP")
    private_ip = fields.private_ip(parent_ip if external else ip) if fields.driver == DRIVER else None
    return Alias(
        nic_id=fields.number("NIC_ID", 0, 65535),
        ip=ip,
        external=external,
        private_ip=private_ip,
        ports=fields.ports() if private_ip else None,
        gateway=fields.address("GATEWAY"),
        attach=fields.enabled("ATTACH", False),
        network_id=fields.number("NETWORK_ID", 0, 2**31 - 1) if fields.text("NETWORK_ID") else -1,
        ip6=() if external else fields.ip6(),
    )
