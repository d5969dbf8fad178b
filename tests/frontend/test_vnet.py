"""`vnet_create`, `vnet_delete` and `oneaws vnet check`: what a network of the driver gets, and what it must be like."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml
from lxml import etree

from vnm_aws.errors import AwsOvsError
from vnm_aws.frontend import objects, vnet
from vnm_aws.frontend.objects import NETWORK_ERROR, NETWORK_READY, Network
from vnm_aws.frontend.oned import Oned as Client
from vnm_aws.frontend.validation import Validation
from vnm_aws.overlay.bridges import RESERVED

from .cloud import RECORDINGS, Cloud

BASE = 1048576
STEP = 1 << 20
SUBNET = {"NETWORK_ADDRESS": "192.168.0.0", "NETWORK_MASK": "255.255.255.0"}


def _range(ip: str, size: int = 1, **values: str) -> str:
    more = "".join(f', {key}="{value}"' for key, value in values.items())
    return f'AR=[ TYPE="IP4", IP="{ip}", SIZE="{size}"{more} ]'


def _document(cloud: Cloud, vnet_id: int, **elements: str) -> Network:
    """A network as the driver gets it, with elements of its own that the stand-in leaves empty."""
    root = etree.fromstring(cloud.oned.document("VNET", vnet_id))
    for tag, text in elements.items():
        found = root.find(tag)
        assert found is not None
        found.text = text
    return objects.read_network(root)


def _created(cloud: Cloud, network: Network) -> list[str]:
    """What is printed for a network; the same as the program does, in this process."""
    return vnet.create(cloud.world(), network).splitlines()


def _refusal(cloud: Cloud, **values: str) -> str:
    """Why a new network is refused."""
    vnet_id = cloud.add_network("new", ready=False, **values)
    with pytest.raises(AwsOvsError) as refused:
        _created(cloud, _document(cloud, vnet_id))
    return str(refused.value)


def _accepted(cloud: Cloud, **values: str) -> list[str]:
    return _created(cloud, _document(cloud, cloud.add_network("new", ready=False, **values)))


def _error(cloud: Cloud, vnet_id: int) -> str:
    """The ERROR of a network that could not be created."""
    network = cloud.network(vnet_id)
    assert network.state == NETWORK_ERROR
    return network.template["ERROR"].partition(" : ")[2]


# What a network gets


@pytest.mark.parametrize(
    ("recording", "printed"),
    [
        ("private-automatic-vlan-id", [f'VLAN_ID="{BASE + 1}"', 'GUEST_MTU="1450"']),
        ("public-eip", ['MTU="1450"']),
    ],
)
def test_a_recorded_network_gets_what_it_lacks(cloud: Cloud, recording: str, printed: list[str]) -> None:
    document = (RECORDINGS / "vnet-create" / f"{recording}.xml").read_bytes()
    done = cloud.shim("vnet", "vnet_create", document, "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == printed
    assert cloud.mutating_calls() == []


def test_the_created_network_has_the_vni_and_the_mtu(cloud: Cloud) -> None:
    cloud.oned.set_next_id("VNET", 7)
    vnet_id = cloud.add_network("blue", ready=False)
    assert cloud.vnet_create(vnet_id).returncode == 0
    network = cloud.network(vnet_id)
    assert (network.state, network.vlan_id) == (NETWORK_READY, str(BASE + 7))
    assert (network.template["MTU"], network.template["GUEST_MTU"]) == ("1450", "1450")


def test_an_explicit_vni_and_mtu_stay(cloud: Cloud) -> None:
    assert _accepted(cloud, VLAN_ID="100", MTU="1400", GUEST_MTU="1300") == []


def test_either_mtu_sets_the_other(cloud: Cloud) -> None:
    assert 'GUEST_MTU="1300"' in _accepted(cloud, MTU="1300")
    assert 'MTU="8000"' in _created(cloud, _document(cloud, cloud.add_network("two", ready=False, GUEST_MTU="8000")))


def test_the_drivers_configuration_decides_vni_and_mtu(cloud: Cloud) -> None:
    (cloud.directory / "driver.yaml").write_text(yaml.safe_dump({"vni_base": 5000, "internet_mtu": 1460}))
    cloud.oned.set_next_id("VNET", 3)
    vnet_id = cloud.add_network("blue", ready=False)
    assert cloud.vnet_create(vnet_id).stdout.splitlines() == ['VLAN_ID="5003"', 'MTU="1410"', 'GUEST_MTU="1410"']


# The VNI


def test_a_taken_vni_is_passed_over(cloud: Cloud) -> None:
    cloud.oned.set_next_id("VNET", 5)
    cloud.add_network("taken", VLAN_ID=str(BASE + 6))
    assert _accepted(cloud)[0] == f'VLAN_ID="{BASE + STEP + 6}"'


def test_the_vni_that_an_older_network_has_on_the_nodes_is_passed_over(cloud: Cloud) -> None:
    cloud.oned.set_next_id("VNET", 6)
    cloud.add_network("without")  # its NICs get vni_base + 6
    assert str(BASE + 6) in _refusal(cloud, VLAN_ID=str(BASE + 6))


def test_no_free_vni_is_said(cloud: Cloud) -> None:
    (cloud.directory / "driver.yaml").write_text("vni_base: 16000000\n")
    cloud.add_network("taken", VLAN_ID="16000001")
    assert "no VNI from 16000001 on is free" in _refusal(cloud)


@pytest.mark.parametrize(("first", "second"), [("100", "100"), ("100", "0100"), ("0100", "100")])
def test_a_vni_of_another_network_is_refused_and_that_is_named(cloud: Cloud, first: str, second: str) -> None:
    cloud.add_network("blue", VLAN_ID=first)
    assert _refusal(cloud, VLAN_ID=second) == (
        "VLAN_ID 100 is the VNI of network 0 (blue) on bridge brblue already; choose another, or leave it out for a free one"
    )


def test_networks_on_one_bridge_may_share_a_vni(cloud: Cloud) -> None:
    cloud.add_network("blue", VLAN_ID="100")
    assert _accepted(cloud, VLAN_ID="100", BRIDGE="brblue")


def test_a_network_of_another_user_cannot_join_a_segment_by_naming_its_bridge(cloud: Cloud) -> None:
    cloud.add_network("blue", VLAN_ID="100")
    vnet_id = cloud.add_network("new", ready=False, VLAN_ID="100", BRIDGE="brblue")
    with pytest.raises(AwsOvsError) as refused:
        _created(cloud, _document(cloud, vnet_id, UID="7"))
    assert str(refused.value) == (
        "VLAN_ID 100 is the VNI of network 0 (blue) on bridge brblue already; choose another, or let one user own both networks"
    )


@pytest.mark.parametrize(("vlan_id", "problems"), [("100", 0), ("200", 1)])
def test_a_users_reservation_may_stay_on_the_segment_of_its_network_but_join_no_other(
    cloud: Cloud, vlan_id: str, problems: int
) -> None:
    for name, number in (("blue", "100"), ("twin", "100"), ("red", "200")):
        cloud.add_network(name, BRIDGE="ovsbr0", VLAN_ID=number)
    vnet_id = cloud.add_network("part", BRIDGE="ovsbr0", VLAN_ID=vlan_id)
    found = Validation(cloud.world()).problems(_document(cloud, vnet_id, PARENT_NETWORK_ID="0", UID="7"))
    assert [str(one).split(" on bridge")[0] for one in found] == [
        "VLAN_ID 200 is the VNI of network 2 (red)"
    ] * problems


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ('VLAN_ID="200"', "AR: VLAN_ID 200 is the VNI of network 0 (blue) on bridge brblue already"),
        ('VLAN_ID="1.5"', "AR: VLAN_ID '1.5' is not a number from 1 to 16777215"),
        ('BRIDGE="aws_ovs"', "AR: BRIDGE aws_ovs is the driver's own"),
    ],
)
def test_an_address_range_with_a_vni_or_bridge_of_its_own_is_checked_too(cloud: Cloud, own: str, sentence: str) -> None:
    cloud.add_network("blue", VLAN_ID="200")
    assert sentence in _refusal(cloud, VLAN_ID="100", AR=f'AR=[ TYPE="IP4", IP="192.168.0.9", SIZE="1", {own} ]')


def test_the_vni_of_another_networks_address_range_is_taken(cloud: Cloud) -> None:
    cloud.add_network("blue", VLAN_ID="200", AR=_range("192.168.0.9", VLAN_ID="201", BRIDGE="brother"))
    assert _refusal(cloud, VLAN_ID="201").startswith("VLAN_ID 201 is the VNI of network 0 (blue) on bridge brother")


def test_a_reservation_has_the_vni_of_its_network(cloud: Cloud) -> None:
    cloud.add_network("blue", VLAN_ID="100")
    vnet_id = cloud.add_network("part", ready=False, VLAN_ID="100")
    assert _created(cloud, _document(cloud, vnet_id, PARENT_NETWORK_ID="0"))
    with pytest.raises(AwsOvsError, match="network 0"):
        _created(cloud, _document(cloud, vnet_id, PARENT_NETWORK_ID="8"))


def test_networks_of_other_drivers_take_no_vni(cloud: Cloud) -> None:
    cloud.oned.add_vnet('NAME="other"\nVN_MAD="802.1Q"\nVLAN_ID="100"\nPHYDEV="eth0"')
    assert _accepted(cloud, VLAN_ID="100")


def test_a_network_that_failed_takes_no_vni(cloud: Cloud) -> None:
    cloud.oned.fail_vnet_create(cloud.add_network("failed", ready=False, VLAN_ID="100"), "no")
    assert _accepted(cloud, VLAN_ID="100")


AT_ONCE: dict[str, list[str]] = {
    "two automatic": ["", ""],
    "explicit first": [str(BASE + 1), ""],
    "automatic first": ["", str(BASE)],
    "two explicit": ["0100", "100"],
    "eight": ["", str(BASE + 2), "", str(BASE), str(BASE + STEP + 2), "", "", str(BASE + STEP)],
}


@pytest.mark.parametrize("wanted", AT_ONCE.values(), ids=AT_ONCE)
def test_networks_created_at_once_never_have_one_vni(cloud: Cloud, wanted: list[str]) -> None:
    ids = [
        cloud.add_network(f"net{at}", ready=False, **({"VLAN_ID": value} if value else {}))
        for at, value in enumerate(wanted)
    ]
    done = cloud.together(*(lambda one=one: cloud.vnet_create(one) for one in ids))
    networks = [cloud.network(one) for one in ids]
    vnis = [int(one.vlan_id) for one in networks if one.state == NETWORK_READY]
    assert len(set(vnis)) == len(vnis), vnis
    # The older one has it, and a network that asks for none gets one.
    assert networks[0].state == NETWORK_READY
    for number, network, result in zip(wanted, networks, done, strict=True):
        assert network.state == NETWORK_READY or (number and "is the VNI of network" in result.stderr), result.stderr


# What is refused

ETHER = 'AR=[ TYPE="ETHER", SIZE="1", {} ]'
IP6 = 'AR=[ TYPE="IP6", SIZE="1", GLOBAL_PREFIX="2001:db8:1::", {} ]'
_SHARED = {"AWS_PRIVATE_IP": "10.0.0.51", "PORT_START": "65000"}
REFUSED: list[tuple[dict[str, str], str]] = [
    ({"VLAN_ID": "0"}, "VLAN_ID '0' is not a number from 1 to 16777215"),
    ({"VLAN_ID": "16777216"}, "VLAN_ID '16777216' is not a number from 1 to 16777215"),
    ({"VLAN_ID": "blue"}, "VLAN_ID 'blue' is not a number"),
    ({"BRIDGE": "bridge-too-long1"}, "BRIDGE 'bridge-too-long1' is not a device name; use 1 to 15"),
    ({"BRIDGE": "br 0"}, "BRIDGE 'br 0' is not a device name"),
    ({"BRIDGE": "br;reboot"}, "BRIDGE 'br;reboot' is not a device name"),
    ({"BRIDGE": "br/0"}, "BRIDGE 'br/0' is not a device name"),
    ({"BRIDGE_TYPE": "linux"}, "BRIDGE_TYPE is 'linux' instead of openvswitch: oned.conf lacks"),
    ({"MTU": "1451", "GATEWAY": "192.168.0.1"}, "MTU 1451 does not fit: 1450 is left"),
    ({"GUEST_MTU": "1500", "GATEWAY": "192.168.0.1"}, "GUEST_MTU 1500 does not fit: 1450 is left"),
    ({"MTU": "8952"}, "MTU 8952 does not fit: 8951 is left"),
    ({"MTU": "big"}, "MTU 'big' is not a number"),
    ({"MTU": "500"}, "MTU '500' is not a number from 576 to 65535"),
    ({"AR": _range("192.168.0.9", GUEST_MTU="575")}, "GUEST_MTU '575' is not a number from 576 to 65535"),
    ({"MTU": "1500", "AR": _range("192.168.0.9", GATEWAY="192.168.0.1")}, "MTU 1500 does not fit: 1450 is left"),
    ({"AR": _range("192.168.0.9", GUEST_MTU="9000")}, "GUEST_MTU 9000 does not fit: 8951 is left"),
    ({**SUBNET, "NETWORK_MASK": "255.0.255.0"}, "'255.0.255.0' is not a network mask"),
    ({**SUBNET, "NETWORK_MASK": "255"}, "'255' is not a network mask"),
    ({**SUBNET, "NETWORK_MASK": "33"}, "'33' is not a network mask"),
    ({**SUBNET, "NETWORK_MASK": "99999999999"}, "'99999999999' is not a network mask"),
    ({**SUBNET, "NETWORK_MASK": "-99999999999"}, "'-99999999999' is not a network mask"),
    ({**SUBNET, "NETWORK_ADDRESS": "192.168.0.7"}, "'192.168.0.7/24' is not an IPv4 prefix"),
    ({**SUBNET, "GATEWAY": "192.168.1.1"}, "GATEWAY 192.168.1.1 is not in the subnet 192.168.0.0/24"),
    ({**SUBNET, "GATEWAY": "here", "AR": _range("192.168.0.9")}, "GATEWAY 'here' is not an IPv4 address"),
    ({**SUBNET, "AR": _range("192.168.0.9", GATEWAY="10.0.0.1")}, "GATEWAY 10.0.0.1 is not in the subnet"),
    ({**SUBNET, "AR": _range("192.168.1.9")}, "AR 192.168.1.9 to 192.168.1.9 is not in the subnet 192.168.0.0/24"),
    ({**SUBNET, "AR": _range("192.168.0.250", 10)}, "AR 192.168.0.250 to 192.168.1.3 is not in the subnet"),
    ({"GATEWAY": "192.168.0.5", "AR": _range("192.168.0.1", 9)}, "includes the GATEWAY 192.168.0.5"),
    ({"AR": _range("192.168.0.1", 9, GATEWAY="192.168.0.5")}, "includes the GATEWAY 192.168.0.5"),
    ({"AR": _range("192.168.0.1", 9) + "\n" + _range("192.168.0.9")}, "two address ranges include 192.168.0.9"),
    ({"AR": _range("192.168.0.300")}, "AR: IP '192.168.0.300' is not an IPv4 address"),
    ({"AR": _range("192.168.0.1", 0)}, "AR: SIZE '0' is not a number"),
    ({"AR": _range("192.168.0.9", 2, AWS_PRIVATE_IP="10.0.0.9")}, "has SIZE '2', but one VM can have that address"),
    ({"AR": _range("192.168.0.9", AWS_PRIVATE_IP="10.0.9")}, "AR: AWS_PRIVATE_IP '10.0.9' is not an IPv4 address"),
    ({"AR": _range("192.168.0.9", EXTERNAL_IP="web")}, "AR: EXTERNAL_IP 'web' is not an IPv4 address"),
    ({"AWS_VPC_ACCESS": "MAYBE"}, "AWS_VPC_ACCESS 'MAYBE/32' is not an IPv4 prefix"),
    ({"AWS_VPC_ACCESS": "10.0.0.0/16, 10.1.0.1/16"}, "AWS_VPC_ACCESS '10.1.0.1/16' is not an IPv4 prefix"),
    ({"AR": _range("192.168.0.9", AWS_VPC_ACCESS="10.0.0.0/33")}, "AR: AWS_VPC_ACCESS '10.0.0.0/33' is not"),
    ({"AWS_RAW_ETHERNET": "1"}, "AWS_RAW_ETHERNET '1' is neither YES nor NO"),
    ({"AR": _range("192.168.0.9", AWS_RAW_ETHERNET="on")}, "AR: AWS_RAW_ETHERNET 'ON' is neither YES nor NO"),
    ({"GUEST_MTU": "500"}, "GUEST_MTU '500' is not a number from 576 to 65535"),
    ({"AR": _range("192.168.0.9", MTU="300")}, "AR: MTU '300' is not a number from 576 to 65535"),
    ({"FILTER_IP_SPOOFING": "true"}, "FILTER_IP_SPOOFING 'TRUE' is neither YES nor NO"),
    ({"FILTER_MAC_SPOOFING": "1"}, "FILTER_MAC_SPOOFING '1' is neither YES nor NO"),
    ({"AR": _range("192.168.0.9", FILTER_IP_SPOOFING="on")}, "AR: FILTER_IP_SPOOFING 'ON' is neither YES nor NO"),
    ({"AR": ETHER.format('AWS_PRIVATE_IP="10.0.0.50"')}, "AR: AWS_PRIVATE_IP 10.0.0.50 needs an IP of the VM"),
    ({"AR": IP6.format('AWS_PRIVATE_IP="10.0.0.50"')}, "AR: AWS_PRIVATE_IP 10.0.0.50 needs an IP of the VM"),
    ({"AR": _range("192.168.0.9", 100, **_SHARED, PORT_SIZE="100")}, "and 1-100/74901 do not fit each other or leave"),
    (
        {"AR": _range("192.168.0.9", 1, **_SHARED, PORT_SIZE="700")},
        "the port ranges 65001:65700 and 1-700/65001 do not",
    ),
    ({"AR": _range("192.168.0.9", 9, **_SHARED)}, "has SIZE '9', but one VM can have that address"),
    ({"AR": _range("223.255.255.250", 10)}, "AR: IP 224.0.0.3 is not an address that a VM can use"),
    ({"AR": 'MTU=[ NOTE="x", AWS_PRIVATE_IP="10.0.0.41" ]'}, "MTU has AWS_PRIVATE_IP inside"),
    ({**SUBNET, "AWS_EIP_POOL": "Pool=web"}, "AWS_EIP_POOL 'Pool=web' is not a tag filter like tag:Pool=web"),
    ({**SUBNET, "AWS_EIP_POOL": "tag:Pool="}, "AWS_EIP_POOL 'tag:Pool=' is not a tag filter"),
    ({"AWS_EIP_POOL": "tag:Pool=web", "NETWORK_ADDRESS": "192.168.0.0"}, "needs NETWORK_ADDRESS and NETWORK_MASK"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED, ids=["-".join(values) for values, _ in REFUSED])
def test_a_network_that_cannot_work_is_refused(cloud: Cloud, values: dict[str, str], sentence: str) -> None:
    reason = _refusal(cloud, **values)
    assert sentence in reason
    assert "\n" not in reason
    assert "; " in reason or ": " in reason


@pytest.mark.parametrize("bridge", sorted(RESERVED))
def test_the_drivers_own_bridges_are_refused(cloud: Cloud, bridge: str) -> None:
    assert f"BRIDGE {bridge} is the driver's own" in _refusal(cloud, BRIDGE=bridge)


ACCEPTED: list[dict[str, str]] = [
    {"MTU": "1450", "GATEWAY": "192.168.0.1"},
    {"GUEST_MTU": "8951"},
    {**SUBNET, "NETWORK_MASK": "24"},
    {**SUBNET, "GATEWAY": "192.168.0.1", "AR": _range("192.168.0.2", 254)},
    {"VLAN_ID": "16777215", "BRIDGE": "a23456789012345"},
    {"AWS_VPC_ACCESS": "yes", "AWS_RAW_ETHERNET": "no"},
    {"AR": 'NOTES=[ OWNER="x" ]'},
    {"AWS_VPC_ACCESS": "10.0.0.0/16, 10.1.2.3 172.16.0.0/12", "AWS_RAW_ETHERNET": "YES"},
    {"AR": 'AR=[ TYPE="IP6", SIZE="9", MAC="02:00:00:00:00:01", GLOBAL_PREFIX="2001:db8::" ]'},
    {"AR": _range("192.168.0.9", 9, AWS_PRIVATE_IP="10.0.0.9", PORT_START="9001", PORT_SIZE="10")},
    {"AR": _range("192.168.0.9", 5, AWS_PRIVATE_IP="10.0.0.9", PORT_START="65035", PORT_SIZE="100")},
    {"AR": _range("192.168.0.9", 5, PORT_START="65535", PORT_SIZE="100")},
    {"FILTER_IP_SPOOFING": "yes", "FILTER_MAC_SPOOFING": "No", "VLAN_ID": ""},
    {"AR": ETHER.format('FILTER_MAC_SPOOFING="NO"')},
    {"AR": 'AR=[ TYPE="IP4_6", IP="192.168.0.10", SIZE="5", GLOBAL_PREFIX="2001:db8:1::", ULA_PREFIX="fd00:1::" ]'},
]


@pytest.mark.parametrize("values", ACCEPTED)
def test_a_network_at_the_limit_is_accepted(cloud: Cloud, values: dict[str, str]) -> None:
    _accepted(cloud, **values)


def test_one_private_address_leads_to_one_range(cloud: Cloud) -> None:
    cloud.add_network("blue", AR=_range("192.168.0.9", AWS_PRIVATE_IP="10.0.0.9"))
    reason = _refusal(cloud, AR=_range("192.168.0.9", AWS_PRIVATE_IP="10.0.0.9"))
    assert "AWS_PRIVATE_IP 10.0.0.9 is in several address ranges (of networks 1 and 0)" in reason


def test_ranges_that_an_owner_writes_into_the_template_afterwards_claim_nothing(cloud: Cloud) -> None:
    vnet_id = cloud.add_network("hostile", VLAN_ID="100")
    wanted = 'AR=[ TYPE="IP4", IP="192.168.0.9", SIZE="1", AWS_PRIVATE_IP="10.0.0.9", VLAN_ID="200" ]'
    Client()._call("vn.update", vnet_id, wanted, 1)
    assert _accepted(cloud, VLAN_ID="200", AR=_range("192.168.0.9", AWS_PRIVATE_IP="10.0.0.9"))
    assert cloud.oneaws("vnet", "check").stdout.count(" ok") == 2


def test_a_size_of_thousands_of_digits_is_no_trouble() -> None:
    text = f"<VNET><STATE>2</STATE><TEMPLATE><AR><SIZE>{'9' * 5000}</SIZE></AR></TEMPLATE></VNET>"
    assert objects.read_network(etree.fromstring(text)).spans() == []


def test_the_address_of_a_host_is_no_private_address_of_vms(cloud: Cloud) -> None:
    cloud.oned.add_host("h1", template='VXLAN_TEP="10.0.0.4"')
    assert "AWS_PRIVATE_IP 10.0.0.4 is the address of host h1 itself" in _refusal(
        cloud, AR=_range("192.168.0.9", AWS_PRIVATE_IP="10.0.0.4")
    )


def test_one_private_address_may_be_shared_by_ports(cloud: Cloud) -> None:
    shared = {"AWS_PRIVATE_IP": "10.0.0.9", "PORT_SIZE": "10"}
    cloud.add_network("blue", AR=_range("192.168.0.9", 9, **shared, PORT_START="9001"))
    assert _accepted(cloud, AR=_range("192.168.0.9", 9, **shared, PORT_START="9101"))


# What fails


def _refuse_ec2(cloud: Cloud) -> None:
    cloud.ec2.fail_next("DescribeAddresses", "AuthFailure")
    cloud.ec2.fail_next("DescribeInstances", "AuthFailure")


def _no_credentials(cloud: Cloud) -> None:
    del cloud.environment["AWS_SECRET_ACCESS_KEY"]
    del cloud.environment["AWS_ACCESS_KEY_ID"]


def _oned_down(cloud: Cloud) -> None:
    cloud.environment["ONE_XMLRPC"] = "http://127.0.0.1:9/RPC2"


def _bad_driver_configuration(cloud: Cloud) -> None:
    (cloud.directory / "driver.yaml").write_text("vni_base: many\n")


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (_refuse_ec2, "AuthFailure"),
        (_no_credentials, "there are no AWS credentials for this user"),
        (_oned_down, "does not answer"),
        (_bad_driver_configuration, "vni_base must be a number"),
    ],
)
def test_a_failure_is_one_plain_line(cloud: Cloud, arrange: Callable[[Cloud], None], said: str) -> None:
    cloud.add_eips(1)
    vnet_id = cloud.add_pool(ready=False)
    arrange(cloud)
    done = cloud.vnet_create(vnet_id)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("vnet_create: ")
    assert said in line
    assert not line.startswith("ERROR:")
    assert _error(cloud, vnet_id) == line


@pytest.mark.parametrize("stdin", [b"", b"garbage!", base64.b64encode(b"<VNET><ID>1"), b"\xff\xfe\x00"])
def test_garbage_on_stdin_is_said_in_a_line(cloud: Cloud, stdin: bytes) -> None:
    code = "import sys; from vnm_aws.frontend.vnet import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "/x/vnet_create", "1"]
    done = subprocess.run(command, env=cloud.environment, input=stdin, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().count("\n") == 1
    assert b"stdin does not hold a document of OpenNebula" in done.stderr
    assert cloud.oned.calls() == []


def test_deleting_a_network_succeeds_whatever_it_was_like(cloud: Cloud) -> None:
    document = (RECORDINGS / "vnet-delete" / "02-vnet_delete.xml").read_bytes()
    _oned_down(cloud)
    for given in (document, b"garbage", b""):
        done = cloud.shim("vnet", "vnet_delete", given, "1")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# `oneaws vnet check`


def test_check_shows_the_networks_of_the_driver(cloud: Cloud) -> None:
    cloud.add_network("blue", VLAN_ID="100")
    cloud.add_network("green", AWS_VPC_ACCESS="10.0.0.7", AWS_RAW_ETHERNET="yes")
    cloud.oned.add_vnet('NAME="other"\nVN_MAD="bridge"\nBRIDGE="br0"')
    assert cloud.oneaws("vnet", "check").stdout.splitlines() == [
        "ID NAME  BRIDGE  VNI     VPC      RAW STATUS",
        " 0 blue  brblue  100     NO       NO  ok",
        " 1 green brgreen 1048577 10.0.0.7 YES ok",
    ]
    assert cloud.mutating_calls() == []


def test_check_says_every_thing_that_is_wrong(cloud: Cloud) -> None:
    cloud.add_network("blue", VLAN_ID="100")
    cloud.add_network("green", VLAN_ID="100", BRIDGE="br 0", NETWORK_ADDRESS="10.0.0.0", NETWORK_MASK="1.2.3.4")
    done = cloud.oneaws("vnet", "check", "--json", "green", code=1)
    (line,) = json.loads(done.stdout)
    assert (line["ID"], line["NAME"], line["STATUS"]) == (1, "green", "problem")
    assert [text.split()[0] for text in line["PROBLEMS"]] == ["BRIDGE", "VLAN_ID", "NETWORK_ADDRESS"]
    done = cloud.oneaws("vnet", "check", code=1)
    assert len(done.stdout.splitlines()) == 3
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [["oneaws", "network blue"]] + [
        ["oneaws", "network green"]
    ] * 3
    assert [line["STATUS"] for line in json.loads(cloud.oneaws("vnet", "check", "--json", "0", code=1).stdout)] == [
        "problem"
    ]


def test_check_names_an_mtu_that_no_vm_would_start_with(cloud: Cloud) -> None:
    cloud.add_network("blue", MTU="500")
    done = cloud.oneaws("vnet", "check", code=1)
    assert "network blue: MTU '500' is not a number from 576 to 65535; correct it in the template" in done.stderr


def test_check_of_a_network_that_is_not_there_or_not_ours(cloud: Cloud) -> None:
    cloud.oned.add_vnet('NAME="other"\nVN_MAD="bridge"\nBRIDGE="br0"')
    assert "network nothing: OpenNebula has none" in cloud.oneaws("vnet", "check", "nothing", code=1).stderr
    assert "network other has VN_MAD bridge, not aws_ovs" in cloud.oneaws("vnet", "check", "other", code=1).stderr
