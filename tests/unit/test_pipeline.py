"""The text of the flows, where a mistake would not show as lost packets."""

from __future__ import annotations

from tests.unit.documents import recorded, with_value
from tests.unit.test_guest_port import ports
from vnm_aws.overlay import pipeline

GATEWAY_MAC = "02:a5:0e:00:00:01"


def test_cookies_name_vm_and_nic() -> None:
    cookie = pipeline.port_cookie(123456, 7)
    assert pipeline.owner(cookie) == (123456, 7)
    assert pipeline.owner(pipeline.NODE_COOKIE) is None


def test_every_flow_of_a_port_carries_its_cookie() -> None:
    for port in ports(recorded("deploy-ports", "03-post.xml")):
        wanted = f"cookie={pipeline.port_cookie(5, port.nic_id):#x},"
        lines = pipeline.vnet_port(port, 3, GATEWAY_MAC) + pipeline.overlay_port(port, 4, GATEWAY_MAC)
        assert [line for line in lines if wanted not in line] == []


def test_a_vm_is_deleted_without_its_neighbour() -> None:
    text = pipeline.delete_vm(1).partition("cookie=")[2]
    value, mask = (int(part, 16) for part in text.split("/"))
    assert pipeline.port_cookie(1, 65535) & mask == value
    assert pipeline.port_cookie(2, 0) & mask != value
    assert pipeline.NODE_COOKIE & mask != value


def test_link_local_is_eui64() -> None:
    assert pipeline.link_local("02:00:c0:a8:00:0a") == "fe80::c0ff:fea8:a"


def test_filters_off_leave_only_the_port() -> None:
    document = recorded("deploy", "03-post.xml")
    for key in ("FILTER_MAC_SPOOFING", "FILTER_IP_SPOOFING"):
        document = with_value(document, f"TEMPLATE/NIC/{key}", "NO")
    allowed = [line for line in pipeline.vnet_port(ports(document)[0], 3, GATEWAY_MAC) if "priority=90" in line]
    assert len(allowed) == 1
    assert "priority=90,in_port=3 " in allowed[0]


def test_frames_from_a_tunnel_go_to_local_ports_only() -> None:
    (from_tunnel,) = [line for line in pipeline.overlay_network(100, [7]) if "tun_id=" in line]
    assert from_tunnel.endswith("resubmit(,32)")
    (local,) = [line for line in pipeline.overlay_network(100, [7]) if "table=32" in line]
    assert local.endswith("actions=output:7")
