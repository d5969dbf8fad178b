"""An exchange of numbered UDP packets between two ends, run as `python3 -c TEXT MODE ...`.

    answer PORT
    ask SOURCE ADDRESS PORT

Whoever asks goes on until it gets SIGTERM, and prints as JSON how many it has sent, how many of these were answered, and the
longest time without an answer; on SIGUSR1 it prints so much of it as it knows. From the same port, so that it is one connection.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time

PAUSE, IP_PKTINFO = 0.005, 8
_PATIENCE_S = 20


def answer(port: int) -> None:
    """Send everything back, from the address at which it came: there may be several."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    server.bind(("0.0.0.0", port))
    print("ready", flush=True)
    while True:
        data, ((_, _, information),), _, sender = server.recvmsg(4000, 64)
        own = bytes(4) + information[8:12] + bytes(4)
        server.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, own)], socket.MSG_DONTWAIT, sender)


class Asking:
    """One who asks."""

    def __init__(self, source: str, address: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.connect((address, port))
        self.sent, self.answered, self.silence, self.heard = 0, 0, 0.0, time.monotonic()
        self.ended = False

    def _receive(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                self.socket.recv(2000)
            except OSError:  # also that nobody is there
                continue
            now = time.monotonic()
            self.answered += 1
            self.silence, self.heard = max(self.silence, now - self.heard), now

    def report(self, *_: object) -> None:
        """Print what has been seen."""
        silence = max(self.silence, time.monotonic() - self.heard)
        print(json.dumps({"sent": self.sent, "answered": self.answered, "silence": round(silence, 2)}), flush=True)

    def end(self, *_: object) -> None:
        """Stop asking."""
        self.ended = True

    def run(self) -> None:
        """Ask until the end."""
        signal.signal(signal.SIGUSR1, self.report)
        signal.signal(signal.SIGTERM, self.end)
        ready, began = False, time.monotonic()
        while not self.ended:
            try:
                self.socket.send(b"%08d" % self.sent)
                self.sent += 1
            except OSError:
                pass
            self._receive(PAUSE)
            if self.answered and not ready:
                print("ready", flush=True)
                ready = True
            if not ready and time.monotonic() > began + _PATIENCE_S:
                sys.exit(f"nobody answers at {self.socket.getpeername()}")
        self.silence = max(self.silence, time.monotonic() - self.heard)
        self._receive(1)
        self.heard = time.monotonic()
        self.report()


if __name__ == "__main__":
    if sys.argv[1] == "answer":
        answer(int(sys.argv[2]))
    else:
        Asking(sys.argv[2], sys.argv[3], int(sys.argv[4])).run()
