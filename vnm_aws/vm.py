"""Read the VM that OpenNebula describes to a network driver from its XML into typed values.

The document that `pre`, `post` and `clean` get keeps every element in a parent of its own (many sibling TEMPLATE),
the one for `update_sg` and `update_nic` may be whole; reading all TEMPLATE children serves both. The text is
untrusted: it is limited in size, may not declare entities, and every value is checked before anything uses it.
"""

from __future__ import annotations

import binascii
import re
from typing import Any, NamedTuple

from lxml import etree

from . import addresses, mtu
from .errors import AwsOvsError
from .names import PRIVATE_IP, RAW_ETHERNET, VPC_ACCESS

DRIVER = "aws_ovs"
SIZE_LIMIT = 8 * 1024 * 1024
"""Bytes of XML; a VM with 50 NICs and 10,000 security group rules needs 4 MiB."""

MAX_VNI = 0xFFFFFF
_ANYWHERE = "0.0.0.0/0"
_MOST_PREFIXES = 64
_MOST_DNS_SERVERS = 8


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
    private_ip: str | None
    ports: PortRange | None
    attach: bool
    raw_ethernet: bool
    vpc_access: tuple[str, ...]
    """Prefixes of private addresses that the guest may reach outside its network."""
    dns: tuple[str, ...]
    aliases: tuple[Alias, ...]

    def vni(self, vni_base: int) -> int:
        """Return VLAN_ID, or for a VNET older than the driver `vni_base` + NETWORK_ID: the same on every node."""
        return self.vlan_id if self.vlan_id is not None else vni_base + self.network_id

    def private_addresses(self) -> tuple[tuple[str | None, PortRange | None], ...]:
        """Return AWS_PRIVATE_IP and ports of the NIC and of each alias."""
        return ((self.private_ip, self.ports), *((alias.private_ip, alias.ports) for alias in self.aliases))

    @property
    def gateways(self) -> tuple[str, ...]:
        """List the gateway addresses that the guest may ask for at this NIC."""
        wanted = [self.gateway, *(alias.gateway for alias in self.aliases if not alias.external)]
        return tuple(dict.fromkeys(address for address in wanted if address))


class Vm(NamedTuple):
    """Hold what a driver action needs to know of a VM."""

    vm_id: int
    hostname: str
    nics: tuple[Nic, ...]
    attaching: bool
    """Whether the action concerns one NIC or alias only; it may be none of `nics`."""

    @property
    def concerned(self) -> tuple[Nic, ...]:
        """List the NICs that the action is about: the NIC being attached or detached, an alias's parent; else all."""
        if not self.attaching:
            return self.nics
        return tuple(nic for nic in self.nics if nic.attach or any(alias.attach for alias in nic.aliases))


def decode(stdin: bytes) -> bytes:
    """Decode the XML that OpenNebula sends on stdin.

    Raises:
        AwsOvsError: it is too large or not base64.
    """
    if len(stdin) > SIZE_LIMIT * 4 // 3 + 4:
        raise AwsOvsError(f"the VM document on stdin is larger than {SIZE_LIMIT} bytes", "reduce the VM's template")
    try:
        return binascii.a2b_base64(b"".join(stdin.split()), strict_mode=True)
    except binascii.Error as error:
        what = f"the VM document on stdin is not base64 ({str(error).lower()})"
        raise AwsOvsError(what, "send what OpenNebula sends") from None


