"""The VPC, its Internet gateway and the Internet, as the tests use them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

from tests.world.ec2.region import Ec2World, Instance

from .router import INTERNET, INTERNET_MAC, ROUTER_MAC, VPC_MTU

CLIENT, SERVER = "203.0.113.10", "203.0.113.20"
_INTERNET = f"""
ip link set lo up
ip address add {CLIENT}/24 dev inet0
ip address add {SERVER}/24 dev inet0
ip link set inet0 up
ip neigh replace 203.0.113.1 lladdr {ROUTER_MAC.hex(":")} nud permanent dev inet0
ip route add default via 203.0.113.1 dev inet0
"""


def router_address(subnet: str) -> str:
    """The router of a subnet: its first address."""
    address = subnet.partition("/")[0].split(".")
    return ".".join([*address[:3], str(int(address[3]) + 1)])


class Eni(NamedTuple):
    """An ENI beside the first of an instance."""

    eni_id: str
    mac: str
    address: str
    attachment_id: str


class Vpc:
    """The fabric between the hosts.

    Args:
        ec2: whose state it acts on.
        delay: seconds between a change in EC2 and its effect.
    """

    def __init__(self, ec2: Ec2World, delay: float = 0.0) -> None:
        here, there = socket.socketpair()
        die_with_us = ["setpriv", "--pdeathsig", "KILL"]
        self._process = subprocess.Popen(
            [
                *die_with_us,
                sys.executable,
                "-m",
                "tests.world.vpc.fabric",
                str(there.fileno()),
                ec2.endpoint,
                ec2.vpc_cidr,
                router_address(ec2.subnet_cidr),
            ],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
        )
        there.close()
        here.settimeout(60)
        self._control, self._replies = here, here.makefile("rb")
        self._internet = subprocess.Popen([*die_with_us, "unshare", "--net", "sleep", "infinity"])
        self.internet_pid = self._internet.pid
        self.set_delay(delay)
        self._wait_for_internet()
        self._ask("attach", port=INTERNET, mac=INTERNET_MAC.hex(":"), pid=self.internet_pid, ifname="inet0", mtu=1500)
        self.internet(["sh", "-ec", _INTERNET])

    def _wait_for_internet(self) -> None:
        own = subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True).stdout
        while (
            subprocess.run(
                ["readlink", f"/proc/{self.internet_pid}/ns/net"], capture_output=True, text=True, check=True
            ).stdout
            == own
        ):
            pass

    def __enter__(self) -> Vpc:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the fabric and the Internet."""
        for process in (self._process, self._internet):
            process.kill()
            process.wait()
        self._replies.close()
        self._control.close()

    def _ask(self, verb: str, **arguments: object) -> Any:
        self._control.sendall(json.dumps({"do": verb, **arguments}).encode() + b"\n")
        line = self._replies.readline()
        if not line:
            raise RuntimeError("the fabric has died")
        return json.loads(line)

    def attach(self, instance: Instance, netns_pid: int, ifname: str = "ens5") -> None:
        """Put the instance's ENI into the network namespace of `netns_pid`."""
        self._ask("attach", port=instance.eni_id, mac=instance.mac, pid=netns_pid, ifname=ifname, mtu=VPC_MTU)

    def attach_further(self, eni: Eni, netns_pid: int, ifname: str) -> None:
        """Put a further ENI into a network namespace, as the device of that name; it is down, as a new one is."""
        self._ask("attach", port=eni.eni_id, mac=eni.mac, pid=netns_pid, ifname=ifname, mtu=1500)

    def detach(self, eni: Eni) -> None:
        """Take an ENI away from whoever has it."""
        self._ask("detach", port=eni.eni_id)

    def set_delay(self, seconds: float) -> None:
        """From now on changes in EC2 take this long to have an effect."""
        self._ask("delay", seconds=seconds)

    def set_internet_mtu(self, mtu: int) -> None:
        """Give a hop behind the gateway this MTU; 1500 is none."""
        self._ask("internet_mtu", mtu=mtu)

    def settle(self) -> None:
        """Return when the fabric acts on EC2's state as it is now."""
        self._ask("settle")

    def drops(self) -> dict[str, int]:
        """Packets dropped since the start, by reason."""
        return dict(self._ask("drops"))

    def last_drops(self, reason: str) -> list[str]:
        """The last packets dropped for a reason."""
        return list(self._ask("last", reason=reason))

    def delivered(self) -> dict[str, int]:
        """Packets delivered to each ENI."""
        return dict(self._ask("delivered"))

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", str(self.internet_pid), "--net", *argv]

    def internet(
        self, argv: Sequence[str], *, timeout: float = 30, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the Internet."""
        done = subprocess.run(
            self._inside(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{' '.join(argv)[:300]}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    def internet_spawn(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command on the Internet."""
        return subprocess.Popen(
            self._inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
