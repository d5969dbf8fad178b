"""What a VM document promises to the VM's user, and documents derived from it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import NamedTuple

from lxml import etree

from tests.world.recording import Recording, Step

DRIVER = "aws_ovs"


class Reach(NamedTuple):
    """A guest address, and how the Internet sees it: an Elastic IP, some of its ports, or the host's own address."""

    name: str
    nic_id: int
    inside: str
    private_ip: str
    public_ip: str
    ports: tuple[int, int, int] | None
    """First and last external port, first internal port."""


class Network(NamedTuple):
    """A NIC's network, as far as it tells VMs apart."""

    bridge: str
    vlan_id: str
    network_id: str


class PromisedCard(NamedTuple):
    """A NIC of the driver with all its addresses."""

    nic_id: int
    target: str
    ip: str
    gateway: str
    network: Network
    reaches: tuple[Reach, ...]


def parse(document: bytes) -> etree._Element:
    """The root of a document."""
    return etree.fromstring(document)


def text(element: etree._Element, path: str) -> str:
    """The text at a path, or nothing."""
    return (element.findtext(path) or "").strip()


def vm_id(document: bytes) -> int:
    """The ID of the VM in a document."""
    return int(text(parse(document), "ID"))


def cards(document: bytes) -> list[PromisedCard]:
    """The NICs of the driver in a document."""
    root = parse(document)
    aliases = root.findall("TEMPLATE/NIC_ALIAS")
    found = []
    for nic in root.iterfind("TEMPLATE/NIC"):
        if text(nic, "VN_MAD") != DRIVER:
            continue
        number, ip = int(text(nic, "NIC_ID")), text(nic, "IP")
        reaches = [_reach(f"NIC {number}", number, ip, nic)]
        for alias in aliases:
            if text(alias, "PARENT_ID") == str(number):
                external = text(alias, "EXTERNAL").upper() == "YES"
                name = f"alias {text(alias, 'NIC_ID')} of NIC {number}"
                reaches.append(_reach(name, number, ip if external else text(alias, "IP"), alias))
        network = Network(text(nic, "BRIDGE"), text(nic, "VLAN_ID"), text(nic, "NETWORK_ID"))
        found.append(PromisedCard(number, text(nic, "TARGET"), ip, text(nic, "GATEWAY"), network, tuple(reaches)))
    return found


def _reach(name: str, number: int, inside: str, element: etree._Element) -> Reach:
    external = re.fullmatch(r"(\d+):(\d+)", text(element, "EXTERNAL_PORT_RANGE"))
    internal = re.match(r"(\d+)", text(element, "INTERNAL_PORT_RANGE"))
    ports = (int(external[1]), int(external[2]), int(internal[1])) if external and internal else None
    return Reach(name, number, inside, text(element, "AWS_PRIVATE_IP"), text(element, "EXTERNAL_IP"), ports)


def changed(document: bytes, change: Callable[[etree._Element], None]) -> bytes:
    """A copy of a document after `change`."""
    root = copy.deepcopy(parse(document))
    change(root)
    return etree.tostring(root)


def _each(root: etree._Element) -> list[etree._Element]:
    return [*root.findall("TEMPLATE/NIC"), *root.findall("TEMPLATE/NIC_ALIAS")]


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def attaches(document: bytes) -> bool:
    """True when the document is about one NIC or alias."""
    return any(text(element, "ATTACH").upper() == "YES" for element in _each(parse(document)))


def without_attached(document: bytes) -> bytes:
    """The VM without the NIC or alias that is being attached or detached."""

    def change(root: etree._Element) -> None:
        for element in _each(root):
            if text(element, "ATTACH").upper() == "YES":
                _remove(element)
                if element.tag == "NIC":
                    _drop_context(root, text(element, "NIC_ID"))
                else:
                    _drop_context(root, f"{text(element, 'PARENT_ID')}_ALIAS{text(element, 'ALIAS_ID')}")

    return changed(document, change)


def _drop_context(root: etree._Element, entry: str) -> None:
    for element in root.findall("TEMPLATE/CONTEXT/*"):
        if str(element.tag).startswith(f"ETH{entry}_"):
            _remove(element)


def settled(document: bytes) -> bytes:
    """The VM with nothing being attached any more."""

    def change(root: etree._Element) -> None:
        for element in _each(root):
            for mark in element.findall("ATTACH"):
                _remove(mark)

    return changed(document, change)


def on_host(document: bytes, host: str) -> bytes:
    """The VM as it is on another host."""

    def change(root: etree._Element) -> None:
        for element in root.iterfind("HISTORY_RECORDS/HISTORY/HOSTNAME"):
            element.text = host

    return changed(document, change)


def other_vm(document: bytes, nic_id: int, new_id: int, ip: str, vlan_id: str | None = None) -> bytes:
    """Another VM with one plain NIC in the network of a NIC, or with `vlan_id` in one of its own on the same bridge."""

    def change(root: etree._Element) -> None:
        for element in _each(root):
            if element.tag != "NIC" or text(element, "NIC_ID") != str(nic_id):
                _remove(element)
                continue
            for child in list(element):
                if str(child.tag).startswith(("AWS_", "EXTERNAL_", "INTERNAL_", "ATTACH", "ALIAS_IDS")):
                    element.remove(child)
            mac = "02:00:" + ":".join(f"{int(part):02x}" for part in ip.split("."))
            values = {"NIC_ID": "0", "TARGET": f"one-{new_id}-0", "IP": ip, "MAC": mac, "MTU": "1450"}
            if vlan_id is not None:
                values["VLAN_ID"] = vlan_id
            for key, value in values.items():
                known = element.find(key)
                (etree.SubElement(element, key) if known is None else known).text = value
        for context in root.findall("TEMPLATE/CONTEXT"):
            _remove(context)
        identity = root.find("ID")
        assert identity is not None
        identity.text = str(new_id)

    return changed(document, change)


def deploy(document: bytes, host: str) -> Recording:
    """The steps of a deployment."""
    xml, number = on_host(document, host), vm_id(document)
    return Recording(
        "deploy",
        (
            Step("pre", host, (), xml),
            Step(
                "vmm-deploy", None, (f"/var/lib/one//datastores/0/{number}/deployment.0", host, str(number), host), None
            ),
            Step("post", host, (f"one-{number}", host), xml),
        ),
    )


def terminate(document: bytes, host: str) -> Recording:
    """The steps of a termination."""
    number = vm_id(document)
    cancel = Step("vmm-cancel", None, (f"one-{number}", host, str(number), host), None)
    return Recording("terminate", (cancel, Step("clean", host, (host,), on_host(settled(document), host))))
