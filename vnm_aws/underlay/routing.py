"""Links, neighbours, routes and rules: items of the kernel's state that are read and changed over netlink.

What needs a link that is not there reports nothing: the link does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pyroute2 import IPRoute

from ..errors import AwsOvsError

_ONLINK = 4
_PERMANENT = 0x80
_SELECTORS = ("priority", "table", "iifname", "dst", "src")
"""What names a rule: arguments of `IPRoute.rule`, and as FRA_PRIORITY and so on attributes of a rule."""
_SELECTS_NOTHING = {"FRA_PROTOCOL", "FRA_SUPPRESS_PREFIXLEN"}
"""Attributes of a rule that select no packets: who made it, and what every rule has."""


class Link(NamedTuple):
    """An interface of the overlay bridge, which must be up."""

    ip: Any
    name: str

    def difference(self) -> str:
        index = _index(self.ip, self.name)
        if not index:
            return f"interface {self.name} is not there"
        is_down = self.ip.link("get", index=index)[0].get_attr("IFLA_OPERSTATE") == "DOWN"
        return f"interface {self.name} is down" if is_down else ""

    def repair(self) -> None:
        index = _index(self.ip, self.name)
        if not index:
            what = f"interface {self.name} of the overlay bridge is not there"
            raise AwsOvsError(what, "see journalctl -u ovs-vswitchd")
        self.ip.link("set", index=index, state="up")


class Neighbour(NamedTuple):
    """The MAC of a next hop, for ever."""

    ip: Any
    link: str
    address: str
    mac: str

    def difference(self) -> str:
        index = _index(self.ip, self.link)
        if not index or any(
            neighbour.get_attr("NDA_LLADDR") == self.mac and neighbour["state"] == _PERMANENT
            for neighbour in self.ip.get_neighbours(ifindex=index, dst=self.address)
        ):
            return ""
        what = f"the neighbour {self.address} of {self.link}"
        return f"{what} is not there, not permanent, or has not the gateway's MAC {self.mac}"

    def repair(self) -> None:
        index = _index(self.ip, self.link)
        self.ip.neigh("replace", dst=self.address, lladdr=self.mac, ifindex=index, state="permanent")


class Route(NamedTuple):
    """A route to a prefix by a next hop, with an MTU."""

    ip: Any
    what: str
    table: int
    prefix: str
    link: str
    next_hop: str
    mtu: int

    def difference(self) -> str:
        index = _index(self.ip, self.link)
        if not index or any(self._is_right(route, index) for route in self.ip.get_routes(family=2, table=self.table)):
            return ""
        return f"the {self.what} does not lead to {self.link} with MTU {self.mtu}"

    def _is_right(self, route: Any, index: int) -> bool:
        metrics = dict(route.get_attr("RTA_METRICS", {"attrs": []})["attrs"])
        return bool(
            (route.get_attr("RTA_DST") or "0.0.0.0", route["dst_len"]) == _split(self.prefix)
            and route.get_attr("RTA_OIF") == index
            and route.get_attr("RTA_GATEWAY") == self.next_hop
            and metrics.get("RTAX_MTU") == self.mtu
        )

    def repair(self) -> None:
        way = {"gateway": self.next_hop, "oif": _index(self.ip, self.link), "flags": _ONLINK}
        self.ip.route("replace", dst=self.prefix, table=self.table, metrics={"mtu": self.mtu}, **way)


class Rule(NamedTuple):
    """The only rule that leads to a route table, for packets from one link to one prefix."""

    ip: Any
    table: int
    priority: int
    link: str
    prefix: str

    def difference(self) -> str:
        if [self._is_right(rule) for rule in self._rules()] == [True]:
            return ""
        wanted = f"one for {self.prefix} from {self.link} with priority {self.priority}"
        return f"the policy rules for table {self.table} are not {wanted}"

    def _rules(self) -> list[Any]:
        return [rule for rule in self.ip.get_rules(family=2) if rule.get_attr("FRA_TABLE") == self.table]

    def _is_right(self, rule: Any) -> bool:
        address, length = _split(self.prefix)
        attributes = {name: value for name, value in rule["attrs"] if name not in _SELECTS_NOTHING}
        return rule["dst_len"] == length and attributes == {
            "FRA_TABLE": self.table,
            "FRA_PRIORITY": self.priority,
            "FRA_IIFNAME": self.link,
            "FRA_DST": address,
        }

    def _surplus(self) -> list[Any]:
        rules = sorted(self._rules(), key=self._is_right, reverse=True)
        return rules[1:] if rules and self._is_right(rules[0]) else rules

    def repair(self) -> None:
        while surplus := self._surplus():  # what deletes a rule can hit another that has a selector more
            self.ip.rule("del", **_selector(surplus[0]))
        if not self._rules():
            address, length = _split(self.prefix)
            way = {"table": self.table, "priority": self.priority}
            self.ip.rule("add", iifname=self.link, dst=address, dst_len=length, **way)


def _selector(rule: Any) -> dict[str, Any]:
    """Name a rule that somebody else may have made."""
    values = {key: rule.get_attr(f"FRA_{key.upper()}") for key in _SELECTORS}
    selector = {key: value for key, value in values.items() if value is not None}
    return selector | {f"{key}_len": rule[f"{key}_len"] for key in ("dst", "src") if key in selector}


def _split(prefix: str) -> tuple[str, int]:
    address, _, length = prefix.partition("/")
    return address, int(length)


def _index(ip: Any, name: str) -> int:
    """Find an interface; 0 when it is not there."""
    indexes = ip.link_lookup(ifname=name)
    return int(indexes[0]) if indexes else 0


def vxlan_devices(port: int) -> list[str]:
    """List the kernel's own VXLAN devices on a UDP port, without those of Open vSwitch's kernel datapath."""
    with IPRoute() as ip:
        on_port = [
            str(link.get_attr("IFLA_IFNAME"))
            for link in ip.get_links(kind="vxlan")
            if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VXLAN_PORT") == port
        ]
    return [name for name in on_port if not name.startswith("vxlan_sys_")]
