"""Network cards of the lab's machines, to send frames from and to see what arrives, all in this process.

A socket belongs for ever to the network namespace in which it was made, so a thread enters the namespace, makes the
socket, and ends.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

_CLONE_NEWNET = 0x40000000
_EVERYTHING = 0x0003
_ROOM = 4 << 20
_OWN = socket.PACKET_OUTGOING


class Wires:
    """The cards, by names that the caller chooses; a context manager."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        for card in self._sockets.values():
            card.close()

    def open(self, name: str, pid: int, device: str) -> None:
        """Add a card: the device in the network namespace of a process; once for each name."""
        if name in self._sockets:
            return
        with ThreadPoolExecutor(1) as visitor:
            card = visitor.submit(_card, pid, device).result()
        self._sockets[name] = card
        self._selector.register(card, selectors.EVENT_READ, name)

    def send(self, name: str, frame: bytes) -> None:
        """Send a frame from a card."""
        self._sockets[name].send(frame.ljust(60, b"\0"))

    def listen(self, seconds: float) -> Iterator[tuple[str, bytes]]:
        """Wait so long, and tell which frames come in at which card meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                card = key.fileobj
                assert isinstance(card, socket.socket)
                try:
                    frame, origin = card.recvfrom(65535)
                except BlockingIOError:
                    continue
                if origin[2] != _OWN:
                    yield key.data, frame


def _card(pid: int, device: str) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    card.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    card.setblocking(False)
    card.bind((device, _EVERYTHING))
    return card
