"""Live migration with security groups in force: connections go on, also those that only one direction's rules allow."""

from __future__ import annotations

import re
import time

import pytest

from tests.lab.support import checks
from tests.lab.support.alive import live_migration, neighbour, unhealthy
from tests.lab.support.checks import Check, Report
from tests.lab.support.ethernet import DATA, END, SYN, ethernet, tcp4, udp4
from tests.lab.support.flood import Flood
from tests.lab.support.groups import EXCHANGE, answered, ended, grouped, grouped_all, inbound, outbound, ready, update
from tests.lab.support.pings import A_EIP, PUBLIC, A, Ping, bound, recovered
from tests.lab.support.segment import mac
from tests.lab.test_migration import STREAM, Running
from tests.lab.test_migration import ended as streams_ended
from tests.sampling import Sampler
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load
from tests.world.vpc.vpc import CLIENT, SERVER

IN, OUT = 7000, 7001
"""Only others begin connections to the one port, and only the VM to the other."""
RULES = (inbound("TCP", str(IN)), outbound("TCP", str(OUT)), outbound("UDP", str(OUT)), outbound("ICMP", ICMP_TYPE="8"))
PEERS = (outbound("TCP", str(IN)), inbound("TCP", str(OUT)), inbound("UDP", str(OUT)), inbound("ICMP", ICMP_TYPE="8"))
DOCUMENT = grouped(load("deploy").steps[-1].xml or b"", *RULES)
IDLE_S, LONG_IDLE_S = 12, 60
_KINDS = {SYN: "SYN", DATA: "data", END: "end"}
_PICKED_UP = f"cookie={0xAB << 56:#x}/{0xFF << 56:#x}"


def deploy(lab: Lab) -> None:
    """VM 1 on h1, VM 2 beside it, VM 3 on h3, all with groups."""
    for vm_id, host in ((2, "h1"), (3, "h3")):
        lab.play(grouped_all(neighbour(vm_id, host), *PEERS))
    lab.play(grouped_all(load("deploy"), *RULES))
    for name in lab.hosts:
        lab.tunnels(name)


def streams(lab: Lab, idle: int) -> Running:
    """TCP connections begun by either side, in which either side sends, all the time or with a pause."""
    started: Running = {}
    for direction in ("out", "in"):
        for seconds in (0, idle):
            for name, spawn, source, target, port in (
                ("Internet → VM", lab.vpc.internet_spawn, CLIENT, PUBLIC, IN),
                ("VM → Internet", lab.guest(1).spawn, A_EIP, SERVER, OUT),
                ("VM on h3 → VM", lab.guest(3).spawn, "192.168.0.103", A, IN),
                ("VM on h1 → VM", lab.guest(2).spawn, "192.168.0.202", A_EIP, IN),
                ("VM → VM on h1", lab.guest(1).spawn, A, "192.168.0.102", OUT),
                ("VM → VM on h3", lab.guest(1).spawn, A_EIP, "192.168.0.203", OUT),
            ):
                what = f"TCP {name}, data {direction}, idle for {seconds} s"
                started[what] = spawn([*STREAM, "connect", source, target, str(port), direction, str(seconds)])
    for process in started.values():
        ready(process)
    return started


def exchanges(lab: Lab) -> Running:
    """UDP packets that the VM sends and gets answers to."""
    targets = {"Internet": (A_EIP, SERVER), "VM on h3": (A, "192.168.0.103"), "VM on h1": (A_EIP, "192.168.0.202")}
    started = {
        f"UDP VM → {name}": lab.guest(1).spawn([*EXCHANGE, "ask", source, target, str(OUT)])
        for name, (source, target) in targets.items()
    }
    for process in started.values():
        ready(process)
    return started


def pings(lab: Lab) -> dict[str, Ping]:
    """Pings that the VM sends."""
    return {
        f"ping VM → {target}": Ping(lab.guest(1).spawn(["ping", "-n", "-D", "-i", "0.05", "-I", source, target]))
        for source, target in ((A_EIP, SERVER), (A, "192.168.0.103"))
    }


@pytest.mark.parametrize("late", [0, 1, 2])
def test_what_groups_allow_survives_a_migration(fresh_lab: Lab, report: Report, sampler: Sampler, late: int) -> None:
    """AWS moves the VM's private address `late` seconds after it was told to."""
    lab, idle = fresh_lab, LONG_IDLE_S if sampler.whole and not late else IDLE_S
    deploy(lab)
    with checks.Web() as servers:
        for spawn in (lab.guest(1).spawn, lab.guest(2).spawn, lab.guest(3).spawn, lab.vpc.internet_spawn):
            for port in (IN, OUT):
                servers.serve(spawn([*STREAM, "listen", str(port)]))
            servers.serve(spawn([*EXCHANGE, "answer", str(OUT)]))
        running = streams(lab, idle)
        resumed = time.monotonic() + idle + 2
        asking, pinging = exchanges(lab), pings(lab)
        lab.vpc.set_delay(late)
        lab.play(live_migration(DOCUMENT, "h1", "h2"))
        recovered(pinging)
        found = [
            Check(name, (seen := ping.end()).outage <= bound(lab) + late, str(seen)) for name, ping in pinging.items()
        ]
        lab.vpc.set_delay(0)
        time.sleep(max(0.0, resumed - time.monotonic()))
        before = answered(asking)
        time.sleep(1)
        after = answered(asking)
        found += [Check(name, after[name] > before[name], f"{after[name]} answered") for name in asking]
        ended(asking)
        found += streams_ended(running)
    report(found)
    assert [str(check) for check in found if not check.passed] == []
    assert unhealthy(lab) == []


