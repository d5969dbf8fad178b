"""A TCP connection that carries numbered chunks in one direction or both, run as `python3 -c TEXT MODE ...`.

    listen PORT
    connect SOURCE ADDRESS PORT DIRECTION [IDLE]

DIRECTION, seen from the one that connects: `out`, `in` or `both`. With IDLE, no data flows for so many seconds after the first
one. It prints `ready` once data flows, and goes on until
it gets SIGTERM. Then the other side says how much it has received, and it prints as JSON whether each chunk arrived, in
order, and the longest time in which none did.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
import threading
import time

PAUSE, BEFORE_IDLE = 0.02, 1.0
END = 1 << 63


class End:
    """One end of a connection."""

    def __init__(self, connection: socket.socket, sends: bool, idle: int) -> None:
        self.connection, self.sends, self.idle = connection, sends, idle
        self.pauses_at = time.monotonic() + BEFORE_IDLE
        self.stop = threading.Event()
        self.sent = self.received = 0
        self.in_order, self.silence, self.heard = True, 0.0, time.monotonic()
        self.trailer: list[int] = []
        """What the other end says in the end: chunks received (0 if not in order), the longest silence in ms."""

    def send(self) -> None:
        """Send until told to stop."""
        while self.sends and not self.stop.wait(self._pause()):
            self.connection.sendall(struct.pack(">Q", self.sent))
            self.sent += 1
        self.stop.wait()

    def _pause(self) -> float:
        if self.idle and time.monotonic() > self.pauses_at:
            idle, self.idle = self.idle, 0
            return idle
        return PAUSE

    def stop_by_signal(self) -> None:
        """Stop when SIGTERM comes, which must be blocked in all threads."""
        signal.sigwait({signal.SIGTERM})
        self.stop.set()

    def receive(self) -> None:
        """Receive until the other end has no more to say."""
        rest = b""
        while data := self.connection.recv(65536):
            rest += data
            while len(rest) >= 8:
                (number,) = struct.unpack(">Q", rest[:8])
                rest = rest[8:]
                if number & END:
                    self.trailer.append(number ^ END)
                else:
                    self._count(number)
        self.stop.set()

    def _count(self, number: int) -> None:
        self.in_order = self.in_order and number == self.received
        self.received += 1
        now = time.monotonic()
        self.silence, self.heard = max(self.silence, now - self.heard), now


def serve(connection: socket.socket) -> None:
    """The end that was connected to."""
    sends, idle = connection.recv(2, socket.MSG_WAITALL)
    connection.sendall(b"!")
    end = End(connection, bool(sends), idle)
    sender = threading.Thread(target=end.send)
    sender.start()
    end.receive()
    sender.join()
    received = end.received if end.in_order else 0
    connection.sendall(struct.pack(">QQ", END | received, END | int(end.silence * 1000)))
    connection.close()


def listen(port: int) -> None:
    """Serve all who connect."""
    server = socket.create_server(("0.0.0.0", port), backlog=64)
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


def connect(source: str, address: str, port: int, direction: str, idle: int = 0) -> None:
    """The end that connects."""
    connection = socket.create_connection((address, port), timeout=10, source_address=(source, 0))
    connection.settimeout(None)
    connection.sendall(bytes([direction != "out", idle]))
    assert connection.recv(1) == b"!"
    end = End(connection, direction != "in", idle)
    # In a thread: a handler would run in the midst of a wait for `stop` and wait for the lock that this holds.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=end.stop_by_signal, daemon=True).start()
    receiver = threading.Thread(target=end.receive, daemon=True)
    receiver.start()
    print("ready", flush=True)
    end.send()
    connection.shutdown(socket.SHUT_WR)
    receiver.join()
    arrived, silence = end.trailer or (-1, 0)
    result = {"whole": end.in_order and arrived == end.sent, "sent": end.sent, "received": end.received}
    print(json.dumps({**result, "silence": round(max(end.silence, silence / 1000), 2)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen(int(sys.argv[2]))
    else:
        connect(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], *map(int, sys.argv[6:]))
