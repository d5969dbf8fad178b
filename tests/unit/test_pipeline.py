"""The text of the flows, where a mistake would not show as lost packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.documents import recorded, with_value
from tests.unit.test_guest_port import ports
from vnm_aws.overlay import pipeline
from vnm_aws.overlay.pipeline import destinations, flow, overlay_bridge, vnet_bridge

GATEWAY_MAC = "02:a5:0e:00:00:01"


def test_cookies_name_vm_and_nic() -> None:
    cookie = flow.port_cookie(123456, 7)
    assert flow.owner(cookie) == (123456, 7)
    assert flow.owner(flow.NODE_COOKIE) is None


def test_every_flow_of_a_port_carries_its_cookie() -> None:
    for port in ports(recorded("deploy-ports", "03-post.xml")):
        wanted = f"cookie={flow.port_cookie(5, port.nic_id):#x},"
        lines = vnet_bridge.port(port, 3, GATEWAY_MAC) + overlay_bridge.port(port, 4, GATEWAY_MAC)
        assert [line for line in lines if wanted not in line] == []


def test_a_vm_is_deleted_without_its_neighbour() -> None:
    text = flow.delete_vm(1).partition("cookie=")[2]
    value, mask = (int(part, 16) for part in text.split("/"))
    assert flow.port_cookie(1, 65535) & mask == value
    assert flow.port_cookie(2, 0) & mask != value
    assert flow.NODE_COOKIE & mask != value


def test_link_local_is_eui64() -> None:
    assert vnet_bridge.link_local("02:00:c0:a8:00:0a") == "fe80::c0ff:fea8:a"


def test_filters_off_leave_only_the_port() -> None:
    document = recorded("deploy", "03-post.xml")
    for key in ("FILTER_MAC_SPOOFING", "FILTER_IP_SPOOFING"):
        document = with_value(document, f"TEMPLATE/NIC/{key}", "NO")
    allowed = [line for line in vnet_bridge.port(ports(document)[0], 3, GATEWAY_MAC) if "priority=90" in line]
    assert len(allowed) == 1
    assert "priority=90,in_port=3 " in allowed[0]


def test_frames_from_a_tunnel_go_to_local_ports_only() -> None:
    (from_tunnel,) = [line for line in overlay_bridge.network(100, [7]) if "tun_id=" in line]
    assert from_tunnel.endswith("resubmit(,32)")
    (local,) = [line for line in overlay_bridge.network(100, [7]) if "table=32" in line]
    assert local.endswith("actions=output:7")


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
    for span in destinations.spans(first, last):
        value, mask = (int(part, 16) for part in span.split("/"))
        covered += [port for port in range(1 << 16) if port & mask == value]
    assert sorted(covered) == list(range(first, last + 1))
