"""The drivers of a real oned, played by the test: each is a small process that passes lines on to this one.

oned and a driver send each other lines of the form `ACTION STATUS ID PAYLOAD`.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

NAMES = ("monitord", "vmm", "tm", "ipam", "datastore", "sched", "hm", "market")

_BRIDGE = """#!/usr/bin/python3 -ISu
import os, socket, sys, threading
here, name = os.path.split(sys.argv[0])
s = socket.socket(socket.AF_UNIX)
s.connect(os.path.join(here, "socket"))
s.sendall(name.encode() + b"\\n")
parent = os.getppid()
def answers():
    while data := s.recv(65536):
        os.write(1, data)
    if os.getppid() == parent:  # else oned has ended already
        os.kill(parent, 9)  # nobody plays its drivers any more
threading.Thread(target=answers, daemon=True).start()
while data := os.read(0, 65536):
    s.sendall(data)
"""


class Message(NamedTuple):
    """A line between oned and a driver. `object_id` is the ID of the VM, host or network that it is about."""

    action: str
    object_id: int
    payload: str


class Drivers:
    """All drivers of one oned. They succeed at once, except for the creation and deletion of networks, which wait for an answer.

    Args:
        directory: where the programs go that oned starts; oned's `lib/mads`.

    Attributes:
        done: how often the hypervisor has done what it was asked for, by action and VM.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        bridge = directory / "bridge"
        bridge.write_text(_BRIDGE)
        bridge.chmod(0o755)
        for name in NAMES:
            (directory / name).symlink_to("bridge")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "socket"))
        (directory / "socket").chmod(0o777)  # oned may run as another user
        self._listener.listen(len(NAMES))
        self._connections: dict[str, socket.socket] = {}
        self._lock = threading.Lock()
        self.done: Counter[tuple[str, int]] = Counter()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop all drivers."""
        self._listener.close()
        with self._lock:
            for connection in self._connections.values():
                connection.close()

    def networks(self, action: str, vnet_id: int, succeeded: bool, printed: str) -> None:
        """Answer VNET_CREATE or VNET_DELETE for a network, with what the driver's script printed."""
        self._send("ipam", f"{action} {_status(succeeded)} {vnet_id} {base64.b64encode(printed.encode()).decode()}")

    def monitoring(self, action: str, host_id: int, text: str) -> None:
        """Send what the monitoring found of a host: HOST_STATE or HOST_SYSTEM."""
        payload = base64.b64encode(zlib.compress(text.encode())).decode()
        self._send("monitord", f"{action} SUCCESS {host_id} {payload}")

    def _send(self, name: str, line: str) -> None:
        with self._lock:
            self._connections[name].sendall(line.encode() + b"\n")

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection.makefile("r", errors="replace") as lines:
            name = lines.readline().strip()
            with self._lock:
                self._connections[name] = connection
            for line in lines:
                self._answer(name, _parse(line))

    def _answer(self, name: str, message: Message) -> None:
        number = message.object_id
        if message.action == "INIT":
            self._send(name, "INIT SUCCESS")
        elif name == "tm" and message.action == "TRANSFER":
            self._send(name, f"TRANSFER SUCCESS {number} -")
        elif name == "vmm" and message.action == "DEPLOY":
            self._send(name, f"DEPLOY SUCCESS {number} one-{number}")
        elif name == "vmm" and message.action not in ("FINALIZE", "LOG", "DRIVER_CANCEL"):
            self._send(name, f"{message.action} SUCCESS {number} -")
            self.done[message.action, number] += 1


def _status(succeeded: bool) -> str:
    return "SUCCESS" if succeeded else "FAILURE"


def _parse(line: str) -> Message:
    action, _, number, payload, *_ = [*line.strip().split(" ", 3), "", "", ""]
    return Message(action, int(number or -1), payload)
