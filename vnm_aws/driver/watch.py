"""`watch`: a small process that sleeps until something changes in this node's kernel, and puts it back.

The kernel tells of its routes, rules, addresses, links and nft tables. Settings change without a word, and ovs-vswitchd
may have been restarted: so it also looks once a minute. To look and to repair costs a millisecond or two. What takes
more, the nft tables and a new ovs-vswitchd, another process does, `aws-ovs heal`: it needs 30 MB.
"""

from __future__ import annotations

import _socket as socket
import contextlib
import gc
import os
import select
import sys
import time
from collections.abc import Collection
from typing import Any

from .. import config, lock, processes
from ..addresses import Prefix
from ..errors import AwsOvsError
from ..journal import ERROR, explain, log
from ..names import GATEWAY_PORT, PEER_LIST, REPAIR_PORT
from ..overlay.grants import stored
from ..underlay import eni, kernel, netlink
from ..underlay.netlink import Address
from . import heal, state, strangers
from . import node as node_module

_ROUTE_GROUPS, _NFT_GROUPS = (1, 5, 7, 8), (7,)
"""RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE and _IPV4_RULE; NFNLGRP_NFTABLES."""
_LINK_MESSAGES, _ADDRESS_MESSAGES = (16, 17), (20, 21)
_LINKS = [name.encode() + b"\0" for name in (GATEWAY_PORT, REPAIR_PORT)]
_TABLES = b"aws_ovs\0"

_MINUTE_S = 45.0
"""Between two looks at everything: with the time that it takes to heal, less than a minute."""
_GRACE_S = 20.0
"""So long a VM's address may be on an interface of this node, where it does no harm but to the VM: whoever puts it there may be
at work, and people and the monitoring see the reason."""
_RESTORE_S = 10.0
"""How long systemd has to restore the node when ovs-vswitchd has started."""
_LOCK_S = 5.0
"""An action that is at work now sees to all that is not right with the node."""
_NICE = -10
"""It works for a few milliseconds, and Elastic IPs are dead until it has: so it comes first on a busy host."""
_REST_S = 0.01
"""Between two looks: what is changed part by part, by several commands, is put back within a few hundredths of a second."""
_AT_ONCE, _A_SECOND = 20, 2
"""So many looks may follow each other, and so many a second in the long run: somebody who changes routes all the time keeps no
processor busy."""
_QUICK, _TABLES_TOO, _ALL = range(3)
"""How much a look sees: what takes no time, what is in the nft tables, too, or everything."""
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 600.0
"""How long the same trouble is left alone after it was healed in vain: at first, and at most."""


def run() -> None:
    """Watch until somebody ends this.

    Raises:
        AwsOvsError: the configuration is not valid.
    """
    gc.enable()  # the program is for short calls, and does without
    config.load()
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write("aws-ovs-watch")  # for those who look for an action that is at work
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    healer = _Healer()
    network = netlink.listen(netlink.ROUTE, _ROUTE_GROUPS)
    tables = netlink.listen(netlink.NETFILTER, _NFT_GROUPS)
    depth, credit = _ALL, float(_AT_ONCE)
    while True:
        since = time.monotonic()
        healer.look(depth)
        time.sleep(_REST_S if credit >= 1 else 1 / _A_SECOND)
        depth = _wait(network, tables, healer.next_look, [*_LINKS, *healer.macs])
        credit = min(_AT_ONCE, credit - 1 + (time.monotonic() - since) * _A_SECOND)


def _wait(network: socket.socket, tables: socket.socket, until: float, links: list[bytes]) -> int:
    """Wait until it is time to look; tell how deep. `links` are the names or MACs of the links that we need."""
    while (left := until - time.monotonic()) > 0:
        if select.select([network, tables], [], [], left)[0]:
            of_network, of_tables = map(_drain, (network, tables))
            has_address = any(_kind(message) in _ADDRESS_MESSAGES for message in of_network)  # they are in the tables
            if has_address or any(_TABLES in message for message in of_tables):
                return _TABLES_TOO
            if any(_concerns(message, links) for message in of_network):
                return _QUICK
    return _ALL


def _concerns(message: bytes, links: list[bytes]) -> bool:
    """Tell whether a message may be about what the driver needs; every VM has links, which are none of it."""
    return _kind(message) not in _LINK_MESSAGES or any(name in message for name in links)


def _kind(message: bytes) -> int:
    return int.from_bytes(message[4:6], sys.byteorder)


def _drain(link: socket.socket) -> list[bytes]:
    """Take all messages that are there; when they were too many for the kernel to keep, one that concerns us."""
    messages = []
    while True:
        try:
            messages.append(link.recv(1 << 16))
        except BlockingIOError:
            return messages
        except OSError:
            messages.append(bytes(16) + _TABLES)


