"""Pings that go on while something happens, from and to VM 1 of the recordings, and what of them was not answered."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from tests.world.lab import Lab
from tests.world.vpc.vpc import CLIENT, SERVER

A, A_EIP, PUBLIC = "192.168.0.10", "192.168.0.250", "54.10.20.41"
"""The addresses of VM 1: of its first NIC, and of its second, which has an Elastic IP."""
SPACING_S = 0.02
_BOUND_S = 10
_PATIENCE_S = 60


class Lost(NamedTuple):
    """Pings that were not answered, of how many, and the longest time without an answer."""

    lost: int
    sent: int
    outage: float

    def __str__(self) -> str:
        return f"{self.lost} of {self.sent} lost, {self.outage:.2f} s without an answer"


class Ping:
    """A ping without end; its output is read as it comes, for a full pipe would stop it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.started = process, time.time()
        self.answers: list[float] = []
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            answer = re.match(r"\[([\d.]+)\] \d+ bytes from", line)
            if answer:
                self.answers.append(float(answer[1]))
            else:
                self.text += line

    def end(self) -> Lost:
        """End it and count."""
        ended = time.time()
        self.process.send_signal(signal.SIGINT)
        self._reader.join(30)
        self.process.wait(30)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", self.text)
        assert found, self.text
        # What a guest could not even send, being between two hosts, ping does not count: the time tells.
        times = sorted([self.started, *self.answers, ended])
        outage = max(later - earlier for earlier, later in pairwise(times))
        return Lost(int(found[1]) - int(found[2]), int(found[1]), outage)


def pinging(lab: Lab, without: str = "none") -> dict[str, Ping]:
    """Pings from and to VM 1 by what they are, not those `without` that word; each has been answered."""

    def command(source: str, target: str) -> list[str]:
        return ["ping", "-n", "-D", "-i", str(SPACING_S), "-I", source, target]

    spawn: dict[str, tuple[Callable[[list[str]], subprocess.Popen[str]], str, str]] = {
        f"Internet → {PUBLIC}": (lab.vpc.internet_spawn, CLIENT, PUBLIC),
        "VM → Internet": (lab.guest(1).spawn, A_EIP, SERVER),
        "VM on h3 → VM": (lab.guest(3).spawn, "192.168.0.103", A),
        "VM → VM on h3": (lab.guest(1).spawn, A_EIP, "192.168.0.203"),
        "VM on h1 → VM": (lab.guest(2).spawn, "192.168.0.102", A),
    }
    pings = {
        name: Ping(start(command(source, target)))
        for name, (start, source, target) in spawn.items()
        if without not in name
    }
    recovered(pings)
    return pings


def bound(lab: Lab) -> float:
    """Seconds without an answer that a migration may cost on a very busy machine, besides those that the address is late."""
    return _BOUND_S * lab.hosts["h1"].slowness


def recovered(pings: dict[str, Ping]) -> None:
    """Wait until all are answered again, but not for ever."""
    now = time.time()
    while time.time() < now + _PATIENCE_S and not all(ping.answers[-1:] > [now] for ping in pings.values()):
        time.sleep(0.05)
