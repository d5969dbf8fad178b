"""Frames that go on being sent while something happens, and how many of each arrive.

It is also a program of its own, run as `python3 -c TEXT MODE ...`:

    send DEVICE MILLISECONDS FRAME...   frames in hexadecimal, one after the other, for ever
    watch                               count the marks in what all network cards receive; each SIGUSR1 prints the counts
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

Spawn = Callable[[Sequence[str]], "subprocess.Popen[str]"]
SPACING_MS = 4
_PATIENCE_S = 120


def send(device: str, pause: float, frames: list[bytes]) -> None:
    """Send for ever; a card that is not there yet, or not plugged in, sends nothing."""
    while device not in [name for _, name in socket.if_nameindex()]:
        time.sleep(0.01)
    card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    card.bind((device, 0))
    while True:
        for frame in frames:
            with contextlib.suppress(OSError):
                card.send(frame)
            time.sleep(pause)


def watch() -> None:
    """Count marks; an error that quotes a frame is not that frame."""
    seen: Counter[str] = Counter()
    signal.signal(signal.SIGUSR1, lambda *_: print(json.dumps(seen), flush=True))
    card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    card.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    print("ready", flush=True)
    while True:
        frame, origin = card.recvfrom(65535)
        error = frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 3
        if origin[2] != 4 and not error:
            seen.update(mark.decode() for mark in re.findall(rb"flood (\d{4})", frame))


class Flood:
    """Senders and watchers; a context manager, which ends them.

    Frames have names; those of one name are the same stream, which must pass or must not.
    """

    def __init__(self) -> None:
        self._program = ["/usr/bin/python3", "-c", Path(__file__).read_text(encoding="utf-8")]
        self._names: list[str] = []
        self._senders: list[subprocess.Popen[str]] = []
        self._watchers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *unused: object) -> None:
        for process in (*self._senders, *self._watchers):
            process.kill()
            process.wait()

    def mark(self, name: str) -> bytes:
        """The payload of a stream's frames."""
        self._names.append(name)
        return b"flood %04d" % (len(self._names) - 1)

    def send(self, spawn: Spawn, device: str, frames: Sequence[bytes]) -> None:
        """Send from a card until the end."""
        words = [frame.hex() for frame in frames]
        self._senders.append(spawn([*self._program, "send", device, str(SPACING_MS / 1000), *words]))

    def watch(self, spawn: Spawn) -> None:
        """Watch all cards of a machine."""
        process = spawn([*self._program, "watch"])
        assert process.stdout
        assert process.stdout.readline().strip() == "ready"
        self._watchers.append(process)

    def seen(self) -> Counter[str]:
        """How many frames of each stream have arrived anywhere."""
        total: Counter[str] = Counter()
        for process in self._watchers:
            process.send_signal(signal.SIGUSR1)
            assert process.stdout
            assert process.stderr
            line = process.stdout.readline()
            assert line, process.stderr.read()
            for number, count in json.loads(line).items():
                total[self._names[int(number)]] += count
        return total

    def passing(self, names: Sequence[str]) -> None:
        """Wait until each of these streams passes."""
        before, deadline = self.seen(), time.monotonic() + _PATIENCE_S
        missing = list(names)
        while missing:
            assert time.monotonic() < deadline, f"{missing} do not pass"
            time.sleep(0.05)
            now = self.seen()
            missing = [name for name in missing if now[name] <= before[name]]


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], float(sys.argv[3]), [bytes.fromhex(text) for text in sys.argv[4:]])
    else:
        watch()
