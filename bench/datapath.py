"""What the driver's flows cost a packet: between two VMs on two hosts, beside a plain bridge in the same kernels.

Both ways lead through Open vSwitch's kernel module and a VXLAN tunnel. The plain bridge has one rule, NORMAL, and its tunnel
one key. The two are measured in turns, and what counts is the ratio: the hosts are emulated, so the figures themselves
say little.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence

from tests.lab.support import promise
from tests.world.guests import document
from tests.world.hosts import datapath
from tests.world.hosts.host import Host
from tests.world.lab import ACTIONS, Lab
from tests.world.recording import load

ROUNDS = 9
SECONDS = 3
PINGS = 200
TARGET = 0.95
_MTU = 1450
_PLAIN_KEY = 7777

# Arguments: namespace, device on the host, bridge, MAC, address, MTU. The VM is a namespace on the host itself.
_PLUG = """
ip netns add "$1"
ip link add "$2" type veth peer name eth0 netns "$1"
ip -n "$1" link set eth0 address "$4" mtu "$6" up
ip -n "$1" address add "$5/24" dev eth0
ip link set "$2" up
ovs-vsctl add-port "$3" "$2"
"""


class Way:
    """A way between two VMs, one on each host: the namespaces that they are have its name."""

    def __init__(self, name: str, hosts: Sequence[Host], addresses: Sequence[str]) -> None:
        self.name, self.hosts, self.addresses = name, hosts, addresses
        self.rates: list[float] = []

    def plug(self, number: int, device: str, bridge: str, mac: str) -> None:
        """Start one of the VMs."""
        words = [self.name, device, bridge, mac, self.addresses[number], str(_MTU)]
        self.hosts[number].run(["sh", "-ec", _PLUG, "sh", *words])

    def serve(self) -> None:
        """Let the second VM take what the first sends."""
        self.hosts[1].run(["ip", "netns", "exec", self.name, "iperf3", "--server", "--daemon"])

    def transfer(self) -> float:
        """Mbit/s of a TCP connection."""
        client = ["iperf3", "--json", "--time", str(SECONDS), "--client", self.addresses[1]]
        told = json.loads(self.hosts[0].run(["ip", "netns", "exec", self.name, *client]).stdout)
        return float(told["end"]["sum_received"]["bits_per_second"]) / 1e6

    def round_trip(self) -> float:
        """Median microseconds of a ping."""
        ping = ["ping", "-n", "-i", "0.01", "-c", str(PINGS), self.addresses[1]]
        lines = self.hosts[0].run(["ip", "netns", "exec", self.name, *ping]).stdout.splitlines()
        times = [float(line.rpartition("time=")[2].split()[0]) for line in lines if "time=" in line]
        return statistics.median(times) * 1000


def deploy(lab: Lab, way: Way, vms: Sequence[bytes]) -> None:
    """Start two VMs of one NIC each, as OpenNebula does."""
    for number, (host, vm) in enumerate(zip(way.hosts, vms, strict=True)):
        xml = promise.on_host(vm, host.name)
        (card,) = document.parse(xml).cards
        for verb, argv in (("pre", []), ("post", [card.target.rpartition("-")[0], host.name])):
            if verb == "post":
                way.plug(number, card.target, card.bridge, card.mac)
            done = lab.driver(host.name, verb, argv, xml)
            if done.returncode:
                raise RuntimeError(f"{ACTIONS}/{verb}: {done.stderr.strip()}")


def _driver(lab: Lab, hosts: Sequence[Host]) -> Way:
    recorded = load("deploy").steps[-1].xml or b""
    way = Way("driver", hosts, ["192.168.0.101", "192.168.0.102"])
    deploy(lab, way, [promise.other_vm(recorded, 1, number, f"192.168.0.{100 + number}") for number in (1, 2)])
    return way


def _plain(hosts: Sequence[Host]) -> Way:
    way = Way("plain", hosts, ["192.168.9.101", "192.168.9.102"])
    for number, host in enumerate(hosts):
        peer = hosts[1 - number].instance.private_ip
        tunnel = f"type=vxlan options:key={_PLAIN_KEY} options:remote_ip={peer}"
        host.run(f"ovs-vsctl add-br br-plain -- add-port br-plain vx-plain -- set Interface vx-plain {tunnel}".split())
        way.plug(number, "plain0", "br-plain", f"02:00:00:00:99:0{number + 1}")
    return way


def measure(lab: Lab) -> dict[str, float]:
    """The figures by name: Mbit/s, microseconds, and the driver's throughput as a part of the plain bridge's."""
    hosts = [lab.hosts["h1"], lab.hosts["h2"]]
    ways = [_plain(hosts), _driver(lab, hosts)]
    for way in ways:
        way.serve()
        way.transfer()  # flows get into the kernel, neighbours are found
    for turn in range(ROUNDS):
        for way in ways if turn % 2 else reversed(ways):
            way.rates.append(way.transfer())
    plain, driver = (statistics.median(way.rates) for way in ways)
    found = {"datapath.plain_mbit": plain, "datapath.driver_mbit": driver, "datapath.kernel_ratio": driver / plain}
    return found | {f"datapath.{way.name}_rtt_us": way.round_trip() for way in ways}


def main() -> dict[str, dict[str, float | str]]:
    """Measure; the results in the form in which they are kept."""
    print("==> the kernel datapath: two hosts with a kernel of their own", flush=True)
    try:
        with Lab(hosts=2, kind=datapath.KERNEL) as lab:
            found = measure(lab)
    except datapath.UnavailableError as missing:
        print(f"NOT RUN: {missing}", file=sys.stderr)
        return {}
    units = {"mbit": "Mbit/s", "ratio": "ratio", "us": "us"}
    results: dict[str, dict[str, float | str]] = {
        name: {"value": round(value, 3), "unit": units[name.rpartition("_")[2]]} for name, value in found.items()
    }
    results["datapath.kernel_ratio"]["target"] = f">= {TARGET}"
    return results
