"""Whatever happens to a VM and its node, nothing passes at any time that its security groups do not let pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.lab.support import promise
from tests.lab.support.alive import Neighbours, cold_migration, live_migration
from tests.lab.support.ethernet import SYN, ethernet, tcp4, udp4
from tests.lab.support.flood import Flood, Spawn
from tests.lab.support.groups import grouped, grouped_all, inbound, outbound, update
from tests.lab.support.pings import A_EIP, PUBLIC, A
from tests.lab.support.segment import mac
from tests.world.guests.guest import Guest
from tests.world.lab import Lab
from tests.world.recording import Recording, Step, load, substitute
from tests.world.vpc.router import INTERNET_MAC, ROUTER_MAC
from tests.world.vpc.vpc import CLIENT, SERVER

OPEN, CLOSED, OUT = 7000, 9, 7001
RULES = (inbound("TCP", str(OPEN)), inbound("UDP", str(OPEN)), outbound("UDP", str(OUT)))
OTHERS = (*RULES, inbound("TCP", "22"), outbound("ALL", IP="198.51.100.0", SIZE="256"))
DOCUMENT = grouped(load("deploy").steps[-1].xml or b"", *RULES)
ATTACH = substitute(grouped_all(load("attach-nic"), *RULES), hosts={"h2": "h1"})
ATTACHED = "192.168.0.11"
GATEWAY_MAC = "02:a5:0e:00:00:01"


class Probes:
    """Senders on both sides of VM 1, which begin before it does: to a port that its rules let pass, and to one that not.

    Attributes:
        inward, outward: streams that must pass.
    """

    def __init__(self, lab: Lab, flood: Flood) -> None:
        self.lab, self.flood = lab, flood
        guest = Guest(1)
        lab.hypervisor.guests[1] = guest  # it stays the same, so whoever listens in it hears all
        self.inward: list[str] = []
        self.outward: list[str] = []
        for machine in (guest.spawn, lab.guest(2).spawn, lab.guest(3).spawn, lab.vpc.internet_spawn):
            flood.watch(machine)
        client, to_router = INTERNET_MAC.hex(":"), ROUTER_MAC.hex(":")
        self._inward("Internet", lab.vpc.internet_spawn, "inet0", (client, CLIENT), (to_router, PUBLIC))
        for vm_id in (2, 3):
            for device, net, target in (("eth0", 10, A), ("eth1", 20, A_EIP), ("eth0", 10, ATTACHED)):
                source = f"192.168.0.{net}{vm_id}"
                name = f"VM {vm_id} → {target}"
                self._inward(name, lab.guest(vm_id).spawn, device, (mac(source), source), (mac(target), target))
            for device, net, source in (("eth0", 10, A), ("eth1", 20, A_EIP)):
                target = f"192.168.0.{net}{vm_id}"
                self._outward(guest.spawn, device, source, (mac(target), target))
        self._outward(guest.spawn, "eth1", A_EIP, (GATEWAY_MAC, SERVER))

    def _inward(self, name: str, spawn: Spawn, device: str, source: tuple[str, str], target: tuple[str, str]) -> None:
        if not name.endswith(ATTACHED):
            self.inward += [f"{name}, TCP {OPEN}", f"{name}, UDP {OPEN}"]
        self.flood.send(spawn, device, [*self._frames(name, source, target, OPEN), *self._closed(name, source, target)])

    def _outward(self, spawn: Spawn, device: str, source: str, target: tuple[str, str]) -> None:
        name, own = f"VM 1 → {target[1]}", (mac(source), source)
        udp, _ = self._frames(name, own, target, OUT)
        self.outward.append(f"{name}, UDP {OUT}")
        self.flood.send(spawn, device, [udp, *self._closed(name, own, target)])

    def _closed(self, name: str, source: tuple[str, str], target: tuple[str, str]) -> Iterator[bytes]:
        return self._frames(name, source, target, CLOSED)

    def _frames(self, name: str, source: tuple[str, str], target: tuple[str, str], port: int) -> Iterator[bytes]:
        ends, ports = (source[1], target[1]), (40000, port)
        for packet in (
            udp4(*ends, ports, self.flood.mark(f"{name}, UDP {port}")),
            tcp4(*ends, ports, SYN, self.flood.mark(f"{name}, TCP {port}")),
        ):
            yield ethernet(target[0], source[0], 0x0800, packet)

    def passing(self) -> None:
        """Wait until what may pass does."""
        self.flood.passing([*self.inward, *self.outward])

    def leaks(self) -> dict[str, int]:
        """What has passed and must not have."""
        return {name: count for name, count in self.flood.seen().items() if name.endswith(f" {CLOSED}")}


def _resume(document: bytes, host: str) -> Recording:
    """Start the guest that is there; it has not been plugged in anywhere."""
    xml = promise.on_host(document, host)
    plug = Step("vmm-restore", None, ("checkpoint", host, "one-1", "1", host), None)
    return Recording("resume", (Step("pre", host, (), xml), plug, Step("post", host, ("one-1", host), xml)))


def _updates(lab: Lab) -> None:
    for rules in (OTHERS, RULES, OTHERS, RULES):
        assert update(lab, "h1", grouped(DOCUMENT, *rules)) == ""
    assert lab.driver("h1", "update_nic", ("one-1", "0"), DOCUMENT).returncode == 0


def _restores(lab: Lab) -> None:
    for _ in range(2):
        lab.hosts["h1"].run(["aws-ovs", "restore"])


def _restart(lab: Lab) -> None:
    lab.hosts["h1"].restart_ovs()
    lab.hosts["h1"].run(["aws-ovs", "restore"])


def _crash(lab: Lab) -> None:
    lab.hosts["h1"].kill_ovs("ovs-vswitchd")
    lab.hosts["h1"].start_ovs()
    lab.hosts["h1"].run(["aws-ovs", "restore"])


def _detach(lab: Lab) -> None:
    lab.play(grouped_all(load("detach-nic"), *RULES))


STAGES: dict[str, Callable[[Lab], None]] = {
    "deploy": lambda lab: lab.play(_resume(DOCUMENT, "h1")),
    "updates": _updates,
    "attach": lambda lab: lab.play(ATTACH),
    "detach": _detach,
    "restore": _restores,
    "restart of Open vSwitch": _restart,
    "crash of ovs-vswitchd": _crash,
    "live migration": lambda lab: lab.play(live_migration(DOCUMENT, "h1", "h2")),
    "live migration back": lambda lab: lab.play(live_migration(DOCUMENT, "h2", "h1")),
    "cold migration": lambda lab: lab.play(cold_migration(DOCUMENT, "h1", "h2")),
}


def test_at_no_time_passes_what_groups_do_not_let_pass(fresh_lab: Lab) -> None:
    lab = fresh_lab
    Neighbours(lab)
    with Flood() as flood:
        probes = Probes(lab, flood)
        for stage, do in STAGES.items():
            do(lab)
            print(f"after {stage}")  # for whoever reads why something does not pass
            probes.passing()
            assert probes.leaks() == {}, stage
        save, clean, *_ = cold_migration(DOCUMENT, "h2", "h3").steps
        lab.play(Recording("suspend", (save, clean)), follow=False)
        assert probes.leaks() == {}