class _Healer:
    """Looks and heals; what is healed in vain is tried ever more rarely."""

    def __init__(self) -> None:
        self.next_look = 0.0
        self._next_minute = self._not_before = 0.0
        self._wrong: list[str] = []
        self._pause = _PAUSE_S
        self._seen: dict[Address, float] = {}
        self._settings = config.Config()
        self._said = ""
        self._told: tuple[tuple[int, ...], dict[str, Any]] = ((), {})
        self.macs: list[bytes] = []

    def look(self, depth: int) -> None:
        """Look at the node, and heal what is wrong; say what went wrong with that once, not once a minute."""
        if depth == _ALL:
            self._next_minute = time.monotonic() + _MINUTE_S
        self.next_look = self._next_minute
        try:
            made_for = node_module.read_marker()
            # A node that has never been set up is left alone, and without ovs-vswitchd there is nothing to lead to.
            if isinstance(made_for, dict) and node_module.vswitchd() != node_module.NOT_RUNNING:
                self._heal(depth, made_for)
            self._said = ""
        except Exception as error:  # noqa: BLE001 - it goes on, whatever is the matter
            sentence = explain(error, "watch")
            if sentence != self._said:
                log(ERROR, f"watch: {sentence}")
            self._said = sentence

    def _heal(self, depth: int, made_for: dict[str, Any]) -> None:
        if depth == _ALL:
            self._settings = config.load()
        settings = self._settings
        underlay = node_module.find_underlay(settings, self._stored())
        self.macs = [bytes.fromhex(further.mac.replace(":", "")) for further in underlay.further]
        of_vms = _private_addresses(settings, underlay) if depth > _QUICK else {}
        late = self._late(strangers.taken(of_vms)) if depth > _QUICK else []
        found = [*(str(entry) for entry, _ in late), *_differences(underlay, settings, of_vms, depth, made_for)]
        if found != self._wrong:
            self._pause, self._not_before = _PAUSE_S, 0.0
        self._wrong = found
        now = time.monotonic()
        if found and now >= self._not_before:
            self._not_before, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_PAUSE_S)
            with lock.held("watch", _LOCK_S):
                heal.remove(late)
                heal.repair_kernel(underlay, settings, of_vms, tables=False)
            left = _differences(underlay, settings, of_vms, depth, made_for)
            if left and (error := processes.finish(processes.start(["aws-ovs", "heal"]))):
                raise AwsOvsError(f"this node could not be healed ({left[0]})", error)
        if found:
            self.next_look = min(self.next_look, self._not_before)

    def _stored(self) -> dict[str, Any]:
        """Read the stored peer list, when it is another one than at the last look: it may be long."""
        with contextlib.suppress(OSError):
            status = os.stat(PEER_LIST)
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._told[0] != version:
                told = {key: value for key, value in stored().items() if key == "enis"}
                self._told = (version, told)
            return self._told[1]
        return {}

    def _late(self, taken: list[tuple[Address, str]]) -> list[tuple[Address, str]]:
        """Choose the addresses of VMs that have been on this node for too long."""
        now = time.monotonic()
        self._seen = {entry: self._seen.get(entry, now) for entry, _ in taken}
        ends = [since + _GRACE_S for since in self._seen.values()]
        self.next_look = min([self.next_look, *(end for end in ends if end > now)])
        return [(entry, whose) for entry, whose in taken if now - self._seen[entry] >= _GRACE_S]


def _private_addresses(settings: config.Config, underlay: eni.Underlay) -> dict[str, str]:
    transit = Prefix(settings.transit_range, "transit_range")
    return strangers.private_addresses(transit, underlay, state.everything().ports)


def _differences(
    underlay: eni.Underlay, settings: config.Config, of_vms: Collection[str], depth: int, made_for: dict[str, Any]
) -> list[str]:
    """List what a heal would repair.

    Raises:
        AwsOvsError: the transit_range overlaps something, and the driver's route must not be there.
    """
    eni.refuse_overlap(Prefix(settings.transit_range, "transit_range"), underlay, (), is_set_up=True)
    if depth == _QUICK:
        return kernel.glance(underlay, settings)
    found = kernel.differences(underlay, settings, of_vms)
    if depth == _ALL and _vswitchd_age() > _RESTORE_S:
        # The next action sees to another version.
        now = {**node_module.describe(settings, underlay), "version": made_for.get("version")}
        found += ["this node is not what it was set up for"] if made_for != now else []
    return found


def _vswitchd_age() -> float:
    """Tell for how many seconds this ovs-vswitchd has run."""
    _, _, start = node_module.vswitchd().partition(" ")
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    return uptime - int(start or "0") / os.sysconf("SC_CLK_TCK")
