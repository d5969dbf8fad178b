"""The text of the flows, where a mistake would not show as lost packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.documents import recorded, with_value
from tests.unit.test_guest_port import ports
from vnm_aws.overlay import comparison, pipeline
from vnm_aws.overlay.guest_port import Member
from vnm_aws.overlay.pipeline import announcement, blocks, flow, overlay_bridge, vnet_bridge

GATEWAY_MAC = "02:a5:0e:00:00:01"


def test_cookies_name_vm_and_nic() -> None:
    cookie = flow.port_cookie(123456, 7)
    assert flow.owner(cookie) == (123456, 7)
    assert flow.owner(flow.NODE_COOKIE) is None


def test_every_flow_of_a_port_carries_its_cookie() -> None:
    for port in ports(recorded("deploy-ports", "03-post.xml")):
        wanted = f"cookie={flow.port_cookie(5, port.nic_id):#x},"
        lines = vnet_bridge.port(port, 3, GATEWAY_MAC, 64) + overlay_bridge.port(port, 4, GATEWAY_MAC)
        assert [line for line in lines if wanted not in line] == []


def test_a_vm_is_deleted_without_its_neighbour() -> None:
    for line, cookie in zip(
        flow.delete_vm(1), (flow.port_cookie, flow.learned_at_port, flow.answers, flow.picked_up), strict=True
    ):
        value, mask = (int(part, 16) for part in line.partition("cookie=")[2].split("/"))
        assert cookie(1, 65535) & mask == value
        assert cookie(2, 0) & mask != value
        assert flow.NODE_COOKIE & mask != value


def test_what_is_passing_is_told_from_what_is_written() -> None:
    learned = (flow.learned_at_port(5, 1), flow.learned_in_network(100))
    written = (flow.port_cookie(5, 1), flow.network_cookie(100), flow.NODE_COOKIE, 0)
    assert [flow.is_passing(cookie) for cookie in (*learned, *written)] == [True] * 2 + [False] * 4
    assert (
        comparison.cookie(f"-table=30 cookie={learned[1]:#x} hard_timeout=300 reg1=0x64 actions=output:1") == learned[1]
    )
    assert comparison.cookie("+table=3 in_port=1 actions=learn(table=25,cookie=0xa80000)") == 0


def test_link_local_is_eui64() -> None:
    assert vnet_bridge.link_local("02:00:c0:a8:00:0a") == "fe80::c0ff:fea8:a"


def test_filters_off_leave_only_the_port() -> None:
    document = recorded("deploy", "03-post.xml")
    for key in ("FILTER_MAC_SPOOFING", "FILTER_IP_SPOOFING"):
        document = with_value(document, f"TEMPLATE/NIC/{key}", "NO")
    allowed = [line for line in vnet_bridge.port(ports(document)[0], 3, GATEWAY_MAC, 64) if "priority=90" in line]
    assert len(allowed) == 1
    assert "priority=90,in_port=3 " in allowed[0]


def test_what_a_port_floods_passes_its_meters() -> None:
    port = ports(recorded("deploy", "03-post.xml"))[0]._replace(slot=7)
    to_many, to_unknown = (
        [line for line in lines if "meter:7" in line]
        for lines in (vnet_bridge.port(port, 3, GATEWAY_MAC, 64), overlay_bridge.port(port, 5, GATEWAY_MAC))
    )
    assert [line.split("priority=")[1] for line in to_many + to_unknown] == [
        "60,in_port=3,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00 actions=meter:7,resubmit(,20)",
        "1,reg3=7 actions=meter:7,resubmit(,31)",
    ]


def member(number: int, any_mac: bool = False) -> Member:
    return Member(f"02:00:00:00:00:{number:02x}", any_mac, ("192.168.0.1",), 0, number)


@pytest.mark.parametrize("any_mac", [False, True])
def test_only_the_overlay_bridge_sees_a_mark_and_it_takes_it_off_first(any_mac: bool) -> None:
    members = [member(3), member(4, any_mac)]
    for line in vnet_bridge.network(100, 9, members, members, GATEWAY_MAC):
        marks = line.count("PKT_MARK")
        assert marks == line.count("output:9"), line
        assert not marks or line.endswith("move:NXM_NX_REG3[]->NXM_NX_PKT_MARK[],output:9"), line
    enter = [line for line in overlay_bridge.network(100, [7], []) if "in_port=7" in line]
    assert len(enter) == 1
    assert "move:NXM_NX_PKT_MARK[]->NXM_NX_REG3[],load:0->NXM_NX_PKT_MARK[],resubmit" in enter[0]


def test_frames_from_a_tunnel_go_to_local_ports_only() -> None:
    lines = overlay_bridge.network(100, [7], [])
    (from_tunnel,) = [line for line in lines if "table=22,priority=10," in line]
    assert from_tunnel.endswith("resubmit(,32)")
    (local,) = [line for line in lines if "table=32" in line]
    assert local.endswith("actions=output:7")


def test_a_bridge_learns_only_where_a_nic_may_have_several_macs() -> None:
    filtered, nested = [member(1), member(2)], [member(1), member(2, any_mac=True)]
    assert not any("learn(" in line for line in vnet_bridge.network(100, 9, filtered, filtered, GATEWAY_MAC))
    lines = vnet_bridge.network(100, 9, nested, nested, GATEWAY_MAC)
    (unknown,) = [line for line in lines if "table=26,priority=0," in line]
    assert unknown.endswith("actions=output:2,move:NXM_NX_REG3[]->NXM_NX_PKT_MARK[],output:9")
    # On another bridge of the network nothing is learned, and what comes from there has its own MAC here, too.
    assert not any("learn(" in line for line in vnet_bridge.network(100, 9, [member(1)], nested, GATEWAY_MAC))
    (refused,) = [line for line in lines if "dl_src=02:00:00:00:00:01" in line]
    assert refused.endswith("actions=drop")


def test_a_member_is_read_as_it_is_written() -> None:
    for written in (member(3), member(4, any_mac=True), Member("", False, ())):
        assert Member.parse(str(written), written.number) == written


def test_an_announcement_is_to_the_group_that_guests_cannot_reach() -> None:
    for asks, asking in ((True, True), (False, False)):
        group = int(announcement.frame("02:00:c0:a8:00:0a", asks)[:12], 16)
        for text, wanted in ((announcement.GROUPS, True), (announcement.ASKING, asking)):
            value, mask = (int(part.replace(":", ""), 16) for part in text.split("/"))
            assert (group & mask == value) == wanted


def test_the_drawing_and_the_manual_have_every_table() -> None:
    assert pipeline.__doc__
    manual = (Path(__file__).parents[2] / "docs/architecture.md").read_text()
    for table in (*pipeline.VnetTable, *pipeline.OverlayTable):
        assert f"{table.value} {table.name}" in pipeline.__doc__
        assert f"| {table.value} `{table.name}` |" in manual


@pytest.mark.parametrize(
    ("first", "last"), [(1, 65535), (9001, 9010), (0, 65535), (7, 7), (1024, 2047), (65530, 65535)]
)
def test_masks_cover_a_range_of_ports_and_no_other(first: int, last: int) -> None:
    covered = []
    for span in blocks.spans(((first, last),)):
        value, mask = (int(part, 16) for part in span.split("/"))
        covered += [port for port in range(1 << 16) if port & mask == value]
    assert sorted(covered) == list(range(first, last + 1))
