"""Read the NICs that a network would make as a node reads them: with the node's own code, so that both halves have one rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lxml import etree

from .. import vm
from ..addresses import int_to_ip, ip_to_int, is_ipv4
from ..errors import AwsOvsError
from ..names import ALLOCATION_ID, EXTERNAL_IP, INHERITED, PRIVATE_IP

_GIVEN = tuple(name for name in (*INHERITED, "BRIDGE", "VLAN_ID") if name != "GATEWAY")
"""What oned gives a NIC of its network and range. The gateway is checked where the ranges are: none of them may have it."""
_ALIKE = (ALLOCATION_ID, EXTERNAL_IP, PRIVATE_IP)
"""What the ranges of a pool differ in. It is checked where ranges are, and need not be read of each as a NIC."""
_ANY_IP, _ANY_MAC = "10.255.255.254", "02:00:00:00:00:01"


class Ports(NamedTuple):
    """How an address range shares its private address: which ports the first lease begins behind, and how many each has."""

    start: int
    size: int


def ports(values: Mapping[str, str]) -> Ports | None:
    """Read PORT_START and PORT_SIZE as oned does: without both, or with 0, nothing is shared (AddressRange::set_port_ranges)."""
    start, size = (
        int(text) if (text := values.get(key, "").strip()).isdecimal() and len(text) < 10 else 0
        for key in ("PORT_START", "PORT_SIZE")
    )
    return Ports(start, size) if start and size else None


def check(bridge: str, vlan_id: str, template: Mapping[str, str], ranges: Iterable[Mapping[str, str]]) -> None:
    """Read a NIC of the network itself, and the first and the last of each kind of its ranges.

    Args:
        bridge: of the network.
        vlan_id: likewise; empty when it is still to be chosen.
        template: its attributes.
        ranges: the attributes of its address ranges.

    Raises:
        AwsOvsError: a node would refuse such a NIC.
    """
    network = {**template, "BRIDGE": bridge, "VLAN_ID": vlan_id}
    _read(_given(network) | {"IP": _ANY_IP}, network.get("GUEST_MTU", ""), "")
    seen = set()
    for values in ranges:
        merged = {**network, **{key: text for key, text in values.items() if text}}
        kind = (
            *(merged.get(key) for key in (*_GIVEN, "GUEST_MTU") if key not in _ALIKE),
            *(bool(merged.get(PRIVATE_IP)), bool(values.get("IP")), ports(values), values.get("SIZE")),
        )
        if kind not in seen:
            seen.add(kind)
            for lease in _leases(values):
                _read(_given(merged) | lease, merged.get("GUEST_MTU", ""), "AR: ")


def _given(values: Mapping[str, str]) -> dict[str, str]:
    return {key: values[key] for key in _GIVEN if values.get(key)}


def _leases(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Compose what the first and the last lease of a range have of their own."""
    size, shared = values.get("SIZE") or "1", ports(values)
    last = int(size) - 1 if size.isdecimal() and 0 < len(size) < 10 else 0
    for index in sorted({0, max(0, last)}):
        lease = {key: values[key] for key in ("IP", "IP6") if values.get(key)}
        if is_ipv4(values.get("IP", "")):
            lease["IP"] = int_to_ip(min(ip_to_int(values["IP"]) + index, 0xFFFFFFFF))
        if shared:
            low = shared.start + index * shared.size + 1
            lease["EXTERNAL_PORT_RANGE"] = f"{low}:{low + shared.size - 1}"
            lease["INTERNAL_PORT_RANGE"] = f"1-{shared.size}/{low}"
        yield lease


def _read(values: Mapping[str, str], guest_mtu: str, place: str) -> None:
    """Read a NIC; errors name the place in the network instead of the NIC."""
    root = etree.Element("VM")
    etree.SubElement(root, "ID").text = "0"
    template = etree.SubElement(root, "TEMPLATE")
    nic = etree.SubElement(template, "NIC")
    of_nic = {"NIC_ID": "0", "VN_MAD": vm.DRIVER, "NETWORK_ID": "0", "TARGET": vm.port_name(0, 0), "MAC": _ANY_MAC}
    for key, text in {**of_nic, **values}.items():
        etree.SubElement(nic, key).text = text
    if guest_mtu:
        etree.SubElement(etree.SubElement(template, "CONTEXT"), "ETH0_MTU").text = guest_mtu
    try:
        vm.parse(etree.tostring(root))
    except AwsOvsError as error:
        raise AwsOvsError(error.what.replace("NIC 0: ", place), error.remedy) from None
