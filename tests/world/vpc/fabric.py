"""The process that moves frames: TAP devices, the router between them, and EC2's state as it changes.

Run by `Vpc` as `python -m tests.world.vpc.fabric FD ENDPOINT VPC ROUTER`; FD is its control socket, a JSON object a
line.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import multiprocessing
import os
import select
import socket
import struct
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from tests.world.ec2.region import client

from .router import Router, state

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x2, 0x1000
_CLONE_NEWNET = 0x40000000
_POLL_S = 0.1
_BATCH = 64


def _describe(ec2: Any) -> list[Any]:
    interfaces = []
    for page in ec2.get_paginator("describe_network_interfaces").paginate():
        for eni in page["NetworkInterfaces"]:
            addresses = sorted(item["PrivateIpAddress"] for item in eni["PrivateIpAddresses"])
            interfaces.append([eni["NetworkInterfaceId"], eni["MacAddress"], addresses])
    elastic = [
        [one["PublicIp"], one["PrivateIpAddress"]]
        for one in ec2.describe_addresses()["Addresses"]
        if one.get("PrivateIpAddress")
    ]
    return [sorted(interfaces), sorted(elastic)]


def _watch(endpoint: str, pipe: Connection) -> None:
    """Poll EC2 in a process of its own, because a poll must not hold up frames: send (start of the poll, state if it
    changed)."""
    ec2, last = client(endpoint), None
    while True:
        started = time.monotonic()
        try:
            now = _describe(ec2)
        except Exception:  # noqa: BLE001 - the server has gone; so will this process
            return
        pipe.send((started, now if now != last else None))
        last = now
        time.sleep(_POLL_S)


class Fabric:
    """The fabric's ports and its clock."""

    def __init__(self, control: socket.socket, updates: Connection, router: Router) -> None:
        self._control, self._updates, self._router = control, updates, router
        self._control_file = control.makefile("rb")
        self._taps: dict[int, str] = {}
        self._fds: dict[str, int] = {}
        self._epoll = select.epoll()
        self._epoll.register(control.fileno(), select.EPOLLIN)
        self._epoll.register(updates.fileno(), select.EPOLLIN)
        self._delay = 0.0
        self._pending: list[list[Any]] = []
        self._settled = 0.0
        self._waiting: list[float] = []

    def attach(self, port: str, mac: str, pid: int, ifname: str, mtu: int) -> None:
        """Make a TAP for `port` and move it into the namespace of `pid`."""
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = f"tap{len(self._taps)}"
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        for change in (["address", mac, "mtu", str(mtu)], ["netns", str(pid), "name", ifname]):
            subprocess.run(["ip", "link", "set", name, *change], check=True)
        self._taps[fd], self._fds[port] = port, fd
        self._epoll.register(fd, select.EPOLLIN)

    def detach(self, port: str) -> None:
        """Let the TAP of `port` vanish, if it is there."""
        fd = self._fds.pop(port, None)
        if fd is None:
            return
        del self._taps[fd]
        self._epoll.unregister(fd)
        os.close(fd)

    def run(self) -> None:
        """Serve until the control socket closes."""
        while True:
            timeout = max(0.0, self._pending[0][0] - time.monotonic()) if self._pending else -1
            events = self._epoll.poll(timeout)
            self._apply_due()
            for fd, _ in events:
                if fd in self._taps:
                    self._forward(fd)
                elif fd == self._updates.fileno():
                    self._update()
                elif not self._command():
                    return

    def _forward(self, fd: int) -> None:
        port, frame, fds = self._taps[fd], self._router.frame, self._fds
        for _ in range(_BATCH):
            try:
                data = os.read(fd, 10000)
            except (BlockingIOError, OSError):
                return
            for to, out in frame(port, data):
                target = fds.get(to)
                if target is not None:
                    try:
                        os.write(target, out)
                    except OSError:
                        self._router.drops["interface-down"] += 1

    def _update(self) -> None:
        try:
            started, described = self._updates.recv()
        except EOFError:
            self._epoll.unregister(self._updates.fileno())
            return
        if described is not None:
            self._pending.append([time.monotonic() + self._delay, started, described])
        elif self._pending:
            self._pending[-1][1] = started
        else:
            self._settled = started
        self._apply_due()

    def _apply_due(self) -> None:
        while self._pending and self._pending[0][0] <= time.monotonic():
            _, self._settled, (interfaces, elastic) = self._pending.pop(0)
            self._router.state = state(interfaces, elastic)
        done = [since for since in self._waiting if since <= self._settled]
        if done and not self._pending:
            self._waiting = [since for since in self._waiting if since > self._settled]
            for _ in done:
                self._reply({})

    def _reply(self, value: object) -> None:
        self._control.sendall(json.dumps(value).encode() + b"\n")

    def _command(self) -> bool:
        line = self._control_file.readline()
        if not line:
            return False
        command = json.loads(line)
        verb = command.pop("do")
        if verb == "settle":
            self._waiting.append(time.monotonic())
            return True
        answer: object = {}
        if verb == "attach":
            self.attach(**command)
        elif verb == "detach":
            self.detach(**command)
        elif verb == "delay":
            self._delay = command["seconds"]
        elif verb == "internet_mtu":
            self._router.internet_mtu = command["mtu"]
        elif verb == "drops":
            answer = dict(self._router.drops)
        elif verb == "last":
            answer = list(self._router.last[command["reason"]])
        elif verb == "delivered":
            answer = dict(self._router.delivered)
        self._reply(answer)
        return True


def main() -> None:
    """Serve on the control socket."""
    fd, endpoint, vpc, router_ip = sys.argv[1:5]
    control = socket.socket(fileno=int(fd))
    here, there = multiprocessing.Pipe(duplex=False)
    watcher = multiprocessing.get_context("fork").Process(target=_watch, args=(endpoint, there), daemon=True)
    watcher.start()
    there.close()
    # The devices live in a namespace of this process from here on; the watcher stays where EC2's loopback is.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    address, _, length = vpc.partition("/")
    router = Router((bytes(map(int, address.split("."))), int(length)), bytes(map(int, router_ip.split("."))))
    try:
        Fabric(control, here, router).run()
    finally:
        watcher.kill()


if __name__ == "__main__":
    main()
