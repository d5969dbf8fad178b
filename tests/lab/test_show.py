"""`aws-ovs show`: peers with the state of their tunnels, networks, VMs with their addresses; and that a dead peer is seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.lab.support import checks, promise
from tests.lab.test_probe import probe
from tests.world.hosts.host import Host
from tests.world.lab import Lab
from tests.world.recording import load

DEPLOY = load("deploy")
DOCUMENT = DEPLOY.steps[-1].xml or b""
A_EIP, NEIGHBOUR = "192.168.0.250", "192.168.0.60"


def show(host: Host) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(host.run(["aws-ovs", "show", "--json"]).stdout)
    return shown


def states(host: Host) -> dict[str, str]:
    return {peer["name"]: peer["state"] for peer in show(host)["peers"]}


def table(host: Host, first: str) -> list[list[str]]:
    """The words of the lines of one of the tables; `first` is the first word of its head."""
    parts = host.run(["aws-ovs", "show"]).stdout.split("\n\n")
    (found,) = [part for part in parts if part.startswith(f"{first} ")]
    return [line.split() for line in found.splitlines()]


def eventually(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_tunnels_are_up_and_the_node_is_itself(fresh_lab: Lab) -> None:
    assert fresh_lab.tunnels("h2") == {"h1": "up", "h2": "self", "h3": "up"}
    head, *lines = table(fresh_lab.hosts["h2"], "PEER")
    assert head == ["PEER", "VTEP", "TUNNEL", "RX_PACKETS", "TX_PACKETS", "RX_BYTES", "TX_BYTES"]
    assert [line[:3] for line in lines] == [
        ["h1", "10.0.0.11", "up"],
        ["h2", "10.0.0.12", "self"],
        ["h3", "10.0.0.13", "up"],
    ]


def test_a_tunnel_that_is_not_there_is_missing(fresh_lab: Lab) -> None:
    host = fresh_lab.hosts["h1"]
    fresh_lab.tunnels("h1")
    host.run(["ovs-vsctl", "del-port", "vx-0a00000c"])
    assert states(host) == {"h1": "self", "h2": "missing", "h3": "up"}
    host.run(["aws-ovs", "restore"])
    eventually(lambda: states(host)["h2"] == "up", "the tunnel comes up again")


def test_a_dead_peer_is_down_until_it_is_back(fresh_lab: Lab) -> None:
    host, peer = fresh_lab.hosts["h1"], fresh_lab.hosts["h2"]
    assert fresh_lab.tunnels("h1") == {"h1": "self", "h2": "up", "h3": "up"}
    peer.kill_ovs("ovs-vswitchd")
    try:
        eventually(lambda: states(host) == {"h1": "self", "h2": "down", "h3": "up"}, "h2 is seen to be down")
        assert (probe(host)["PEERS_UP"], probe(host)["PEERS_DOWN"]) == ("1", "1")
        done = host.run(["aws-ovs", "check"], check=False)
        assert done.returncode == 1
        assert done.stdout.startswith("the tunnel to h2 (10.0.0.12) is down; look whether h2 runs")
        assert len(done.stdout.splitlines()) == 1
        # The database of the dead one itself still says that all is up.
        assert states(peer) == {"h1": "down", "h2": "self", "h3": "down"}
    finally:
        peer.start_ovs()
    eventually(lambda: states(host)["h2"] == "up", "h2 is seen to be up again")
    assert (probe(host)["PEERS_UP"], probe(host)["PEERS_DOWN"]) == ("2", "0")
    peer.run(["aws-ovs", "restore"])
    for name in fresh_lab.hosts:
        assert "down" not in fresh_lab.tunnels(name).values()
        assert fresh_lab.hosts[name].run(["aws-ovs", "check"]).stdout.startswith("ok: ")


def test_counters_grow_with_the_traffic_between_hosts(fresh_lab: Lab) -> None:
    lab = fresh_lab
    host = lab.hosts["h1"]
    lab.play(DEPLOY)
    neighbour = promise.other_vm(DOCUMENT, 1, 2, NEIGHBOUR)
    lab.play(promise.deploy(neighbour, "h2"))
    lab.tunnels("h1")

    def counters() -> list[int]:
        (peer,) = [peer for peer in show(host)["peers"] if peer["name"] == "h2"]
        return [peer[key] for key in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")]

    before = counters()
    assert checks.reaches(checks.ping(lab.guest(1), A_EIP, NEIGHBOUR, size=1000, count=20))
    wanted = [one + more for one, more in zip(before, (20, 20, 20_000, 20_000), strict=True)]
    # Open vSwitch writes them down every few seconds.
    eventually(lambda: all(one >= two for one, two in zip(counters(), wanted, strict=True)), f"{wanted} are reached")


def test_networks_vms_and_their_addresses(fresh_lab: Lab) -> None:
    lab = fresh_lab
    host = lab.hosts["h1"]
    lab.play(DEPLOY)
    head, *networks = table(host, "BRIDGE")
    assert (head, networks) == (["BRIDGE", "VNI", "PORTS"], [["onebr1", "1048577", "1"], ["ovsbr0", "100", "1"]])
    head, *ports = table(host, "VM")
    assert head == ["VM", "NIC", "PORT", "BRIDGE", "VNI", "IP", "AWS_PRIVATE_IP", "OUTSIDE", "REFUSED", "DROPPED"]
    assert ports == [
        ["1", "0", "one-1-0", "onebr1", "1048577", "192.168.0.10", "198.18.0.1", "0", "0"],  # no AWS_PRIVATE_IP
        ["1", "1", "one-1-1", "ovsbr0", "100", "192.168.0.250", "10.0.0.41", "10.0.0.41", "0", "0"],
    ]
    head, *ports = table(host, "PORT")
    assert head == ["PORT", "GROUPS", "CONNECTIONS", "LIMIT", "DROPPED", "REFUSED_IN", "REFUSED_OUT"]
    assert ports == [["one-1-0", "open"], ["one-1-1", "open"]]
    shown = show(host)
    assert [port["plugged"] for port in shown["ports"]] == [True, True]
    assert shown["ports"][1]["reaches"] == [
        {"ip": "192.168.0.250", "aws_private_ip": "10.0.0.41", "outside": "10.0.0.41"}
    ]


def test_an_elastic_ip_shared_by_ports_is_shown_with_them(fresh_lab: Lab) -> None:
    recording = load("deploy-ports")
    fresh_lab.play(recording)
    (name,) = {step.runs_on for step in recording.steps if step.runs_on}
    ports = table(fresh_lab.hosts[name], "VM")[1:]
    assert ["192.168.0.120", "10.0.0.45:9001-9010", "198.18.0.1"] in [line[5:8] for line in ports]
