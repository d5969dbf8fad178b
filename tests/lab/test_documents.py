"""The document is a user's text: what he may write into it harms no other VM, and what is odd in it stops no end.

Each document here is one that a plain user can bring about, or that OpenNebula has been seen to send.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from lxml import etree

from tests.lab.support import checks, promise
from tests.lab.support.alive import Neighbours, remains
from tests.lab.test_operations import last, nic, set_value
from tests.world.lab import Lab

HOST = "h1"
VICTIM = last("deploy")
"""VM 1."""
OTHER = promise.other_vm(VICTIM, 0, 13, "192.168.0.33")
"""VM 13, with one NIC in a network of VM 1."""
A, OTHER_IP = "192.168.0.10", "192.168.0.33"
pytestmark = pytest.mark.xdist_group("documents")  # one VM is for all


@pytest.fixture(scope="module")
def neighbours(lab: Lab) -> Iterator[Neighbours]:
    """VM 2 on h1, VM 3 on h3, and VM 1 on h1, for all tests here; they are alive at the end."""
    lab.reset()
    others = Neighbours(lab)
    lab.play(promise.deploy(VICTIM, HOST))
    yield others
    assert others.alive(VICTIM) == []


@pytest.fixture
def lab_with_vms(neighbours: Neighbours) -> Iterator[Lab]:
    """The lab; at the end VM 13 is gone, and all else on its host is as before."""
    lab = neighbours.lab
    before = lab.dump(HOST)
    yield lab
    lab.hypervisor.destroy(13)
    assert lab.driver(HOST, "clean", (HOST,), OTHER).returncode == 0
    assert lab.dump(HOST) == before


def with_nic(document: bytes, **values: str | None) -> bytes:
    """A document with attributes of its first NIC."""

    def change(root: etree._Element) -> None:
        for key, value in values.items():
            set_value(nic(root, 0), key, value)

    return promise.changed(document, change)


def with_element(document: bytes, kind: str, **values: str) -> bytes:
    """A document with one element more in its template."""

    def change(root: etree._Element) -> None:
        element = etree.SubElement(etree.SubElement(root, "TEMPLATE"), kind)
        for key, value in values.items():
            etree.SubElement(element, key).text = value

    return promise.changed(document, change)


def without_nics(document: bytes) -> bytes:
    """A document whose NICs are gone."""

    def change(root: etree._Element) -> None:
        for one in root.findall("TEMPLATE/NIC"):
            parent = one.getparent()
            assert parent is not None
            parent.remove(one)

    return promise.changed(document, change)


@pytest.mark.parametrize("target", ["one-1-0", "one-2-1", "aws_gw", "aws_icmp", "vx-0a00000d", "onebr1"])
def test_a_target_of_somebody_else_is_refused_and_its_end_takes_nothing(
    lab_with_vms: Lab, neighbours: Neighbours, target: str
) -> None:
    lab = lab_with_vms
    hostile, before = with_nic(OTHER, TARGET=target), lab.dump(HOST)
    for verb, argv in {"pre": (), "post": ("one-13", HOST), "update_nic": ("one-13", "1")}.items():
        done = lab.driver(HOST, verb, argv, hostile)
        assert (done.returncode, f"TARGET {target} is not one-13-0" in done.stderr) == (1, True), done.stderr
        assert lab.dump(HOST) == before, verb
    assert lab.driver(HOST, "clean", (HOST,), hostile).returncode == 0
    assert lab.dump(HOST) == before
    assert checks.reaches(checks.ping(lab.guest(2), neighbours.cards[2][0].ip, A, count=1))
    assert checks.reaches(checks.ping(lab.guest(3), neighbours.cards[3][0].ip, A, count=1))


@pytest.mark.parametrize("target", ["one-1-0", "vx-0a00000d", "aws_gw"])
def test_a_nic_of_another_driver_takes_no_port_of_ours(lab_with_vms: Lab, target: str) -> None:
    """The hypervisor removes whatever port has the name, if we let it come so far."""
    lab = lab_with_vms
    foreign = {"NIC_ID": "1", "VN_MAD": "ovswitch", "BRIDGE": "br0"}
    done = lab.driver(HOST, "pre", (), with_element(OTHER, "NIC", **foreign, TARGET=target))
    assert (done.returncode, f"TARGET {target} of a NIC of another driver" in done.stderr) == (1, True), done.stderr
    done = lab.driver(HOST, "pre", (), with_element(OTHER, "NIC", **foreign, TARGET="mine"))
    assert done.returncode == 0, done.stderr


ALIAS = {
    "NIC_ID": "5",
    "PARENT_ID": "3",
    "IP": "192.168.9.5",
    "VN_MAD": "aws_ovs",
    "NETWORK_ID": "9",
    "TARGET": "one-13-5",
}
ODD: dict[str, Callable[[bytes], bytes]] = {
    "an alias whose parent is gone": lambda xml: with_element(xml, "NIC_ALIAS", **ALIAS),
    "a filter that is neither YES nor NO": lambda xml: with_nic(xml, FILTER_IP_SPOOFING="true"),
    "a gateway that is the VM's own address": lambda xml: with_nic(xml, GATEWAY=OTHER_IP),
    "an MTU of nothing": lambda xml: with_nic(xml, MTU="0"),
    "no NIC": without_nics,
    "a range of ports that is none": lambda xml: with_nic(xml, AWS_PRIVATE_IP="10.0.0.43", EXTERNAL_PORT_RANGE="9001"),
    "no address, MAC and bridge": lambda xml: with_nic(xml, IP="x", MAC=None, BRIDGE=""),
    "a network without end": lambda xml: with_nic(xml, VLAN_ID="9" * 30, NETWORK_ID="-1"),
    "a value twice": lambda xml: xml.replace(b"<NIC_ID>0</NIC_ID>", b"<NIC_ID>0</NIC_ID><NIC_ID>0</NIC_ID>"),
    "the driver of another network": lambda xml: with_nic(xml, VN_MAD="bridge"),
}


@pytest.mark.parametrize("oddity", ODD)
def test_a_vm_ends_whatever_has_become_of_its_document(lab_with_vms: Lab, oddity: str) -> None:
    lab = lab_with_vms
    odd = ODD[oddity](OTHER)
    lab.play(promise.deploy(OTHER, HOST))
    assert checks.reaches(checks.ping(lab.guest(13), OTHER_IP, A, count=1))
    lab.hypervisor.destroy(13)
    done = lab.driver(HOST, "clean", (HOST,), odd)
    assert done.returncode == 0, done.stderr
    assert remains(lab, OTHER) == []


@pytest.mark.parametrize("driver", ["dummy", "aws_ovs"])
def test_a_pci_device_that_comes_and_goes_is_none_of_ours(lab_with_vms: Lab, driver: str) -> None:
    lab = lab_with_vms
    device = {
        "ADDRESS": "0000:81:00:2", "TYPE": "NIC", "PCI_ID": "0", "NIC_ID": "1", "NETWORK_ID": "9", "VN_MAD": driver,
        "MAC": "02:00:0a:09:00:05", "BRIDGE": "onebr9", "TARGET": "one-13-1", "IP": "10.9.0.5",
    }  # fmt: skip
    attached = with_element(OTHER, "PCI", **device, ATTACH="YES")
    lab.play(promise.deploy(OTHER, HOST))
    before = lab.dump(HOST)
    refused = driver == "aws_ovs"
    done = lab.driver(HOST, "pre", (), attached)
    assert (done.returncode == 1, "PCI 1 is a passthrough device" in done.stderr) == (refused, refused), done.stderr
    for verb, argv in {"post": ("one-13", HOST), "clean": (HOST,)}.items():
        assert lab.driver(HOST, verb, argv, attached).returncode == 0
        assert lab.dump(HOST) == before, verb
    assert checks.reaches(checks.ping(lab.guest(13), OTHER_IP, A, count=1))
    for whole in (with_element(OTHER, "PCI", **device), with_element(without_nics(OTHER), "PCI", **device)):
        done = lab.driver(HOST, "pre", (), whole)
        assert ("PCI 1 is a passthrough device" in done.stderr) == refused, done.stderr


def test_a_nic_without_a_network_is_read_over_in_updates(lab_with_vms: Lab) -> None:
    lab = lab_with_vms
    dummy = {"NIC_ID": "1", "NETWORK_MODE": "DUMMY", "MAC": "02:00:5e:00:00:01", "VN_MAD": "aws_ovs", "IP": A}
    document = with_element(OTHER, "NIC", **dummy)
    lab.play(promise.deploy(OTHER, HOST))
    before = lab.dump(HOST)
    for verb, argv in {"update_sg": ("one-13",), "update_nic": ("one-13", "1")}.items():
        done = lab.driver(HOST, verb, argv, document)
        assert done.returncode == 0, done.stderr
        assert lab.dump(HOST) == before


def test_an_update_while_a_disk_is_attached_is_about_the_whole_vm(lab_with_vms: Lab) -> None:
    lab = lab_with_vms
    lab.play(promise.deploy(OTHER, HOST))
    document = with_element(with_nic(OTHER, GATEWAY="192.168.0.254"), "DISK", DISK_ID="3", ATTACH="YES")
    assert lab.driver(HOST, "update_nic", ("one-13", "1"), document).returncode == 0
    (shown,) = [
        port
        for port in json.loads(lab.hosts[HOST].run(["aws-ovs", "show", "--json"]).stdout)["ports"]
        if port["vm_id"] == 13
    ]
    assert shown["gateways"] == ["192.168.0.254"]


NO_IPV4: dict[str, dict[str, str]] = {
    "only floats": {"FLOATING_IP": "YES", "FLOATING_ONLY": "YES", "IP6": "fd00::10"},
    "IPv6 only": {"IP6": "fd00::13"},
}


@pytest.mark.parametrize("kind", NO_IPV4)
def test_a_nic_without_ipv4_address_is_no_way_around_the_filter(lab_with_vms: Lab, kind: str) -> None:
    """OpenNebula gives one that only floats no lease, in any network and to whoever asks for it."""
    lab = lab_with_vms
    none = dict.fromkeys(("IP", "AWS_PRIVATE_IP", "FILTER_IP_SPOOFING"))
    floating = with_nic(OTHER, **{**none, **NO_IPV4[kind]})
    lab.play(promise.deploy(floating, HOST))
    guest = lab.guest(13)
    for address in (f"{OTHER_IP}/24", "fd00::10/64"):
        guest.run(["ip", "address", "add", address, "dev", "eth0", "nodad"])
    lab.guest(1).run(["ip", "address", "replace", "fd00::1/64", "dev", "eth0", "nodad"])
    assert checks.ping(guest, OTHER_IP, A, count=1) == "no answer"
    assert checks.ping(guest, "fd00::10", "fd00::1", count=1) == "no answer"


def test_an_ipv6_address_of_another_vm_is_taken(lab_with_vms: Lab) -> None:
    lab = lab_with_vms
    first = with_nic(OTHER, IP6_GLOBAL="2001:db8::7")
    second = with_nic(promise.other_vm(VICTIM, 0, 14, "192.168.0.34"), IP6_GLOBAL="2001:DB8:0::7")
    lab.play(promise.deploy(first, HOST))
    done = lab.driver(HOST, "pre", (), second)
    assert done.returncode == 1
    assert "2001:db8::7 is in use on this node by VM 13" in done.stderr
