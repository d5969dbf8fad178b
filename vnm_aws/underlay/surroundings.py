"""Finds what else on this machine would take or drop the overlay's packets, each with what to do about it.

It reports only what is certain: nobody reads a check that is often wrong. It reads /proc and asks nft.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator

from ..names import GATEWAY_PORT, VXLAN_PORT
from . import nft
from .kernel import read_setting

_HOOKS = {
    "forward": (GATEWAY_PORT, ("iifname {0} accept", "oifname {0} accept")),
    "input": (str(VXLAN_PORT), ("udp dport {0} accept",)),
}
"""What a chain with policy drop must name to let the overlay's packets pass, and how."""


def troubles() -> Iterator[tuple[str, str]]:
    """Find each trouble and its remedy."""
    yield from _firewalls()
    yield from _listeners()
    yield from _connections()


def _firewalls() -> Iterator[tuple[str, str]]:
    """Find chains of others that drop whatever their table does not accept, where it never mentions what we need."""
    for entry in json.loads(nft.show("--json", "list", "chains") or '{"nftables": []}')["nftables"]:
        chain = entry.get("chain", {})
        hook, table = chain.get("hook"), chain.get("table", "")
        family = chain.get("family")
        if hook not in _HOOKS or chain.get("policy") != "drop" or family not in ("ip", "inet") or table == "aws_ovs":
            continue
        needed, rules = _HOOKS[hook]
        commands = [f"nft insert rule {family} {table} {chain['name']} {rule.format(needed)}" for rule in rules]
        if needed not in nft.show("list", "table", family, table):
            yield (
                f"the firewall (nft chain {family} {table} {chain['name']}) drops what it does not accept, and no rule "
                f"there names {needed}",
                f"let it accept the overlay's packets, there and where it is kept: {'; '.join(commands)}",
            )


def _listeners() -> Iterator[tuple[str, str]]:
    """Find processes that have the tunnels' UDP port; the kernel's own sockets belong to none."""
    sockets = set()
    for path in ("/proc/net/udp", "/proc/net/udp6"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as table:
            for fields in map(str.split, table.readlines()[1:]):
                if int(fields[1].rpartition(":")[2], 16) == VXLAN_PORT:
                    sockets.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdecimal, os.listdir("/proc") if sockets else []):
        with contextlib.suppress(OSError):  # it has just ended
            files = (os.path.realpath(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd"))
            if any(os.path.basename(file) in sockets for file in files):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
                    process = f"process {pid} ({name.read().strip()})"
                remedy = f"let it use another one, or stop it where it is started from: systemctl status {pid}"
                yield f"{process} has UDP port {VXLAN_PORT}, which the tunnels need", remedy


def _connections() -> Iterator[tuple[str, str]]:
    """Look how full the connection table is, which all VMs without an Elastic IP of their own need to leave."""
    # They are not there as long as the kernel tracks nothing.
    count, limit = (int(read_setting(f"net/netfilter/nf_conntrack_{key}") or 0) for key in ("count", "max"))
    if limit and count * 10 >= limit * 9:
        yield (
            f"the kernel's connection table is nearly full: {count} of {limit}; then new connections fail",
            f"enlarge it: sysctl -w net.netfilter.nf_conntrack_max={limit * 4}",
        )
