"""Sending frames from network cards, and watching where they arrive."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence

from tests.lab.support.ethernet import udp4
from tests.world.hosts.executor import Executor, Process

MARK = b"frame "
"""What the mark of each frame begins with; four digits follow."""

# Arguments: the device, and the time between two frames in milliseconds; frames come on stdin, in hexadecimal.
_SEND = """
import json, socket, sys, time
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
card.bind((sys.argv[1], 0))
for frame in json.load(sys.stdin):
    card.send(bytes.fromhex(frame))
    time.sleep(float(sys.argv[2]) / 1000)
"""

# Arguments: the device, or nothing for all. An error that quotes a frame is not that frame.
_WATCH = """
import re, socket, sys
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
card.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
if sys.argv[1]:
    card.bind((sys.argv[1], 0))
print("ready", flush=True)
while True:
    frame, origin = card.recvfrom(65535)
    error = frame[12:14] == b"\\x08\\x00" and frame[23] == 1 and frame[34] == 3
    error |= frame[12:14] == b"\\x86\\xdd" and frame[20] == 58 and frame[54] == 1
    if origin[2] == 4 and sys.argv[2] == "received" or error:
        continue
    for found in re.findall(rb"frame (\\d{4})", frame):
        print(found.decode(), flush=True)
"""


def mark(number: int) -> bytes:
    """The mark of a frame, which goes into its payload or behind its end."""
    return MARK + b"%04d" % number


def send(guest: Executor, device: str, frames: Iterable[bytes], spacing_ms: float = 1) -> None:
    """Send frames from a card, one after the other."""
    text = json.dumps([frame.hex() for frame in frames])
    guest.run(["/usr/bin/python3", "-c", _SEND, device, str(spacing_ms)], stdin=text, timeout=120)


class Watch:
    """Watchers of network cards.

    Attributes:
        seen: the numbers of the marks that each has seen, by its name, once it is ended.
    """

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}
        self.seen: dict[str, list[int]] = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *unused: object) -> None:
        self.end()

    def card(self, name: str, machine: Executor, device: str, sent_too: bool = False) -> None:
        """Watch what a card receives, and with `sent_too` also what it sends."""
        self.add(name, machine.spawn(watcher(device, sent_too)))

    def add(self, name: str, process: subprocess.Popen[str]) -> None:
        """Read what a watcher prints that has been started elsewhere."""
        self._processes[name] = process
        assert process.stdout
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the watcher {name} did not start: {process.communicate()[1]}")

    def end(self) -> None:
        """End all watchers."""
        for name, process in self._processes.items():
            process.terminate()
            self.seen[name] = [int(line) for line in process.communicate(timeout=30)[0].split()]
        self._processes.clear()


def watcher(device: str, sent_too: bool = False) -> Sequence[str]:
    """The command of a watcher."""
    return ["/usr/bin/python3", "-c", _WATCH, device, "all" if sent_too else "received"]


def is_udp(frame: bytes) -> bool:
    """Tell whether a frame holds a whole UDP packet over IPv4."""
    return frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[20:22] == bytes(2)


def with_payload(frame: bytes, payload: bytes) -> bytes:
    """The frame with a payload in its UDP packet, which has none: a router cuts off what is behind the end."""
    packet = bytearray(frame[14:])
    source, target = (".".join(map(str, packet[at : at + 4])) for at in (12, 16))
    ports = (int.from_bytes(packet[20:22], "big"), int.from_bytes(packet[22:24], "big"))
    return frame[:14] + udp4(source, target, ports, payload)
