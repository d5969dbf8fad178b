"""The rules of security groups: which texts mean something, what they mean, and that no text costs more than its length."""

from __future__ import annotations

import ipaddress
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.unit.documents import changed, recorded
from tests.unit.test_guest_port import ports
from vnm_aws import document, vm
from vnm_aws.driver import state
from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay.pipeline import groups
from vnm_aws.rules import Groups, Net, Rule

ATTACHED = recorded("attach-nic-sg", "03-post.xml")
WEB = {"SECURITY_GROUP_ID": "100", "SECURITY_GROUP_NAME": "web", "RULE_TYPE": "inbound", "PROTOCOL": "TCP"}
MANY = settings(
    max_examples=500, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def of_nic(*rules: dict[str, str], named: str = "100") -> tuple[Rule, ...] | None:
    """The rules of a NIC with the groups `named` in a document that has these; a key may have `2` behind it to be there twice."""
    root = etree.Element("VM")
    for rule in rules:
        parent = etree.SubElement(etree.SubElement(root, "TEMPLATE"), "SECURITY_GROUP_RULE")
        for key, text in rule.items():
            etree.SubElement(parent, key.rstrip("2")).text = text
    return Groups(document.tree(etree.tostring(root))).of_nic(named, "NIC 0: SECURITY_GROUPS")


def read(**attributes: str) -> Rule:
    """The only rule of a group, with these attributes beside the usual ones."""
    rules = of_nic(WEB | attributes)
    assert rules is not None
    (rule,) = rules
    return rule


def nets(**attributes: str) -> str:
    """The blocks of a rule, as text."""
    return " ".join(map(str, read(**attributes).nets or ()))


def net(first: str, size: int) -> Net:
    address = ipaddress.ip_address(first)
    return Net(address.version == 6, int(address), int(address) + size - 1)


def test_the_recorded_rules_are_those_of_the_groups_of_each_nic() -> None:
    *others, third = vm.parse(ATTACHED).nics
    for nic in others:  # in group 0 only, which accepts everything
        assert [str(rule) for rule in nic.rules or ()] == ["OUTBOUND ALL", "INBOUND ALL"]
    assert [(rule.group_id, rule.group, str(rule)) for rule in third.rules or ()] == [
        (0, "default", "OUTBOUND ALL"),
        (0, "default", "INBOUND ALL"),
        (100, "web-sg", "INBOUND TCP 22,80,443"),
        (100, "web-sg", "INBOUND ICMP type 8 192.168.0.10+100"),
        (100, "web-sg", "INBOUND UDP 5000:6000 10.10.0.0+256"),
        (100, "web-sg", "OUTBOUND ALL"),
    ]
    updated = vm.parse_whole(recorded("sg-update", "01-update_sg.xml")).nics[-1]
    assert "INBOUND TCP 22,80" in map(str, updated.rules or ())


def test_groups_come_in_the_order_of_their_numbers_once_each() -> None:
    rules = [WEB | {"SECURITY_GROUP_ID": number, "RANGE": number} for number in ("100", "9", "20")]
    read = of_nic(*rules, named=" 100,9, 100,,20 ")
    assert [rule.group_id for rule in read or ()] == [9, 20, 100]


def test_a_nic_without_groups_is_not_one_whose_groups_have_no_rules() -> None:
    assert of_nic(WEB, named="") is None
    assert of_nic(WEB, named=" , ") is None
    assert of_nic(WEB, named="101") == ()


@pytest.mark.parametrize("named", ["0;100", "web", "0x64", "-1", "1 0", "\u0663", "9" * 10])
def test_groups_that_are_no_numbers_are_refused(named: str) -> None:
    with pytest.raises(AwsOvsError, match=r"NIC 0: SECURITY_GROUPS .* is not a list of IDs"):
        of_nic(WEB, named=named)


def test_a_user_cannot_write_rules_of_his_own() -> None:
    """oned keeps what it does not know of a template in USER_TEMPLATE, and makes the rules in TEMPLATE itself."""
    before = vm.parse(ATTACHED).nics

    def change(root: etree._Element) -> None:
        for place in ("USER_TEMPLATE", "TEMPLATE/CONTEXT", "TEMPLATE/NIC"):
            for parent in root.findall(place):
                rule = etree.SubElement(parent, "SECURITY_GROUP_RULE")
                for key, text in (WEB | {"PROTOCOL": "ALL"}).items():
                    etree.SubElement(rule, key).text = text

    assert vm.parse(changed(ATTACHED, change)).nics == before


def test_case_and_blanks_make_no_difference() -> None:
    written = read(RULE_TYPE="\n InBound ", PROTOCOL=" udp\t", RANGE=" 22 , 5000 : 6000 ", IP=" 10.0.0.5 ", SIZE=" 07 ")
    assert written == Rule(100, "web", True, "UDP", ((22, 22), (5000, 6000)), None, (net("10.0.0.5", 7),))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", ((0, 0),)),
        ("65535", ((65535, 65535),)),
        ("0:65535", ((0, 65535),)),
        ("000022", ((22, 22),)),
        ("80,22,22", ((80, 80), (22, 22), (22, 22))),
        ("7:7", ((7, 7),)),
        ("", ()),
        (" ", ()),
    ],
)
def test_ranges_of_ports(text: str, wanted: tuple[tuple[int, int], ...]) -> None:
    assert read(RANGE=text).ports == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("6000:5000", "65536", "1:65536", "99999999999999999999", "-1", "+22", "22-80", "22;80", "1:2:3", ":", "22:"),
        *(":22", ",", "22,", "22,,80", "2 2", "0x16", "22.0", "1e3", "ssh", "\u0662\u0662", "\u00b2", "22,80,443x"),
    ],
)
def test_what_is_no_range_of_ports_is_refused(text: str) -> None:
    with pytest.raises(AwsOvsError, match=r"^security group 100 \(web\), rule '.*': RANGE '.*; correct it: "):
        read(RANGE=text)


