"""The flows of the overlay bridge: tunnels, learning, and the exchange of guest addresses for node-side ones."""

from __future__ import annotations

from collections.abc import Iterable

from ...names import CT_ZONE, ENI_MAC
from ..guest_port import GuestPort, SharedAddress
from . import (
    LEARNED_S,
    MARK,
    MOST_LEARNED,
    MULTICAST,
    NODE_MAC,
    OUTPUT_PORT,
    OUTPUT_PORT_BITS,
    RARP,
    SLOT,
    SLOT_MATCH,
    VNI,
    OverlayTable,
    announcement,
    flow,
)

_INTO_TUNNELS = f"move:{VNI}->NXM_NX_TUN_ID[0..31]"


def network(vni: int, patches: Iterable[int], macs: Iterable[str]) -> list[str]:
    """Write the flows of a network.

    Args:
        vni: the network's.
        patches: its patch ports, one to each VNET bridge that serves it.
        macs: the MACs of its guest ports on this node.
    """
    cookie, enter, of_network = flow.network_cookie(vni), flow.set_network(vni), flow.in_network(vni)
    patches, table = sorted(patches), OverlayTable
    learn = (
        f"learn(table={table.LEARNED},hard_timeout={LEARNED_S},priority=10,cookie={flow.learned_in_network(vni):#x},"
        f"limit={MOST_LEARNED},{VNI},NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])"
    )
    # What came from a tunnel goes to local ports only: split horizon, so that a full mesh cannot loop.
    from_tunnel = f"{learn},{flow.goto(table.LOCAL)}"
    answers = "".join(f",mod_dl_src:{mac},IN_PORT" for mac in sorted(macs))
    answer = f"{from_tunnel},{_INTO_TUNNELS},mod_dl_dst:{announcement.ANSWER}{answers}"
    from_guest = f"{learn},{_INTO_TUNNELS},{flow.goto(table.LEARNED)}"
    # No packet leaves with a mark: to set one costs the datapath an action, and the host could take it for its own.
    enter_from_guest = f"{enter},move:{MARK}->{SLOT},load:0->{MARK},{flow.goto(table.FROM_GUEST)}"
    flows = [
        *((table.CLASSIFY, 100, f"in_port={patch}", enter_from_guest) for patch in patches),
        (table.CLASSIFY, 50, f"tun_id={vni:#x}", f"{enter},{flow.goto(table.FROM_TUNNEL)}"),
        (table.FROM_GUEST, 10, of_network, from_guest),
        (table.FROM_TUNNEL, 260, f"{of_network},{RARP},dl_dst={announcement.ASKING}", answer),
        (table.FROM_TUNNEL, 250, f"{of_network},dl_dst={announcement.GROUPS}", from_tunnel),
        (table.FROM_TUNNEL, 10, of_network, from_tunnel),
        (table.LOCAL, 10, of_network, ",".join(f"output:{patch}" for patch in patches)),
    ]
    return [flow.add(cookie, *entry) for entry in flows]


def port(guest: GuestPort, patch: int, gateway_mac: str) -> list[str]:
    """Write the flows of a guest port, most of which exchange its addresses; patch port `patch` leads to its bridge."""
    cookie = flow.port_cookie(guest.vm_id, guest.nic_id)
    # A NIC that is here is not behind a tunnel. The node that says so does not know of it: its frame goes back as an
    # announcement, and it will hear no more of that guest.
    impostor = f"{flow.in_network(guest.vni)},dl_src={guest.mac}"
    announce = f"{_INTO_TUNNELS},mod_dl_dst:{announcement.ANSWER},IN_PORT"
    flood = f"meter:{guest.slot},{flow.goto(OverlayTable.FLOOD)}"
    lines = [
        flow.add(cookie, OverlayTable.FROM_TUNNEL, 200, impostor, announce),
        flow.add(cookie, OverlayTable.LEARNED, 1, f"{SLOT_MATCH}={guest.slot}", flood),
    ]
    tracked = {shared.outside for shared in guest.shared}
    further = OverlayTable.DESTINATION
    for mapping in guest.mappings:
        finish = f"ct(nat,zone={CT_ZONE},table={further})" if mapping.outside in tracked else flow.goto(further)
        match = f"ip,{flow.in_network(guest.vni)},dl_src={guest.mac},nw_src={mapping.inside}"
        lines.append(flow.add(cookie, OverlayTable.OUTWARD, 100, match, f"mod_nw_src:{mapping.outside},{finish}"))
        inward = (
            f"{flow.set_network(guest.vni)},mod_nw_dst:{mapping.inside},mod_dl_src:{gateway_mac},"
            f"mod_dl_dst:{guest.mac},load:{patch}->{OUTPUT_PORT},{flow.goto(OverlayTable.DELIVER)}"
        )
        lines.append(flow.add(cookie, OverlayTable.INWARD, 100, f"ip,nw_dst={mapping.outside}", inward))
    for shared in guest.shared:
        lines += _shared(cookie, shared)
    return lines


