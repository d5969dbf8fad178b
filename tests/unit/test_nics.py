"""What the front-end says of a network is what nodes say of the NICs that oned makes of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from vnm_aws import vm
from vnm_aws.addresses import int_to_ip, ip_to_int
from vnm_aws.errors import AwsOvsError
from vnm_aws.frontend import nics

RECORDED = (Path(__file__).parents[1] / "recordings/deploy/01-pre.xml").read_bytes()

SWITCH = ("YES", "no", "true", "1", " Yes ", "off", "")
MTU = ("0", "575", "576", "1450", "9001", "65535", "65536", "-1", "1e3", "٣٠٠٠", "")
ATTRIBUTES = {
    "MTU": MTU,
    "GUEST_MTU": MTU,
    "FILTER_IP_SPOOFING": SWITCH,
    "FILTER_MAC_SPOOFING": SWITCH,
    "AWS_RAW_ETHERNET": SWITCH,
    "AWS_VPC_ACCESS": ("YES", "no", "10.0.0.0/16", "10.0.0.1/16", "10.0.0.5 10.9.0.0/16", "on"),
    "AWS_PRIVATE_IP": ("10.0.0.50", "10.0.0", "224.0.0.1", "0.0.0.0"),
    "DNS": ("10.0.0.2 ::1", "nothing"),
    "VLAN_ID": ("1", "0", "16777215", "16777216", "blue"),
    "BRIDGE": ("onebr1", "br 0", "a-bridge-too-long"),
}
OF_RANGE = {
    **ATTRIBUTES,
    "SIZE": ("1", "5", "100"),
    "IP": ("", "192.168.0.10", "223.255.255.250", "192.168.0.300"),
    "IP6": ("2001:db8::5", "2001:db8::x"),
    "PORT_START": ("9000", "65000", "0", "many"),
    "PORT_SIZE": ("10", "100", "6000", "0"),
}
CHANGES = st.lists(
    st.sampled_from(
        [
            (where, key, text)
            for where, attributes in (("network", ATTRIBUTES), ("range", OF_RANGE))
            for key, texts in attributes.items()
            for text in texts
        ]
    ),
    max_size=4,
)


def starts(values: dict[str, str], guest_mtu: str) -> bool:
    """Whether a node takes the recorded VM, whose first NIC of the driver has these attributes instead of its own."""
    root = etree.fromstring(RECORDED)
    nic = next(one for one in root.iterfind("TEMPLATE/NIC") if one.findtext("VN_MAD") == vm.DRIVER)
    number = nic.findtext("NIC_ID")
    for key in {*ATTRIBUTES, "IP", "IP6", "GATEWAY", "EXTERNAL_PORT_RANGE", "INTERNAL_PORT_RANGE"} - {"BRIDGE"} | {
        *values
    }:
        for old in nic.findall(key):
            nic.remove(old)
    for key, text in values.items():
        etree.SubElement(nic, key).text = text
    for old in root.findall(f"TEMPLATE/CONTEXT/ETH{number}_MTU"):
        old.text = guest_mtu
    try:
        vm.parse(etree.tostring(root))
    except AwsOvsError:
        return False
    return True


def lease(values: dict[str, str], index: int) -> dict[str, str]:
    """What oned gives a NIC for a lease of a range, as AddressRange::allocate_addr and set_port_ranges do."""
    given = {key: text for key, text in values.items() if key not in ("SIZE", "PORT_START", "PORT_SIZE", "GUEST_MTU")}
    start, size = (int(text) if (text := values.get(key, "")).isdigit() else 0 for key in ("PORT_START", "PORT_SIZE"))
    if start and size:
        first = start + index * size + 1
        given |= {"EXTERNAL_PORT_RANGE": f"{first}:{first + size - 1}", "INTERNAL_PORT_RANGE": f"1-{size}/{first}"}
    with contextlib.suppress(KeyError, ValueError):
        given["IP"] = int_to_ip(ip_to_int(values["IP"]) + index)
    return given


@settings(max_examples=400, deadline=None)
@given(CHANGES)
def test_a_network_is_accepted_exactly_when_the_first_and_last_vm_of_its_ranges_start(
    changes: list[tuple[str, str, str]],
) -> None:
    own = {"BRIDGE": "onebr0", **{key: text for where, key, text in changes if where == "network"}}
    values = {"SIZE": "3", "IP": "192.168.0.10", **{key: text for where, key, text in changes if where == "range"}}
    merged = {**own, **{key: text for key, text in values.items() if text}}
    expected = all(
        [
            starts({**lease(own, 0), "IP": "10.9.9.9"}, own.get("GUEST_MTU", "")),
            *(starts(lease(merged, index), merged.get("GUEST_MTU", "")) for index in (0, int(values["SIZE"]) - 1)),
        ]
    )
    template = {key: text for key, text in own.items() if key not in ("BRIDGE", "VLAN_ID")}
    said = ""
    try:
        nics.check(own["BRIDGE"], own.get("VLAN_ID", ""), template, [values])
    except AwsOvsError as error:
        said = str(error)
    assert (said == "") == expected
    assert "NIC 0" not in said