@pytest.mark.parametrize("protocol", ["ALL", "ICMP", "ICMPV6", "IPSEC"])
def test_only_tcp_and_udp_have_ports(protocol: str) -> None:
    with pytest.raises(AwsOvsError, match="RANGE '22' is for TCP and UDP only"):
        read(PROTOCOL=protocol, RANGE="22")


@pytest.mark.parametrize("protocol", ["", "SCTP", "6", "ANY", "TCPUDP", "tcp udp", "ip\u017fec", "ICMP6"])
def test_other_protocols_are_refused(protocol: str) -> None:
    with pytest.raises(AwsOvsError, match=r"PROTOCOL '.*' is none of ALL, TCP, UDP, ICMP, ICMPV6, IPSEC"):
        read(PROTOCOL=protocol)


@pytest.mark.parametrize("direction", ["", "IN", "BOTH", "INBOUND OUTBOUND", "\u0131nbound"])
def test_other_directions_are_refused(direction: str) -> None:
    with pytest.raises(AwsOvsError, match=r"RULE_TYPE '.*' is neither INBOUND nor OUTBOUND"):
        read(RULE_TYPE=direction)


def test_types_of_icmp_messages() -> None:
    assert read(PROTOCOL="icmp", ICMP_TYPE="8").icmp_type == 8
    assert read(PROTOCOL="ICMPv6", ICMPV6_TYPE="0").icmp_type == 0
    assert read(PROTOCOL="ICMP", ICMP_TYPE=" ").icmp_type is None
    for protocol, key, text in (
        *(("ICMP", "ICMP_TYPE", text) for text in ("256", "-1", "8/0", "echo", "9" * 40)),
        ("ICMP", "ICMPV6_TYPE", "8"),
        ("ICMPV6", "ICMP_TYPE", "128"),
        ("ALL", "ICMP_TYPE", "8"),
        ("TCP", "ICMPV6_TYPE", "128"),
    ):
        with pytest.raises(AwsOvsError, match=f"{key} '.*' is"):
            read(PROTOCOL=protocol, **{key: text})


