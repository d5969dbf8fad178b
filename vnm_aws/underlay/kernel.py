"""The static way between the ENI and the overlay bridge in this node's kernel; nothing of it depends on VMs.

A packet that reaches the ENI for an address of its subnet that is not the node's own is for a VM: a policy
rule sends it to aws_gw, an internal port of the overlay bridge. What comes out of aws_gw is routed to the ENI, behind
the node's own address where its source is a transit address. pyroute2 is imported here only; it costs 170 ms, and
this runs when the node starts, not when a VM does.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from .. import files, processes
from ..errors import AwsOvsError
from ..lock import RUN
from . import repair
from .eni import Underlay

GATEWAY_PORT = "aws_gw"
REPAIR_PORT = "aws_icmp"
ROUTE_TABLE = 4789
_RULE_PRIORITY = 4789
_NEXT_HOP = "169.254.87.1"
"""An address that nothing has: the kernel needs a next hop on aws_gw to put into a MAC header."""
_ONLINK = 4
_CONNECTIONS = "net/netfilter/nf_conntrack_max"
_ENOUGH = 1048576
"""All VMs without an Elastic IP of their own leave behind the node's address, and share its connection table."""
_LISTING = f"{RUN}/nft"
"""Our tables as nft showed them when they had just been loaded: that is not how they were written."""


def ensure(underlay: Underlay, gateway_mac: str, transit: str, internet_mtu: int) -> None:
    """Bring the node's kernel into the state that the overlay needs; what is right already stays untouched.

    Args:
        underlay: the ENI.
        gateway_mac: the gateway's MAC, used as the next hop's.
        transit: the range of transit addresses.
        internet_mtu: MTU at the Internet gateway.

    Raises:
        AwsOvsError: the kernel or nft refuses something.
    """
    guest_mtu = underlay.guest_mtu(internet_mtu, leaves=True)
    try:
        with IPRoute() as ip:
            _routes(ip, underlay, gateway_mac, transit, guest_mtu)
    except NetlinkError as bad:
        raise AwsOvsError(f"the kernel refused the node's routes ({bad})", "run 'aws-ovs restore' again") from None
    for interface, key, value in _settings(underlay.interface):
        _sysctl(f"net/ipv4/conf/{interface}/{key}", value)
    for interface in (GATEWAY_PORT, REPAIR_PORT):
        _sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")
    _load(ruleset(underlay, transit))
    if _limit() < _ENOUGH:  # sysctl.d comes too early at boot: the kernel tracks nothing before it has such rules
        _sysctl(_CONNECTIONS, str(_ENOUGH))
    repair.ensure()
    listing = _listing()
    if listing.count("table ") != 2:
        raise AwsOvsError("nft does not show the tables aws_ovs that it has just loaded", "run 'aws-ovs restore' again")
    files.replace(_LISTING, listing)


def differences(underlay: Underlay, gateway_mac: str, transit: str, internet_mtu: int) -> list[str]:
    """What `ensure` would change, for people; the arguments are its own."""
    found = []
    for interface, key, value in _settings(underlay.interface):
        now = _read(f"/proc/sys/net/ipv4/conf/{interface}/{key}")
        if now != value:
            found.append(f"net.ipv4.conf.{interface}.{key} is {now or 'not there'} instead of {value}")
    if _limit() < _ENOUGH:
        found.append(f"net.netfilter.nf_conntrack_max is {_limit()}, less than {_ENOUGH}")
    try:
        with IPRoute() as ip:
            found += _route_differences(
                ip, underlay, gateway_mac, transit, underlay.guest_mtu(internet_mtu, leaves=True)
            )
    except NetlinkError as bad:
        raise AwsOvsError(f"the kernel does not show its routes ({bad})", "run this as root") from None
    if _listing() != _read(_LISTING):
        found.append("the nft tables aws_ovs are not as the driver has loaded them")
    return found