def _shared(cookie: int, shared: SharedAddress) -> list[str]:
    def first(match: str, target: str) -> str:
        match = f"ct_state=+trk+new,{match},nw_dst={shared.private_ip}"
        commit = f"ct(commit,zone={CT_ZONE},nat(dst={target}),table={OverlayTable.INWARD})"
        return flow.add(cookie, OverlayTable.SHARED, 100, match, commit)

    ports = shared.ports
    if ports is None:
        return [first("ip", shared.outside)]
    return [
        first(f"{protocol},tp_dst={ports.external + offset}", f"{shared.outside}:{ports.internal + offset}")
        for offset in range(ports.size)
        for protocol in ("tcp", "udp")
    ]


def node(gateway: int, icmp: int, gateway_mac: str) -> list[str]:
    """Write the flows that depend on nothing but the node; `gateway` and `icmp` are port numbers of aws_gw and aws_icmp."""
    table = OverlayTable
    # An ICMP error quotes the packet that it is about, which OpenFlow cannot reach. It visits the kernel through
    # aws_icmp (see underlay.repair); meanwhile its source MAC carries the number of the patch port that it is for.
    detour = f"move:{OUTPUT_PORT_BITS}->NXM_OF_ETH_SRC[0..15],output:{icmp}"
    back = f"move:NXM_OF_ETH_SRC[0..15]->{OUTPUT_PORT_BITS},mod_dl_src:{gateway_mac},output:{OUTPUT_PORT_BITS}"
    impostors = (gateway_mac, NODE_MAC, MULTICAST)
    flows = [
        *((table.DELIVER, 100, f"icmp,icmp_type={kind}", detour) for kind in (3, 11, 12)),
        (table.DELIVER, 0, "", f"output:{OUTPUT_PORT_BITS}"),
        (table.CLASSIFY, 100, f"ip,in_port={gateway}", flow.goto(table.ARRIVAL)),
        (table.CLASSIFY, 100, f"icmp,in_port={icmp}", back),
        # Not mapped 1:1: perhaps shared by ports, and then conntrack knows or the first packet tells.
        (table.INWARD, 0, "ct_state=-trk,ip", f"ct(nat,zone={CT_ZONE},table={table.SHARED})"),
        (table.SHARED, 90, "ct_state=+trk+est,ip", flow.goto(table.INWARD)),
        (table.SHARED, 90, "ct_state=+trk+rel,ip", flow.goto(table.INWARD)),
        (table.FROM_GUEST, 100, f"dl_dst={gateway_mac}", flow.goto(table.OUTWARD)),
        *((table.FROM_TUNNEL, 300, f"dl_src={mac}", "drop") for mac in impostors),
        (table.LEARNED, 5, f"dl_dst={MULTICAST}", flow.goto(table.FLOOD)),  # the VNET bridge has let it pass
        (table.LEARNED, 0, "", flow.goto(table.FLOOD)),
        (table.TO_NODE, 0, "", f"mod_dl_dst:{NODE_MAC},output:{gateway}"),
    ]
    return [flow.add(flow.NODE_COOKIE, *entry) for entry in flows]


def by_eni(number: int, addresses: Iterable[str], gateway: int) -> list[str]:
    """Write the flows that let what has certain sources leave by a further ENI: its MAC tells the kernel which one."""
    actions = f"mod_dl_src:{ENI_MAC.format(number)},mod_dl_dst:{NODE_MAC},output:{gateway}"
    entries = ((10, f"ip,nw_src={address}", actions) for address in addresses)
    return [flow.add(flow.MESH_COOKIE, OverlayTable.TO_NODE, *entry) for entry in entries]


def forget_learned() -> str:
    """Forget behind which tunnel each MAC is: a tunnel that has gone would swallow packets until its entries expire."""
    return flow.delete_learned_in_networks()


def mesh(tunnels: Iterable[int]) -> list[str]:
    """Write the flow that sends to all peers, whose tunnels have these port numbers."""
    outputs = "".join(f"output:{number}," for number in sorted(tunnels))
    return [flow.add(flow.MESH_COOKIE, OverlayTable.FLOOD, 0, "", f"{outputs}{flow.goto(OverlayTable.LOCAL)}")]
