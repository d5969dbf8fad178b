"""What else on this machine would take or drop the overlay's packets, each with what to do about it.

Only what is certain: a check that cries wolf is not read. Everything is read from /proc and nft.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator

from .kernel import GATEWAY_PORT

VXLAN_PORT = 4789
_NETFILTER = "/proc/sys/net/netfilter"
_HOOKS = {
    "forward": (GATEWAY_PORT, "iifname {0} accept, and oifname {0} accept"),
    "input": (str(VXLAN_PORT), "udp dport {0} accept"),
}
"""What a chain with policy drop must name to let the overlay's packets pass, and how."""


def troubles() -> Iterator[tuple[str, str]]:
    """Each trouble and its remedy."""
    yield from _firewalls()
    yield from _listeners()
    yield from _connections()


def _firewalls() -> Iterator[tuple[str, str]]:
    """Chains of others that drop whatever their table does not accept, where it never mentions what we need."""
    for one in json.loads(_nft("--json", "list", "chains") or '{"nftables": []}')["nftables"]:
        chain = one.get("chain", {})
        hook, table = chain.get("hook"), chain.get("table", "")
        family = chain.get("family")
        if hook not in _HOOKS or chain.get("policy") != "drop" or family not in ("ip", "inet") or table == "aws_ovs":
            continue
        needed, rule = _HOOKS[hook]
        if needed not in _nft("list", "table", family, table):
            yield (
                f"the firewall (nft chain {family} {table} {chain['name']}) drops what it does not accept, and no rule "
                f"there names {needed}",
                f"let it accept the overlay's packets: {rule.format(needed)}",
            )


def _nft(*arguments: str) -> str:
    return subprocess.run(["nft", *arguments], capture_output=True, text=True).stdout


def _listeners() -> Iterator[tuple[str, str]]:
    """Processes that have the tunnels' UDP port; the kernel's own sockets belong to none."""
    sockets = set()
    for path in ("/proc/net/udp", "/proc/net/udp6"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as table:
            for fields in map(str.split, table.readlines()[1:]):
                if int(fields[1].rpartition(":")[2], 16) == VXLAN_PORT:
                    sockets.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdecimal, os.listdir("/proc") if sockets else []):
        with contextlib.suppress(OSError):  # it has just ended
            if any(_target(f"/proc/{pid}/fd/{number}") in sockets for number in os.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
                    who = f"process {pid} ({name.read().strip()})"
                yield f"{who} has UDP port {VXLAN_PORT}, which the tunnels need", f"end it: kill {pid}"


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _connections() -> Iterator[tuple[str, str]]:
    """The kernel's connection table, which all but the VMs with an Elastic IP of their own need to leave."""
    try:
        with (
            open(f"{_NETFILTER}/nf_conntrack_count", encoding="ascii") as used,
            open(f"{_NETFILTER}/nf_conntrack_max", encoding="ascii") as most,
        ):
            count, limit = int(used.read()), int(most.read())
    except (OSError, ValueError):
        return  # the kernel tracks nothing yet
    if count * 10 >= limit * 9:
        yield (
            f"the kernel's connection table is nearly full: {count} of {limit}; then new connections fail",
            f"enlarge it: sysctl -w net.netfilter.nf_conntrack_max={limit * 4}",
        )
