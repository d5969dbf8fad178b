"""Where each case takes place, and the documents of its VM and of the VM at the other end, made from recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from lxml import etree

from tests.lab.support import promise
from tests.verdicts.cases import INTERNET, OTHER, Case, named_groups
from tests.world.recording import load

FIRST_VM = 1000
_FIRST_NETWORK = 5000
_SHARED_BRIDGE = "onebr90"
_HERE = "192.168.0.{}"
_VM = "TEMPLATE"
_RECORDED = load("deploy").steps[0].xml or b""


class Elastic(NamedTuple):
    """An address of the VPC, and the Elastic IP that is mapped to it."""

    private: str
    public: str


class Place(NamedTuple):
    """A case, and where in the lab it is.

    Attributes:
        number: of the case, from 0 on.
        host: where its VM runs.
        peer_host: where the other end is; nothing if that is the Internet.
        peer_nic: the number of the other end's NIC among those of the peers on its host.
        bridge: of the case's network.
        network: its number, which is its VNI, too.
        elastic: by what the Internet reaches the VM, if that is the other end.
    """

    number: int
    case: Case
    host: str
    peer_host: str
    peer_nic: int
    bridge: str
    network: int
    elastic: Elastic | None

    @property
    def vm_id(self) -> int:
        """Return its VM's ID."""
        return FIRST_VM + self.number

    @property
    def peer_mac(self) -> str:
        """Return the MAC of the other end's card."""
        return f"02:01:00:00:{self.number >> 8:02x}:{self.number & 255:02x}"

    @property
    def peer_ip(self) -> str:
        """Return the other end's IPv4 address, which it has for ARP even when the packet is IPv6."""
        packet = self.case.packet
        used = {packet.remote, *(element.get("IP") for element in (self.case.nic, *self.case.aliases))}
        free = next(address for address in map(_HERE.format, range(2, 9)) if address not in used)
        return free if packet.version == 6 else packet.remote


def arrange(cases: Sequence[Case], hosts: Sequence[str]) -> list[Place]:
    """Give each case a host, and a network of its own: on a bridge of its own, or on one with others."""
    places: list[Place] = []
    peers = dict.fromkeys(hosts, 0)
    for number, case in enumerate(cases):
        at = number % len(hosts)
        step = 1 + number // len(hosts) % (len(hosts) - 1)
        where = case.packet.where
        peer = "" if where == INTERNET else hosts[(at + step) % len(hosts)] if where == OTHER else hosts[at]
        bridge = f"onebr{100 + number}" if number % 2 else _SHARED_BRIDGE
        elastic = Elastic(f"10.0.0.{50 + number}", f"3.120.77.{50 + number}") if where == INTERNET else None
        nic = peers.get(peer, 0)
        places.append(Place(number, case, hosts[at], peer, nic, bridge, _FIRST_NETWORK + number, elastic))
        peers[peer] = nic + 1
    return places


@cache
def recorded(name: str) -> str:
    """Return an attribute of the recorded NIC."""
    return promise.text(_nics(promise.parse(_RECORDED))[0], name)


def peer_id(host: str) -> int:
    """Return the ID of the VM that is the other end of all cases that have theirs on this host."""
    return FIRST_VM - 100 + int(host[1:])


def subject(place: Place) -> bytes:
    """Make the VM of a case. Its context names no addresses, so that its kernel has none and answers nothing."""
    case = place.case
    outside = dict(zip(("AWS_PRIVATE_IP", "EXTERNAL_IP"), place.elastic, strict=True)) if place.elastic else {}
    at_alias = any(alias.get("IP") == case.packet.local for alias in case.aliases)

    def change(root: etree._Element) -> None:
        _set(_nics(root)[0], {**_network(place), **({} if at_alias else outside), **case.nic})
        for number, alias in enumerate(case.aliases, 1):
            own = outside if alias.get("IP") == case.packet.local else {}
            _add_alias(root, number, {**_network(place), **own, **alias})
        mac = promise.text(_nics(root)[0], "MAC")
        _set(etree.SubElement(etree.SubElement(root, _VM), "CONTEXT"), {"ETH0_MAC": mac})
        groups = [group for element in (case.nic, *case.aliases) for group in named_groups(element)]
        for group in dict.fromkeys(groups):
            for rule in case.groups.get(group, ()):
                named = {**rule, "SECURITY_GROUP_ID": group, "SECURITY_GROUP_NAME": f"group-{group}"}
                _set(etree.SubElement(etree.SubElement(root, _VM), "SECURITY_GROUP_RULE"), named)

    return _vm(place.vm_id, change)


def peers(host: str, places: Sequence[Place]) -> bytes:
    """Make the VM that is the other end of cases: it has a NIC without groups in the network of each."""

    def change(root: etree._Element) -> None:
        model = _nics(root)[0]
        template = model.getparent()
        assert template is not None
        for place in places:
            remote = place.case.packet.remote
            ip6 = {"IP6_LINK" if remote.startswith("fe80:") else "IP6_GLOBAL": remote} if ":" in remote else {}
            values = {"NIC_ID": str(place.peer_nic), "TARGET": f"one-{peer_id(host)}-{place.peer_nic}"}
            values |= {"IP": place.peer_ip, "MAC": place.peer_mac, "SECURITY_GROUPS": "", **_network(place), **ip6}
            nic = etree.fromstring(etree.tostring(model))
            _set(nic, values)
            for child in nic.findall("GATEWAY"):  # whatever address a case gives to this end, it is not its gateway's
                nic.remove(child)
            template.append(nic)
        template.remove(model)
        _set(etree.SubElement(template, "CONTEXT"), {f"ETH{place.peer_nic}_MAC": place.peer_mac for place in places})

    return _vm(peer_id(host), change)


def _vm(vm_id: int, change: Callable[[etree._Element], None]) -> bytes:
    """Make a VM of the recorded one, of which the first NIC is left, without groups and context."""

    def prepare(root: etree._Element) -> None:
        for path in ("CONTEXT", "SECURITY_GROUP_RULE", "NIC"):
            for element in root.findall(f"{_VM}/{path}")[path == "NIC" :]:
                _remove(element)
        _set(root, {"ID": str(vm_id)})
        _set(_nics(root)[0], {"TARGET": f"one-{vm_id}-0"})
        change(root)

    return promise.changed(_RECORDED, prepare)


def _add_alias(root: etree._Element, number: int, values: Mapping[str, str]) -> None:
    nic = _nics(root)[0]
    known = [("NIC_ID", str(number)), ("PARENT_ID", "0"), ("PARENT", "NIC0"), ("ALIAS_ID", str(number - 1))]
    copied = [(name, promise.text(nic, name)) for name in ("VN_MAD", "GATEWAY", "BRIDGE_TYPE", "CLUSTER_ID")]
    mac = ("MAC", f"02:02:00:00:00:{number:02x}")
    name = ("NAME", f"NIC0_ALIAS{number}")
    alias = etree.SubElement(etree.SubElement(root, _VM), "NIC_ALIAS")
    _set(alias, {**dict([*known, *copied, mac, name]), **values})


def _network(place: Place) -> dict[str, str]:
    number = str(place.network)
    return {"BRIDGE": place.bridge, "VLAN_ID": number, "NETWORK_ID": number, "NETWORK": f"net-{number}"}


def _nics(root: etree._Element) -> list[etree._Element]:
    return root.findall(f"{_VM}/NIC")


def _set(element: etree._Element, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        child = element.find(name)
        (etree.SubElement(element, name) if child is None else child).text = value


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)
