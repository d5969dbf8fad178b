"""The VM document: the shapes that OpenNebula sends, and what must not get through."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from lxml import etree

from tests.unit.documents import RECORDINGS, changed, recorded, with_value
from vnm_aws import document, vm
from vnm_aws.errors import AwsOvsError
from vnm_aws.vm import PortRange

DEPLOY = recorded("deploy", "03-post.xml")
ALL = sorted(RECORDINGS.glob("*/[0-9]*-*.xml"))


@pytest.mark.parametrize(
    "path",
    [path for path in ALL if b"<VM>" in path.read_bytes()[:10]],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_every_recorded_vm_document_is_read(path: Path) -> None:
    machine = vm.parse(document.decode(base64.encodebytes(path.read_bytes())))
    assert machine.nics
    assert machine.hostname in ("h1", "h2")


def test_nics_in_separate_template_elements_are_all_seen() -> None:
    machine = vm.parse(DEPLOY)
    assert machine.vm_id == 1
    assert [nic.target for nic in machine.nics] == ["one-1-0", "one-1-1"]
    first, second = machine.nics
    assert (first.bridge, first.vlan_id, first.ip, first.mtu, first.private_ip) == (
        "onebr1",
        None,
        "192.168.0.10",
        1450,
        None,
    )
    assert (second.bridge, second.vlan_id, second.private_ip) == ("ovsbr0", 100, "10.0.0.41")


def test_vni_is_vlan_id_or_base_plus_network() -> None:
    first, second = vm.parse(DEPLOY).nics
    assert first.vni(5000) == 5001
    assert second.vni(5000) == 100


def test_guest_mtu_comes_from_the_context() -> None:
    assert vm.parse(DEPLOY).nics[1].mtu == 1450
    assert vm.parse(with_value(DEPLOY, "TEMPLATE/CONTEXT/ETH1_MTU", "9000")).nics[1].mtu == 9000


def test_whole_vm_is_concerned_without_attach() -> None:
    machine = vm.parse(DEPLOY)
    assert not machine.attaching
    assert machine.concerned == machine.nics


def test_only_the_attached_nic_is_concerned() -> None:
    machine = vm.parse(recorded("attach-nic", "03-post.xml"))
    assert machine.attaching
    assert [nic.nic_id for nic in machine.concerned] == [2]


def test_an_attached_alias_concerns_its_parent() -> None:
    machine = vm.parse(recorded("attach-alias-external", "02-post.xml"))
    (parent,) = machine.concerned
    assert parent.nic_id == 0
    assert not parent.attach
    (alias,) = parent.aliases
    assert (alias.external, alias.private_ip, alias.attach) == (True, "10.0.0.42", True)


def test_shared_ports() -> None:
    (nic, _) = vm.parse(recorded("deploy-ports", "03-post.xml")).nics
    assert nic.ports == PortRange(external=9001, internal=1, size=10)


def test_nics_of_other_drivers_are_left_out() -> None:
    machine = vm.parse(with_value(DEPLOY, "TEMPLATE/NIC/VN_MAD", "bridge"))
    assert [nic.nic_id for nic in machine.nics] == [1]


def test_alias_with_elastic_ip_on_a_foreign_nic_is_refused() -> None:
    foreign = with_value(recorded("attach-alias-external", "02-post.xml"), "TEMPLATE/NIC/VN_MAD", "bridge")
    with pytest.raises(AwsOvsError, match=r"NIC_ALIAS 3 .* driver 'bridge'"):
        vm.parse(foreign)


def test_filters_are_on_unless_no() -> None:
    assert all(nic.filter_mac and nic.filter_ip for nic in vm.parse(DEPLOY).nics)
    assert not vm.parse(with_value(DEPLOY, "TEMPLATE/NIC/FILTER_IP_SPOOFING", "NO")).nics[0].filter_ip


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        ("ID", "-1", "ID"),
        ("ID", "1; reboot", "ID"),
        ("ID", "9" * 30, "ID"),
        ("TEMPLATE/NIC/TARGET", "one-1-0; id", "TARGET"),
        ("TEMPLATE/NIC/TARGET", "$(reboot)", "TARGET"),
        ("TEMPLATE/NIC/TARGET", "", "TARGET"),
        ("TEMPLATE/NIC/TARGET", "../../etc/x", "TARGET"),
        ("TEMPLATE/NIC/TARGET", "one-1-0\u0000x".replace("\u0000", "\n"), "TARGET"),
        ("TEMPLATE/NIC/TARGET", "one-2-0", "TARGET one-2-0 is not one-1-0"),
        ("TEMPLATE/NIC/TARGET", "one-1-1", "TARGET one-1-1 is not one-1-0"),
        ("TEMPLATE/NIC/TARGET", "one-01-0", "TARGET one-01-0 is not one-1-0"),
        ("TEMPLATE/NIC/TARGET", "aws_gw", "TARGET aws_gw is not one-1-0"),
        ("TEMPLATE/NIC/TARGET", "vx-0a00000d", "TARGET vx-0a00000d is not one-1-0"),
        ("TEMPLATE/NIC/BRIDGE", "a" * 16, "BRIDGE"),
        ("TEMPLATE/NIC/BRIDGE", "-x", "BRIDGE"),
        ("TEMPLATE/NIC/MAC", "02:00:c0:a8:00", "MAC"),
        ("TEMPLATE/NIC/MAC", "ff:ff:ff:ff:ff:ff", "MAC"),
        ("TEMPLATE/NIC/IP", "192.168.0.256", "IP"),
        ("TEMPLATE/NIC/IP", "127.0.0.1", "IP"),
        ("TEMPLATE/NIC/IP", "224.0.0.1", "IP"),
        ("TEMPLATE/NIC/GATEWAY", "192.168.0.10", "GATEWAY"),
        ("TEMPLATE/NIC/GATEWAY", "1,actions=drop", "GATEWAY"),
        ("TEMPLATE/NIC/VLAN_ID", "16777216", "VLAN_ID"),
        ("TEMPLATE/NIC/VLAN_ID", "0", "VLAN_ID"),
        ("TEMPLATE/NIC/MTU", "1e9", "MTU"),
        ("TEMPLATE/NIC/NETWORK_ID", "x", "NETWORK_ID"),
        ("TEMPLATE/NIC/NIC_ID", "1", "NIC_ID"),
        ("TEMPLATE/NIC/NIC_ID", "65536", "NIC_ID"),
        ("TEMPLATE/NIC/FILTER_MAC_SPOOFING", "MAYBE", "FILTER_MAC_SPOOFING"),
        ("TEMPLATE/NIC/AWS_PRIVATE_IP", "10.0.0.41", "AWS_PRIVATE_IP"),
        ("TEMPLATE/NIC/AWS_PRIVATE_IP", "169.254.169.254", "AWS_PRIVATE_IP"),
        ("TEMPLATE/NIC/IP6", "fe80::zz", "IP6"),
    ],
)
def test_a_bad_value_is_refused_by_name(path: str, value: str, names: str) -> None:
    with pytest.raises(AwsOvsError, match=names) as caught:
        vm.parse(with_value(DEPLOY, path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("external", "internal"),
    [
        ("9001:9010", "1-9/9001"),
        ("9010:9001", "1-10/9001"),
        ("9001:9010", "1-10/9002"),
        ("x", "1-10/9001"),
        ("9001:9010", ""),
        ("1:70000", "1-70000"),
    ],
)
def test_bad_port_ranges_are_refused(external: str, internal: str) -> None:
    document = recorded("deploy-ports", "03-post.xml")
    document = with_value(document, "TEMPLATE/NIC/EXTERNAL_PORT_RANGE", external)
    with pytest.raises(AwsOvsError, match="NIC 0"):
        vm.parse(with_value(document, "TEMPLATE/NIC/INTERNAL_PORT_RANGE", internal))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<VM",
        DEPLOY[: len(DEPLOY) // 2],
        b"<VNET><ID>1</ID></VNET>",
        b"<VM><ID>1</ID></VM>",
        b'<!DOCTYPE VM [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + DEPLOY,
        b'<!DOCTYPE VM [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + DEPLOY.replace(b"onebr1", b"x", 1),
        b"\xff\xfe\x00" * 100,
    ],
)
def test_what_is_not_a_vm_document_is_refused(document: bytes) -> None:
    with pytest.raises(AwsOvsError):
        vm.parse(document)


def test_a_missing_nic_element_is_refused() -> None:
    def drop(root: object) -> None:
        nic = root.find("TEMPLATE/NIC")  # type: ignore[attr-defined]
        nic.remove(nic.find("MAC"))

    with pytest.raises(AwsOvsError, match="NIC 0: MAC"):
        vm.parse(changed(DEPLOY, drop))


@pytest.mark.parametrize("stdin", [b"%%%", b"PFZN", b"YWJj=", "ü".encode()])
def test_wrong_base64_or_truncation_is_refused(stdin: bytes) -> None:
    with pytest.raises(AwsOvsError):
        vm.parse(document.decode(stdin))


def test_a_huge_document_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(AwsOvsError, match="larger than"):
        document.decode(b"A" * (document.SIZE_LIMIT * 2))


@pytest.mark.parametrize(
    ("text", "prefixes"),
    [
        ("", ()),
        ("no", ()),
        ("YES", ("0.0.0.0/0",)),
        ("10.0.0.0/16, 172.16.3.4", ("10.0.0.0/16", "172.16.3.4/32")),
    ],
)
def test_a_network_says_which_private_addresses_its_guests_reach(text: str, prefixes: tuple[str, ...]) -> None:
    document = with_value(recorded("deploy", "01-pre.xml"), "TEMPLATE/NIC/AWS_VPC_ACCESS", text)
    assert vm.parse(document).nics[0].vpc_access == prefixes


def test_only_ipv4_servers_count_as_dns_servers() -> None:
    text = "10.0.0.2, 2001:db8::1 192.0.2.53 nonsense 10.0.0.2"
    document = with_value(recorded("deploy", "01-pre.xml"), "TEMPLATE/NIC/DNS", text)
    assert vm.parse(document).nics[0].dns == ("10.0.0.2", "192.0.2.53")


def added(kind: str, **values: str) -> bytes:
    """The recorded VM with one more element in its template."""

    def change(root: etree._Element) -> None:
        element = etree.SubElement(etree.SubElement(root, "TEMPLATE"), kind)
        for key, value in values.items():
            etree.SubElement(element, key).text = value

    return changed(DEPLOY, change)


@pytest.mark.parametrize("kind", ["NIC", "NIC_ALIAS", "PCI", "DISK"])
def test_an_element_that_comes_or_goes_is_all_that_the_action_is_about(kind: str) -> None:
    document = added(kind, NIC_ID="7", PARENT_ID="0", VN_MAD="bridge", ATTACH="yes ")
    machine, leaving = vm.parse(document), vm.parse_leaving(document)
    assert machine.attaching
    assert leaving.attaching
    assert machine.concerned_ids == leaving.concerned_ids == ((0,) if kind == "NIC_ALIAS" else ())
    assert vm.parse_whole(document).concerned == machine.nics, "an update is about the whole VM"


def test_a_user_cannot_mark_what_opennebula_does_not() -> None:
    assert not vm.parse(with_value(DEPLOY, "TEMPLATE/CONTEXT/ATTACH", "YES")).attaching


def test_a_passthrough_device_in_a_network_of_ours_is_told() -> None:
    device = {"TYPE": "NIC", "NIC_ID": "7", "VN_MAD": "aws_ovs", "TARGET": "one-1-7"}
    assert vm.parse(added("PCI", **device)).passthrough == ("PCI 7",)
    assert vm.parse(added("PCI", **device, ATTACH="YES")).passthrough == ("PCI 7",)
    assert vm.parse(added("PCI", **{**device, "VN_MAD": "dummy"})).passthrough == ()
    attached = with_value(added("PCI", **device), "TEMPLATE/NIC/ATTACH", "YES")
    assert vm.parse(attached).passthrough == (), "the action is about another element"


@pytest.mark.parametrize("values", [{}, {"VN_MAD": "aws_ovs", "NETWORK_ID": "1", "IP": "192.168.0.77", "GATEWAY": "x"}])
def test_a_nic_without_a_network_is_read_over(values: dict[str, str]) -> None:
    document = added("NIC", NIC_ID="7", NETWORK_MODE="dummy", MAC="02:00:00:00:00:07", **values)
    assert vm.parse_whole(document).nics == vm.parse(DEPLOY).nics


def test_a_target_of_another_drivers_nic_is_told_when_it_is_not_its_own() -> None:
    targets = {"one-1-7": (), "one-2-0": ("one-2-0",), "": (), "vx-0a00000d": ("vx-0a00000d",)}
    for target, told in targets.items():
        document = added("NIC", NIC_ID="7", VN_MAD="ovswitch", TARGET=target)
        assert vm.parse(document).foreign_targets == told


def test_a_nic_that_only_floats_has_its_filter_and_no_address_of_a_users() -> None:
    def change(root: etree._Element) -> None:
        (nic, *_) = root.iterfind("TEMPLATE/NIC")
        for child in [child for child in nic if child.tag in ("IP", "AWS_PRIVATE_IP", "FILTER_IP_SPOOFING")]:
            nic.remove(child)
        for key, value in {"FLOATING_IP": "YES", "FLOATING_ONLY": "yes", "IP6": "2001:db8::7"}.items():
            etree.SubElement(nic, key).text = value

    nic = vm.parse(changed(DEPLOY, change)).nics[0]
    assert (nic.ip, nic.ip6, nic.filter_ip, nic.floats) == (None, (), True, True)


@pytest.mark.parametrize(("key", "filtered"), [("IP", True), ("IP6", True), ("IP6_ULA", True), ("AR_ID", False)])
def test_a_nic_with_any_address_has_its_filter(key: str, filtered: bool) -> None:
    def change(root: etree._Element) -> None:
        (nic, *_) = root.iterfind("TEMPLATE/NIC")
        for child in [child for child in nic if child.tag in ("IP", "AWS_PRIVATE_IP", "FILTER_IP_SPOOFING", "AR_ID")]:
            nic.remove(child)
        etree.SubElement(nic, key).text = {"IP": "192.168.0.10", "AR_ID": "2"}.get(key, "2001:db8::7")

    assert vm.parse(changed(DEPLOY, change)).nics[0].filter_ip == filtered