def parse(document: bytes) -> Vm:
    """Read the VM that an XML document describes, in either of OpenNebula's shapes.

    Raises:
        AwsOvsError: it is not well-formed, has a document type, lacks what is needed, or holds a bad value.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise AwsOvsError(f"the VM document is not well-formed XML ({str(error)[:100]})", "send it whole") from None
    info: Any = root.getroottree().docinfo
    if info.doctype:
        raise AwsOvsError("the VM document declares a document type, which OpenNebula never does", "send plain XML")
    if root.tag != "VM":
        raise AwsOvsError(f"the document is a {addresses.shown(str(root.tag))}, not a VM", "send what OpenNebula sends")
    vm_id = addresses.number(root.findtext("ID") or "", "the VM's ID", 0, 2**31 - 1)
    hostnames = [element.text or "" for element in root.iterfind("HISTORY_RECORDS/HISTORY/HOSTNAME")]
    marks = (*root.iterfind("TEMPLATE/NIC/ATTACH"), *root.iterfind("TEMPLATE/NIC_ALIAS/ATTACH"))
    attaching = any((mark.text or "").strip().upper() == "YES" for mark in marks)
    return Vm(vm_id, hostnames[-1] if hostnames else "", _nics(root), attaching)


def enabled(text: str, what: str, default: bool) -> bool:
    """Read YES or NO; `default` for an empty text."""
    word = text.upper()
    if word not in ("", "YES", "NO"):
        raise AwsOvsError(f"{what} {addresses.shown(word)} is neither YES nor NO", "set one of them")
    return word == "YES" if word else default


def vpc_access(text: str, what: str) -> tuple[str, ...]:
    """Read AWS_VPC_ACCESS: NO, YES, or prefixes and addresses with blanks or commas between them."""
    if text.upper() in ("", "NO"):
        return ()
    if text.upper() == "YES":
        return (_ANYWHERE,)
    words = text.replace(",", " ").split()
    if len(words) > _MOST_PREFIXES:
        what = f"{what} has {len(words)} prefixes, more than {_MOST_PREFIXES}"
        raise AwsOvsError(what, "join some of them into larger ones")
    prefixes = (word if "/" in word else f"{word}/32" for word in words)
    return tuple(str(addresses.Prefix(prefix, what)) for prefix in prefixes)


class _Fields:
    """Give the child elements of a NIC or NIC_ALIAS as stripped text, and the name of the element for errors."""

    def __init__(self, element: etree._Element) -> None:
        self._texts: dict[str, str] = {}
        for child in element:
            if isinstance(child.tag, str) and child.tag in self._texts:
                raise AwsOvsError(f"a {element.tag} has {child.tag} twice", "give it once")
            self._texts[str(child.tag)] = (child.text or "").strip()
        self.name = f"{element.tag} {addresses.shown(self.text('NIC_ID'))[1:-1]}"

    def text(self, key: str) -> str:
        return self._texts.get(key, "")

    def what(self, key: str) -> str:
        return f"{self.name}: {key}"

    def number(self, key: str, low: int, high: int) -> int:
        return addresses.number(self.text(key), self.what(key), low, high)

    def address(self, key: str) -> str | None:
        return addresses.ipv4(self.text(key), self.what(key)) if self.text(key) else None

    def private_ip(self, inside: str | None) -> str | None:
        """Read AWS_PRIVATE_IP, which needs the guest address `inside` to lead to."""
        address = self.address(PRIVATE_IP)
        if address and not inside:
            what = f"{self.what(PRIVATE_IP)} {address} needs an IP of the VM"
            raise AwsOvsError(what, "use an IP4 address range")
        return address

    def enabled(self, key: str, default: bool) -> bool:
        return enabled(self.text(key), self.what(key), default)

    def vpc_access(self) -> tuple[str, ...]:
        return vpc_access(self.text(VPC_ACCESS), self.what(VPC_ACCESS))

    def dns_servers(self) -> tuple[str, ...]:
        """List the IPv4 addresses in DNS; what else is there concerns the guest only."""
        return tuple(dict.fromkeys(filter(addresses.is_ipv4, self.text("DNS").replace(",", " ").split())))[
            :_MOST_DNS_SERVERS
        ]

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


def _nics(root: etree._Element) -> tuple[Nic, ...]:
    fields = [_Fields(element) for element in root.iterfind("TEMPLATE/NIC")]
    aliases = [_Fields(element) for element in root.iterfind("TEMPLATE/NIC_ALIAS")]
    ours = [nic for nic in fields if nic.text("VN_MAD") == DRIVER]
    our_aliases = [alias for alias in aliases if alias.text("VN_MAD") == DRIVER]
    if not ours and not our_aliases:
        raise AwsOvsError(f"the VM document has no NIC with VN_MAD {DRIVER}", "check the VN_MAD of its networks")
    drivers = {nic.text("NIC_ID"): nic.text("VN_MAD") for nic in fields}
    for alias in our_aliases:
        parent = alias.text("PARENT_ID")
        if parent not in drivers:
            what = f"{alias.what('PARENT_ID')} {addresses.shown(parent)} is no NIC of the VM"
            raise AwsOvsError(what, "detach the alias")
        if drivers[parent] != DRIVER and alias.text(PRIVATE_IP):
            what = f"{alias.name} needs the Elastic IP mapping of {DRIVER}, but its parent NIC {parent}"
            other = addresses.shown(drivers[parent])
            raise AwsOvsError(f"{what} belongs to driver {other}", f"attach it to a NIC of {DRIVER}")
    mtus = _context_mtus(root)
    nics = tuple(
        _nic(nic, [alias for alias in aliases if alias.text("PARENT_ID") == nic.text("NIC_ID")], mtus) for nic in ours
    )
    _refuse_twice("NIC_ID", [str(nic.nic_id) for nic in nics])
    _refuse_twice("TARGET", [nic.target for nic in nics])
    mapped = [ip for nic in nics for ip, ports in nic.private_addresses() if ip and not ports]
    _refuse_twice(PRIVATE_IP, mapped)
    return nics


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


def _nic(fields: _Fields, aliases: list[_Fields], guest_mtus: dict[str, str]) -> Nic:
    ip = fields.address("IP")
    gateway = fields.address("GATEWAY")
    if gateway and gateway == ip:
        raise AwsOvsError(f"{fields.what('GATEWAY')} {gateway} is the VM's own IP", "correct the network's GATEWAY")
    private_ip = fields.private_ip(ip)
    of_guest = guest_mtus.get(fields.text("NIC_ID"), "")
    texts = ((fields.text("MTU"), fields.what("MTU")), (of_guest, f"{fields.name}: GUEST_MTU"))
    mtus = [mtu.parse(text, what) for text, what in texts if text]
    return Nic(
        nic_id=fields.number("NIC_ID", 0, 65535),
        target=addresses.device_name(fields.text("TARGET"), fields.what("TARGET")),
        bridge=addresses.device_name(fields.text("BRIDGE"), fields.what("BRIDGE")),
        vlan_id=fields.number("VLAN_ID", 1, MAX_VNI) if fields.text("VLAN_ID") else None,
        network_id=fields.number("NETWORK_ID", 0, 2**31 - 1),
        mac=addresses.mac(fields.text("MAC"), fields.what("MAC")),
        ip=ip,
        ip6=tuple(
            addresses.ipv6(fields.text(key), fields.what(key))
            for key in ("IP6", "IP6_LINK", "IP6_ULA", "IP6_GLOBAL")
            if fields.text(key)
        ),
        gateway=gateway,
        mtu=max(mtus) if mtus else None,
        filter_mac=fields.enabled("FILTER_MAC_SPOOFING", True),
        # A NIC of an Ethernet address range has no IP that could be told from a false one.
        filter_ip=fields.enabled("FILTER_IP_SPOOFING", ip is not None),
        private_ip=private_ip,
        ports=fields.ports() if private_ip else None,
        attach=fields.enabled("ATTACH", False),
        raw_ethernet=fields.enabled(RAW_ETHERNET, False),
        vpc_access=fields.vpc_access(),
        dns=fields.dns_servers(),
        aliases=tuple(_alias(alias, ip) for alias in aliases),
    )


def _alias(fields: _Fields, parent_ip: str | None) -> Alias:
    external = fields.enabled("EXTERNAL", False)
    ip = fields.address("IP")
    private_ip = fields.private_ip(parent_ip if external else ip) if fields.text("VN_MAD") == DRIVER else None
    return Alias(
        nic_id=fields.number("NIC_ID", 0, 65535),
        ip=ip,
        external=external,
        private_ip=private_ip,
        ports=fields.ports() if private_ip else None,
        gateway=fields.address("GATEWAY"),
        attach=fields.enabled("ATTACH", False),
    )