def test_a_block_is_so_many_addresses_from_one_on() -> None:
    assert read(IP="10.0.0.5", SIZE="7").nets == (net("10.0.0.5", 7),)
    assert read(IP="2001:DB8::a", SIZE="1").nets == (net("2001:db8::a", 1),)
    assert nets(IP="0.0.0.0", SIZE=str(2**32)) == "0.0.0.0+4294967296"
    assert nets(IP="255.255.255.255", SIZE="1") == "255.255.255.255+1"
    assert nets(IP="2001:db8::", SIZE=str(2**40)) == "2001:db8::+1099511627776"
    assert read(IP="::", SIZE=str(2**128)).nets == (Net(True, 0, 2**128 - 1),)
    assert read().nets is None


def test_what_oned_makes_of_a_network_is_a_block_for_each_family() -> None:
    of_range = {"NETWORK_ID": "7", "AR_ID": "0", "MAC": "02:00:c0:a8:00:0a", "SIZE": "100"}
    addresses = {"IP": "192.168.0.10", "IP6_GLOBAL": "2001:db8::a", "IP6_ULA": "fd00::a"}
    assert nets(**of_range, **addresses) == "192.168.0.10+100 2001:db8::a+100 fd00::a+100"
    assert nets(**of_range, IP6="2001:db8::1", TYPE="IP6_STATIC") == "2001:db8::1+100"
    # An Ethernet range has no addresses, so nobody is in it; that is not everybody.
    assert read(**of_range, TYPE="ETHER").nets == ()
    assert read(NETWORK_ID="7").nets == ()
    assert read(SIZE="7").nets == ()


def test_a_block_of_no_addresses_is_nowhere() -> None:
    for address in ("10.0.0.1", "0.0.0.0", "::"):
        rule = read(IP=address, SIZE="0")
        assert (rule.nets, str(rule)) == ((), "INBOUND TCP nowhere")


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({"IP": "10.0.0.5"}, "SIZE '' is no number of addresses"),
        *(
            ({"IP": "10.0.0.5", "SIZE": size}, f"SIZE '{size}' is no number of addresses")
            for size in ("-1", "1.5", "0x10", "7 7", "\u0667", "/24")
        ),
        ({"IP": "10.0.0.5", "SIZE": "9" * 40}, "is no number of addresses"),
        (
            {"IP": "10.0.0.5", "SIZE": str(2**40)},
            "SIZE 1099511627776 is more addresses than there are from 10.0.0.5 on",
        ),
        ({"IP": "255.255.255.255", "SIZE": "2"}, "SIZE 2 is more addresses than there are from 255.255.255.255 on"),
        ({"IP6": "ffff::", "SIZE": str(2**120)}, "is more addresses than there are from ffff:: on"),
        ({"IP": "::ffff:10.0.0.5", "SIZE": "1"}, "stands for an IPv4 address, which is written like"),
        ({"IP": "10.0.0.300", "SIZE": "1"}, "IP '10.0.0.300' is no IP address"),
        ({"IP": "10.0.0.300", "SIZE": "0"}, "IP '10.0.0.300' is no IP address"),
        ({"IP": "10.0.0.0/24", "SIZE": "256"}, "IP '10.0.0.0/24' is no IP address"),
        ({"IP": "10.1", "SIZE": "1"}, "IP '10.1' is no IP address"),
        ({"IP": "010.0.0.1", "SIZE": "1"}, "IP '010.0.0.1' is no IP address"),
        ({"IP": "fe80::1%eth0", "SIZE": "1"}, "IP 'fe80::1%eth0' is no IP address"),
        ({"IP6_GLOBAL": "x" * 1000, "SIZE": "1"}, "is no IP address"),
        ({"IP": "10.0.0.5", "SIZE": "1", "IP6_ULA": "10.0.0.x"}, "IP '10.0.0.x' is no IP address"),
    ],
)
def test_blocks_that_cannot_be_are_refused(attributes: dict[str, str], wanted: str) -> None:
    with pytest.raises(AwsOvsError) as refusal:
        read(**attributes)
    assert wanted in str(refusal.value)