def _frames(
    flood: Flood, name: str, source: str, target: str, segments: tuple[tuple[int, int, int], ...]
) -> list[bytes]:
    """TCP segments, each from a port to a port with flags, and a UDP packet to a port that no rule allows."""
    packets = [
        tcp4(source, target, (own, port), flags, flood.mark(f"{name}, {_KINDS[flags]} {own}-{port}"))
        for own, port, flags in segments
    ]
    packets.append(udp4(source, target, (OUT, 9), flood.mark(f"{name}, UDP")))
    return [ethernet(mac(target), mac(source), 0x0800, packet) for packet in packets]


def _timeouts(host: Host) -> list[int]:
    """How long each flow that picks up connections has at most."""
    script = f"for bridge in onebr1 ovsbr0; do ovs-ofctl dump-flows $bridge {_PICKED_UP}; done"
    lines = [line for line in host.run(["sh", "-ec", script]).stdout.splitlines() if "table=" in line]
    return [int(re.findall(r"hard_timeout=(\d+)", line)[0]) for line in lines]


def test_what_is_picked_up_is_bounded_in_kind_and_time(fresh_lab: Lab) -> None:
    """Guests send no RST here, by which they would make a connection of a segment that is of none."""
    lab, peer = fresh_lab, "192.168.0.103"
    lab.play(neighbour(3, "h3"))
    lab.play(grouped_all(load("deploy"), *RULES))
    answers = [f"in, data {OUT}-5555", f"in, end {OUT}-6666", f"out, data {IN}-5555"]
    with Flood() as flood:
        for vm_id in (1, 3):
            quiet = "nft add table ip t; nft add chain ip t o '{ type filter hook output priority 0; }'"
            lab.guest(vm_id).run(["sh", "-ec", f"{quiet}; nft add rule ip t o 'tcp flags & rst == rst drop'"])
            flood.watch(lab.guest(vm_id).spawn)
        inward = (
            (OUT, 5555, SYN),
            (OUT, 5555, DATA),
            (OUT, 6666, END),
            (5000, 5555, DATA),
            (IN, 5555, DATA),
            (40000, IN, SYN),
        )
        outward = ((IN, 5555, SYN), (IN, 5555, DATA), (5000, 5555, DATA), (OUT, 5555, DATA))
        flood.send(lab.guest(3).spawn, "eth0", _frames(flood, "in", peer, A, inward))
        flood.send(lab.guest(1).spawn, "eth0", _frames(flood, "out", A, peer, outward))
        allowed = f"in, SYN 40000-{IN}"
        flood.passing([allowed])
        assert set(flood.seen()) == {allowed}, "a VM that has just started has nothing to pick up"
        lab.play(live_migration(DOCUMENT, "h1", "h2"))
        flood.passing([allowed, *answers])
        timeouts = _timeouts(lab.hosts["h2"])
        assert min(timeouts) >= 290
        assert max(timeouts) <= 300
        lab.hosts["h2"].run(["aws-ovs", "restore"])
        assert lab.driver("h2", "update_sg", ("one-1",), DOCUMENT).stderr == ""
        flood.passing([allowed, *answers])
        assert len(_timeouts(lab.hosts["h2"])) == len(timeouts)
        assert max(_timeouts(lab.hosts["h2"])) <= max(timeouts)
        for bridge in ("onebr1", "ovsbr0"):  # as if the time were over
            lab.hosts["h2"].run(["ovs-ofctl", "del-flows", bridge, _PICKED_UP])
        time.sleep(0.5)
        over = flood.seen()
        flood.passing([allowed])
        assert {name for name, count in flood.seen().items() if count > over[name]} == {allowed}
        assert set(over) == {allowed, *answers}


def _arrives(lab: Lab, vm_id: int, port: int, patiently: bool) -> bool:
    """Whether anything of a TCP connection arrives at a VM within a second, or within the time in which it is sent again."""
    seconds = 40 if patiently else 1
    sniffer = ["sh", "-c", f"timeout {seconds} tcpdump -n -c 1 -i any -Q in tcp port {port} 2>/dev/null"]
    return bool(lab.guest(vm_id).run(sniffer, check=False).stdout.strip())


def test_what_is_picked_up_counts_as_begun_by_who_began_it(fresh_lab: Lab) -> None:
    """Rules let each of two connections begin either way, and first speaks who has not begun it: then one rule goes."""
    lab = fresh_lab
    others, own = (inbound("TCP", f"{IN},32768:65535"), outbound("ALL"))
    lab.play(neighbour(3, "h3"))
    lab.play(grouped_all(load("deploy"), others, own))
    document = grouped(DOCUMENT, others, own)
    with checks.Web() as servers:
        servers.serve(lab.guest(1).spawn([*STREAM, "listen", str(IN)]))
        servers.serve(lab.guest(3).spawn([*STREAM, "listen", str(OUT)]))
        running = {
            "VM on h3 → VM": lab.guest(3).spawn([*STREAM, "connect", "192.168.0.103", A, str(IN), "in"]),
            "VM → VM on h3": lab.guest(1).spawn([*STREAM, "connect", A, "192.168.0.103", str(OUT), "in"]),
        }
        for process in running.values():
            ready(process)
        lab.play(live_migration(document, "h1", "h2"))
        for rules, passes in (
            ((others, own), (True, True)),
            ((own,), (False, True)),
            ((others,), (True, False)),
            ((others, own), (True, True)),
        ):
            assert update(lab, "h2", grouped(DOCUMENT, *rules)) == ""
            ways = zip(((3, IN), (1, OUT)), passes, strict=True)
            assert tuple(_arrives(lab, *way, patiently=goes_on) for way, goes_on in ways) == passes, rules
        assert [str(check) for check in streams_ended(running) if not check.passed] == []
