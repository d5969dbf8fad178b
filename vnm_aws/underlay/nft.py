"""The node's nft tables, as one item of the kernel's state."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from .. import files, processes
from ..errors import AwsOvsError
from ..names import ENI_MAC, GATEWAY_PORT, REPAIR_PORT, ROUTE_TABLE, RUN, VXLAN_PORT
from . import netlink, repair, shares
from .eni import Card, Underlay

_LOADED = f"{RUN}/nft"
"""What the tables were made of, and how nft showed them when they had just been loaded: not as they were written."""

_NETDEV_TABLE = f"""\
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
_OUTPUT_CHAIN = f"""\
  chain output_raw {{
    type filter hook output priority raw; policy accept;
    udp dport {VXLAN_PORT} notrack
  }}
"""


class Tables(NamedTuple):
    """Our two tables with all that is in them."""

    ruleset: str

    def difference(self) -> str:
        try:
            with open(_LOADED, encoding="utf-8") as file:
                loaded = file.read()
        except OSError:
            loaded = ""
        is_right = loaded == self._made_of() + _listing()
        return "" if is_right else "the nft tables aws_ovs are not as the driver has loaded them"

    def missing(self) -> str:
        """Say whether a table is not there at all, which is cheap to know."""
        named = [
            entry.text(1)
            for family in (netlink.IPV4, netlink.NETDEV)
            for entry in netlink.ask(netlink.TABLES, bytes((family, 0, 0, 0)), netlink.NETFILTER)
        ]
        return "" if named.count("aws_ovs") == 2 else "the nft tables aws_ovs are not there"

    def _made_of(self) -> str:
        return f"{self.ruleset}{repair.RULES}\n"

    def repair(self) -> None:
        try:
            error = processes.finish(processes.start(["nft", "-f", "-"], self.ruleset))
        except OSError as cause:
            error = os.strerror(cause.errno or 0)
        if error:
            what = f"nft refused the node's rules ({error})"
            raise AwsOvsError(what, "check that nftables is installed and the kernel has it")
        repair.ensure()
        listing = _listing()
        if listing.count("table ") != 2:
            what = "nft does not show the tables aws_ovs that it has just loaded"
            raise AwsOvsError(what, "run 'aws-ovs restore' again")
        files.replace(_LOADED, self._made_of() + listing)


def show(*arguments: str) -> str:
    """Ask nft; the answer is empty when it has none."""
    import subprocess  # costs 7 ms, and a VM's start asks nothing

    return subprocess.run(["nft", *arguments], capture_output=True, text=True).stdout


def refused() -> dict[tuple[str, str], int]:
    """Count the connections that guests were refused, see `shares.refused`."""
    return shares.refused(show("--json", "list", "set", "ip", "aws_ovs", "refused"))


def _listing() -> str:
    """Show our tables as the kernel has them, without counters and without what packets have put into sets."""
    options = ("--stateless", "--terse", "list", "table")
    return "".join(show(*options, family, "aws_ovs") for family in ("ip", "netdev"))


def ruleset(underlay: Underlay, transit: str, connections: int, own: Iterable[str]) -> str:
    """Write the node's nft tables. The first two lines of each make loading them a replacement.

    `connections` is how many each transit address may have, `own` the node's own addresses in the ENI's subnet.
    """
    eni, rest = underlay.interface, f"ip daddr {underlay.subnet} ip daddr != {{ {', '.join(own)} }}"
    enis, marks, strays = _of_enis(underlay.cards, transit)
    return f"""
table ip aws_ovs
delete table ip aws_ovs
table ip aws_ovs {{
{shares.rules(connections)}\
  # Bound to a VM's quoted packet: see vnm_aws/underlay/repair.py, which fills it.
  chain {repair.OUTWARD_CHAIN} {{ }}
  chain prerouting_raw {{
    type filter hook prerouting priority raw; policy accept;
    udp dport {VXLAN_PORT} notrack
    iifname "{GATEWAY_PORT}" icmp type {{ 3, 11, 12 }} ip frag-off & 0x1fff == 0 jump {repair.OUTWARD_CHAIN}
    iifname "{GATEWAY_PORT}" ip saddr != {transit} notrack
    iifname {enis} fib daddr type != local notrack{marks}
  }}
{_OUTPUT_CHAIN}\
  chain input_filter {{
    type filter hook input priority filter; policy accept;
    iifname "{GATEWAY_PORT}" counter drop comment "guests never talk to the node itself"
    iifname != "lo" fib daddr type local {rest} counter drop comment "the address of a VM is not the node's"
  }}
  chain forward_filter {{
    type filter hook forward priority filter; policy accept;
    iifname "{GATEWAY_PORT}" {strays} counter drop comment "guests leave by the ENI only"
    iifname "{GATEWAY_PORT}" ct state new ct status ! confirmed jump share
  }}
  chain postrouting_nat {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {transit} oifname "{eni}" snat to {underlay.address}
  }}
}}
{_NETDEV_TABLE}"""


def _of_enis(cards: list[Card], transit: str) -> tuple[str, str, str]:
    """Write which interfaces are ENIs, the rules that mark guests' packets by their ENI, and which of these leave by a wrong one.

    What comes from the MAC of an ENI is for that one, all else for the first; so is what SNAT is for, whatever MAC its NIC
    has. A node with one ENI needs no marks.
    """
    names = [f'"{card.interface}"' for card in cards]
    if len(cards) == 1:
        return names[0], "", f"oifname != {names[0]}"
    macs = [ENI_MAC.format(card.table - ROUTE_TABLE) for card in cards[1:]]
    matches = ["", *(f"ip saddr != {transit} ether saddr {mac} " for mac in macs)]
    rules = [
        f'\n    iifname "{GATEWAY_PORT}" {match}meta mark set {card.table}'
        for match, card in zip(matches, cards, strict=True)
    ]
    right = ", ".join(f"{name} . {card.table}" for name, card in zip(names, cards, strict=True))
    return f"{{ {', '.join(names)} }}", "".join(rules), f"oifname . meta mark != {{ {right} }}"