@pytest.mark.parametrize("key", ["RANGE", "PROTOCOL", "SIZE", "SECURITY_GROUP_ID"])
def test_a_rule_that_says_something_twice_is_refused(key: str) -> None:
    whole = WEB | {"RANGE": "22", "IP": "10.0.0.5", "SIZE": "1"}
    for other in (whole[key], "7"):
        with pytest.raises(AwsOvsError, match=f"^security group 100 .*: it has '{key}' twice; correct it: "):
            of_nic(whole | {f"{key}2": other})


def test_what_is_wrong_with_the_groups_of_others_does_not_matter() -> None:
    wrong = [WEB | {"SECURITY_GROUP_ID": number, "PROTOCOL": "SCTP"} for number in ("101", "", "x", "0100", "1000")]
    assert len(of_nic(WEB, *wrong) or ()) == 1
    with pytest.raises(AwsOvsError, match=r"^security group 101 \(web\)"):
        of_nic(WEB, *wrong, named="100,101")


def test_the_refusal_is_a_sentence_with_rule_group_and_command() -> None:
    with pytest.raises(AwsOvsError) as refusal:
        read(RANGE="22,80:70", IP="10.0.0.5", SIZE="7", SECURITY_GROUP_NAME="web\n'servers'")
    assert str(refusal.value) == (
        r"security group 100 (web\n'servers'), rule 'inbound TCP 22,80:70 10.0.0.5 7': RANGE '22,80:70' has '80:70', "
        "which is no range within 0 to 65535; correct it: onesecgroup update 100"
    )


_VALUES = st.one_of(
    st.sampled_from(
        [
            *("", " ", "0", "1", "22", "22,80:90", "65535", "65536", "6000:5000", "-1", str(2**40), "9" * 50, "1,2"),
            *("TCP", "udp", "All", "ICMP", "icmpv6", "IPSEC", "INBOUND", "outbound", "100", "101", "x\x85\u202e\ud7ff"),
            *("10.0.0.5", "10.0.0", "::", "2001:db8::5", "::ffff:10.0.0.5", "255.255.255.250", "'\"\\", "7" * 3000),
        ]
    ),
    st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="\ufffe\uffff"), max_size=12),
    st.from_regex(r"[0-9]{1,5}(:[0-9]{1,5})?(, ?[0-9]{1,5}(:[0-9]{1,5})?){0,4}", fullmatch=True),
)
_WORDS = {
    "RULE_TYPE": ["INBOUND", "outbound", " Inbound"],
    "PROTOCOL": ["TCP", "udp", "ALL", "Icmp", "ICMPV6", "ipsec"],
}
_LIKELY = {
    "RANGE": ["", "22", "0:65535", "5000:6000, 22"],
    "ICMP_TYPE": ["", "8", "255"],
    "ICMPV6_TYPE": ["", "128"],
    "IP": ["", "10.0.0.5", "2001:db8::5"],
    "IP6": ["", "::"],
    "IP6_GLOBAL": ["", "2001:db8:1::"],
    "IP6_ULA": ["", "fd00::5"],
    "NETWORK_ID": ["", "1"],
    "SIZE": ["", "0", "7", "250", str(2**40)],
}
TEXTS = st.fixed_dictionaries(
    {"SECURITY_GROUP_ID": st.just("100"), **{key: st.sampled_from(_WORDS[key]) | _VALUES for key in _WORDS}},
    optional={
        **{key: st.sampled_from(likely) | _VALUES for key, likely in _LIKELY.items()},
        **{f"{key}2": _VALUES for key in ("RULE_TYPE", "RANGE", "IP", "SECURITY_GROUP_ID", "SECURITY_GROUP_NAME")},
        "SECURITY_GROUP_NAME": _VALUES,
        "DESCRIPTION": _VALUES,
    },
)


