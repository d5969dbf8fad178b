"""What the lab itself needs of a VM document: how the guest is wired, and which Elastic IPs follow it.

It is read independently of the driver, so that the two cannot share a mistake.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Interface
from typing import NamedTuple

from lxml import etree

DRIVER = "aws_ovs"
GUEST_MTU = 1500
"""Bytes, where the context names none: what an operating system chooses."""


class Card(NamedTuple):
    """A network card of a guest, and what its context tells the guest to configure there."""

    nic_id: int
    target: str
    bridge: str
    mac: str
    addresses: tuple[str, ...]
    """With prefix length, IPv4 and IPv6; the first is the NIC's own."""
    gateway: str | None
    mtu: int
    attaching: bool

    @property
    def device(self) -> str:
        """Its name in the guest."""
        return f"eth{self.nic_id}"


class Elastic(NamedTuple):
    """An address of the VPC that must be where the VM is."""

    private_ip: str
    public_ip: str | None
    attaching: bool


class Document(NamedTuple):
    """A VM."""

    vm_id: int
    cards: tuple[Card, ...]
    elastic: tuple[Elastic, ...]

    def without_attaching(self) -> Document:
        """The VM after the NIC or alias that an action is about has gone."""
        cards = tuple(card for card in self.cards if not card.attaching)
        return Document(self.vm_id, cards, tuple(one for one in self.elastic if not one.attaching))


def parse(xml: bytes) -> Document:
    """The VM in a document that OpenNebula sends to a driver, in either of its shapes."""
    root = etree.fromstring(xml)
    nics = [_texts(nic) for nic in root.iterfind("TEMPLATE/NIC")]
    aliases = [_texts(alias) for alias in root.iterfind("TEMPLATE/NIC_ALIAS")]
    context = {key: value for one in root.iterfind("TEMPLATE/CONTEXT") for key, value in _texts(one).items()}
    cards = tuple(_card(nic, aliases, context) for nic in nics if nic.get("VN_MAD") == DRIVER)
    elastic = tuple(
        Elastic(one["AWS_PRIVATE_IP"], one.get("EXTERNAL_IP"), one.get("ATTACH") == "YES")
        for one in (*nics, *aliases)
        if one.get("VN_MAD") == DRIVER and "AWS_PRIVATE_IP" in one
    )
    return Document(int(root.findtext("ID") or ""), cards, elastic)


def _texts(element: etree._Element) -> dict[str, str]:
    """The children that have a text."""
    return {str(child.tag): child.text for child in element if child.text}


def _card(nic: dict[str, str], aliases: list[dict[str, str]], context: dict[str, str]) -> Card:
    mine = [alias for alias in aliases if alias.get("PARENT_ID") == nic["NIC_ID"]]
    entry = next((key[:-4] for key in context if key.endswith("_MAC") and context[key] == nic["MAC"]), None)
    if entry is None:
        inside = [alias for alias in mine if alias.get("EXTERNAL") != "YES"]
        ips = [one["IP"] for one in (nic, *inside) if "IP" in one]
        addresses = [f"{ip}/24" for ip in ips]
        gateway, mtu = nic.get("GATEWAY"), nic.get("MTU")
    else:
        addresses = _addresses(context, entry)
        numbers = {int(found[1]) for key in context if (found := re.match(rf"{entry}_ALIAS(\d+)_", key))}
        for alias in (f"{entry}_ALIAS{number}" for number in sorted(numbers)):
            if context.get(f"{alias}_EXTERNAL") != "YES":
                addresses += _addresses(context, alias)
        gateway, mtu = context.get(f"{entry}_GATEWAY"), context.get(f"{entry}_MTU")
    return Card(
        nic_id=int(nic["NIC_ID"]),
        target=nic["TARGET"],
        bridge=nic["BRIDGE"],
        mac=nic["MAC"],
        addresses=tuple(addresses),
        gateway=gateway,
        mtu=int(mtu or GUEST_MTU),
        attaching=nic.get("ATTACH") == "YES",
    )


def _addresses(context: dict[str, str], entry: str) -> list[str]:
    found = []
    if f"{entry}_IP" in context:
        mask = context.get(f"{entry}_MASK", "255.255.255.0")
        found.append(IPv4Interface(f"{context[f'{entry}_IP']}/{mask}").with_prefixlen)
    length = context.get(f"{entry}_IP6_PREFIX_LENGTH", "64")
    return found + [f"{context[key]}/{length}" for key in (f"{entry}_IP6", f"{entry}_IP6_ULA") if key in context]