def _route_differences(ip: Any, underlay: Underlay, gateway_mac: str, transit: str, guest_mtu: int) -> list[str]:
    indexes = {name: ip.link_lookup(ifname=name) for name in (GATEWAY_PORT, REPAIR_PORT)}
    found = [f"interface {name} is not there" for name, index in indexes.items() if not index]
    if found:
        return found
    gateway = indexes[GATEWAY_PORT][0]
    found += [
        f"interface {name} is down"
        for name, (index,) in indexes.items()
        if ip.link("get", index=index)[0].get_attr("IFLA_OPERSTATE") == "DOWN"
    ]
    neighbours = ip.get_neighbours(ifindex=gateway, dst=_NEXT_HOP)
    if not any(one.get_attr("NDA_LLADDR") == gateway_mac for one in neighbours):
        found.append(
            f"the neighbour {_NEXT_HOP} of {GATEWAY_PORT} is not there, or has not the gateway's MAC {gateway_mac}"
        )
    for table, what, destination, length in (
        (ROUTE_TABLE, f"default route of table {ROUTE_TABLE}", None, 0),
        (254, f"route to {transit}", *_split(transit)),
    ):
        routes = [
            one
            for one in ip.get_routes(family=2, table=table)
            if one.get_attr("RTA_DST") == destination and one["dst_len"] == length
        ]
        if not any(
            one.get_attr("RTA_OIF") == gateway
            and one.get_attr("RTA_GATEWAY") == _NEXT_HOP
            and dict(one.get_attr("RTA_METRICS", {"attrs": []})["attrs"]).get("RTAX_MTU") == guest_mtu
            for one in routes
        ):
            found.append(f"the {what} does not lead to {GATEWAY_PORT} with MTU {guest_mtu}")
    wanted = (underlay.interface, *underlay.subnet.split("/"))
    rules = [rule for rule in ip.get_rules(family=2) if rule.get_attr("FRA_TABLE") == ROUTE_TABLE]
    if [(rule.get_attr("FRA_IIFNAME"), rule.get_attr("FRA_DST"), str(rule["dst_len"])) for rule in rules] != [wanted]:
        found.append(
            f"the policy rules for table {ROUTE_TABLE} are not one for {underlay.subnet} from {underlay.interface}"
        )
    return found


def _split(prefix: str) -> tuple[str, int]:
    address, _, length = prefix.partition("/")
    return address, int(length)


def vxlan_devices(port: int) -> list[str]:
    """The kernel's own VXLAN devices that listen on a UDP port; those of Open vSwitch's kernel datapath are left out."""
    found = []
    with IPRoute() as ip:
        for link in ip.get_links(kind="vxlan"):
            name, about = str(link.get_attr("IFLA_IFNAME")), link.get_attr("IFLA_LINKINFO")
            data: Any = about.get_attr("IFLA_INFO_DATA") if about is not None else None
            if data is not None and data.get_attr("IFLA_VXLAN_PORT") == port and not name.startswith("vxlan_sys_"):
                found.append(name)
    return found


def _listing() -> str:
    """Our nft tables as nft shows them, without counters."""
    shown = ""
    for family in ("ip", "netdev"):
        argv = ["nft", "--stateless", "list", "table", family, "aws_ovs"]
        shown += subprocess.run(argv, capture_output=True, text=True).stdout
    return shown


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return ""
    return text.strip() if path.startswith("/proc/") else text


def _settings(eni: str) -> list[tuple[str, str, str]]:
    return [
        (eni, "forwarding", "1"),
        (GATEWAY_PORT, "forwarding", "1"),
        # The way back to a VM's private address is aws_gw only for what came in on the ENI: loose is as strict as it
        # can be.
        (GATEWAY_PORT, "rp_filter", "2"),
        (GATEWAY_PORT, "send_redirects", "0"),
    ]


def _limit() -> int:
    """The size of the connection table; enough where that is not for this machine to say, as in a container."""
    path = f"/proc/sys/{_CONNECTIONS}"
    return int(_read(path)) if os.access(path, os.W_OK) else _ENOUGH