@MANY
@given(TEXTS)
def test_a_text_is_refused_in_a_sentence_or_means_what_it_says(texts: dict[str, str]) -> None:
    try:
        (rule,) = of_nic(texts) or ()
    except AwsOvsError as refusal:
        sentence = str(refusal)
        assert sentence.isprintable(), sentence
        assert len(sentence) < 500, sentence
        assert sentence.startswith("security group 100 ("), sentence
        assert sentence.endswith("; correct it: onesecgroup update 100"), sentence
        event("refused")
        return
    said = {key: text.strip() for key, text in texts.items()}
    assert not any(key.rstrip("2") in said for key in said if key.endswith("2")), "it says something twice"
    assert rule.inbound == (said["RULE_TYPE"].upper() == "INBOUND")
    assert rule.protocol == said["PROTOCOL"].upper()
    assert list(rule.ports) == list(_said_ports(said.get("RANGE", "")))
    icmp_types = [said[key] for key in ("ICMP_TYPE", "ICMPV6_TYPE") if said.get(key)]
    assert icmp_types == [] if rule.icmp_type is None else [int(text) for text in icmp_types] == [rule.icmp_type]
    addresses = [said[key] for key in ("IP", "IP6", "IP6_GLOBAL", "IP6_ULA") if said.get(key)]
    if not addresses:
        assert rule.nets == (() if said.get("SIZE") or said.get("NETWORK_ID") else None)
    elif int(said["SIZE"]):
        assert rule.nets == tuple(net(address, int(said["SIZE"])) for address in addresses)
    else:
        assert rule.nets == ()
    written((rule,))


def _said_ports(text: str) -> Iterator[tuple[int, int]]:
    for part in filter(None, text.split(",")):
        low, _, high = part.partition(":")
        yield int(low), int(high or low)


PORT = ports(ATTACHED)[0]._replace(slot=7)
"""Any guest port, with a zone of its own."""


def written(rules: tuple[Rule, ...]) -> list[str]:
    """The flows of a NIC with these rules, after they have been in the VM's file."""
    (port,) = state._decode({"ports": state._objects([PORT._replace(rules=rules)])}, PORT.vm_id)
    assert port.rules == rules
    return groups.port(port, 3, 0)


HUGE = {
    "ports of one rule": (1, {"RANGE": ",".join(map(str, range(1, 60001)))}),
    "the same port again and again": (1, {"RANGE": ",".join(["1"] * (document.SIZE_LIMIT // 2 - 1000))}),
    "odd ports of many rules": (48, {"RANGE": ",".join(map(str, range(10001, 65535, 2)))}),
    "different rules": (33000, {"IP": "10.{high}.{low}.1", "SIZE": "1", "RANGE": "{low}"}),
    "blocks that are no prefixes": (20000, {"IP": "0.0.0.1", "IP6": "::1", "IP6_ULA": "::1", "SIZE": "42{number:08}"}),
}


@pytest.mark.parametrize(("count", "rule"), HUGE.values(), ids=HUGE)
def test_a_document_of_the_largest_size_costs_seconds_and_not_all_memory(count: int, rule: dict[str, str]) -> None:
    """Measured is what the driver takes beside the document itself."""
    template = "".join(f"<{key}>{text}</{key}>" for key, text in (WEB | rule).items())
    elements = (template.format(number=number, high=number >> 8, low=number & 255) for number in range(count))
    wrapped = "".join(f"<SECURITY_GROUP_RULE>{element}</SECURITY_GROUP_RULE>" for element in elements)
    text = f"<VM><TEMPLATE>{wrapped}</TEMPLATE></VM>".encode()
    assert len(text) <= document.SIZE_LIMIT
    root = document.tree(text)
    begin = time.process_time()
    tracemalloc.start()
    try:
        lines = written(Groups(root).of_nic("100", "") or ())
        print(f"{len(text)} bytes, {count} rules: {len(lines)} flows")
    except AwsOvsError as refusal:
        print(f"{len(text)} bytes, {count} rules: {refusal}")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    seconds = time.process_time() - begin
    print(f"{seconds:.1f} s, {most >> 20} MiB")
    assert most < 150 << 20
    assert seconds < 30  # most of it takes the tracing