def _sysctl(path: str, value: str) -> None:
    full = f"/proc/sys/{path}"
    try:
        with open(full, encoding="ascii") as file:
            if file.read().strip() == value:
                return
        with open(full, "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        if "ipv6" not in path:  # a kernel may have no IPv6
            raise AwsOvsError(f"{full} is not there", "run 'aws-ovs restore' again") from None
    except OSError as bad:
        raise AwsOvsError(f"{full} cannot be set to {value} ({bad.strerror})", "run as root") from None


def _routes(ip: Any, underlay: Underlay, gateway_mac: str, transit: str, guest_mtu: int) -> None:
    gateway = _index(ip, GATEWAY_PORT)
    for index in (gateway, _index(ip, REPAIR_PORT)):
        ip.link("set", index=index, state="up")
    ip.neigh("replace", dst=_NEXT_HOP, lladdr=gateway_mac, ifindex=gateway, state="permanent")
    way = {"gateway": _NEXT_HOP, "oif": gateway, "flags": _ONLINK, "metrics": {"mtu": guest_mtu}}
    ip.route("replace", dst="0.0.0.0/0", table=ROUTE_TABLE, **way)
    ip.route("replace", dst=transit, **way)
    wanted = (underlay.interface, *underlay.subnet.split("/"))
    found = False
    for rule in ip.get_rules(family=2):
        if rule.get_attr("FRA_TABLE") != ROUTE_TABLE:
            continue
        here = (rule.get_attr("FRA_IIFNAME"), rule.get_attr("FRA_DST"), str(rule["dst_len"]))
        if here == wanted and not found:
            found = True
        else:
            ip.rule("del", **_selector(rule))
    if not found:
        interface, address, length = wanted
        way = {"table": ROUTE_TABLE, "priority": _RULE_PRIORITY}
        ip.rule("add", iifname=interface, dst=address, dst_len=int(length), **way)


def _selector(rule: Any) -> dict[str, Any]:
    """What names a rule that somebody else may have made."""
    names = {
        "priority": "FRA_PRIORITY",
        "table": "FRA_TABLE",
        "iifname": "FRA_IIFNAME",
        "dst": "FRA_DST",
        "src": "FRA_SRC",
    }
    found = {key: rule.get_attr(name) for key, name in names.items() if rule.get_attr(name) is not None}
    return found | {f"{key}_len": rule[f"{key}_len"] for key in ("dst", "src") if key in found}


def _index(ip: Any, name: str) -> int:
    found = ip.link_lookup(ifname=name)
    if not found:
        raise AwsOvsError(f"interface {name} of the overlay bridge is not there", "see journalctl -u ovs-vswitchd")
    return int(found[0])


def ruleset(underlay: Underlay, transit: str) -> str:
    """The node's nft tables. The first two lines of each make loading them a replacement."""
    eni = underlay.interface
    return f"""
table ip aws_ovs
delete table ip aws_ovs
table ip aws_ovs {{
  # Bound to a VM's quoted packet: see vnm_aws/underlay/repair.py, which fills it.
  chain {repair.OUTWARD_CHAIN} {{ }}
  chain prerouting_raw {{
    type filter hook prerouting priority raw; policy accept;
    udp dport 4789 notrack
    iifname "{GATEWAY_PORT}" icmp type {{ 3, 11, 12 }} ip frag-off & 0x1fff == 0 jump {repair.OUTWARD_CHAIN}
    iifname "{GATEWAY_PORT}" ip saddr != {transit} notrack
    iifname "{eni}" fib daddr type != local notrack
  }}
  chain output_raw {{
    type filter hook output priority raw; policy accept;
    udp dport 4789 notrack
  }}
  chain input_filter {{
    type filter hook input priority filter; policy accept;
    iifname "{GATEWAY_PORT}" counter drop comment "guests never talk to the node itself"
  }}
  chain forward_filter {{
    type filter hook forward priority filter; policy accept;
    iifname "{GATEWAY_PORT}" oifname != "{eni}" counter drop comment "guests leave by the ENI only"
  }}
  chain postrouting_nat {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {transit} oifname "{eni}" snat to {underlay.address}
  }}
}}
table netdev aws_ovs
delete table netdev aws_ovs
table netdev aws_ovs {{
  chain {repair.INWARD_CHAIN} {{ }}
  chain ingress {{
    type filter hook ingress device "{REPAIR_PORT}" priority filter; policy drop;
    meta protocol ip jump {repair.INWARD_CHAIN}
    meta protocol ip fwd to "{REPAIR_PORT}"
  }}
}}
"""


def _load(text: str) -> None:
    try:
        error = processes.finish(processes.start(["nft", "-f", "-"], text))
    except OSError as bad:
        error = os.strerror(bad.errno or 0)
    if error:
        raise AwsOvsError(
            f"nft refused the node's rules ({error})", "check that nftables is installed and the kernel has it"
        )
