"""`check`: what is not as it should be on this node, each with its remedy. It changes nothing."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import AwsOvsError
from ..overlay import bridges, pipeline, tunnels
from ..overlay.guest_port import GuestPort
from ..overlay.ovsdb import as_dict, as_list, select
from ..underlay import kernel
from . import node as node_module
from . import state
from .node import Node

_RESTORE = "run 'aws-ovs restore'"
_FLOW_FAILURE = "ovs-ofctl cannot compare the flows of bridge {} ({})"


class Difference(NamedTuple):
    """Something that is not as it should be, and what to do."""

    what: str
    remedy: str = _RESTORE


def run(node: Node, as_json: bool) -> int:
    """Print the differences.

    Returns:
        the exit code: 1 when there are any.
    """
    found = list(differences(node))
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=2))
    else:
        for one in found:
            print(f"{one.what}; {one.remedy}")
        if not found:
            print("ok: everything on this node is as it should be")
    return 1 if found else 0


def differences(node: Node) -> Iterator[Difference]:
    """Everything that differs, the base first."""
    running = node_module.vswitchd()
    if running == node_module.NOT_RUNNING:
        yield Difference("ovs-vswitchd does not run", "start it: systemctl start openvswitch-switch")
        return
    yield from _marker(node)
    ports = state.everything()
    yield from _files()
    for plan in node.plans(ports):
        yield from map(Difference, plan.reasons)
    yield from _peers(node)
    yield from _strangers(node)
    yield from _plugged(node, ports)
    yield from _flows(node, ports)
    settings = node.config
    yield from map(
        Difference,
        kernel.differences(node.underlay, settings.gateway_mac, settings.transit_range, settings.internet_mtu),
    )


def _marker(node: Node) -> Iterator[Difference]:
    """Whether the node was built for what it is now."""
    built, now = node_module.read_marker(), node.marker()
    if built is None:
        yield Difference("this node has not been set up since it booted")
        return
    named = {
        "version": "the driver",
        "config": "aws_ovs.yaml",
        "underlay": "the ENI (name, address, subnet, MTU)",
        "ovs-vswitchd": "the process of ovs-vswitchd (PID, start)",
    }
    for key, name in named.items():
        if built.get(key) != now[key]:
            yield Difference(f"{name} is {_short(now[key])}, but this node was set up for {_short(built.get(key))}")


def _short(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _files() -> Iterator[Difference]:
    for vm_id in state.damaged():
        yield Difference(
            f"the file of VM {vm_id} in {state.DIRECTORY} is damaged",
            f"let OpenNebula write it anew: 'onevm poweroff {vm_id}' and 'onevm resume {vm_id}', or migrate it",
        )


def _peers(node: Node) -> Iterator[Difference]:
    """Tunnels that are there and carry nothing."""
    peers, seen = tunnels.load(), tunnels.observe(node.db)
    own = node.underlay.address
    if not any(peer.vtep == own for peer in peers):
        yield Difference(f"the peer list lacks this node ({own})", "run 'oneaws mesh sync --all' on the front-end")
    for peer in peers:
        tunnel = seen.get(peer.name)
        if peer.vtep != own and tunnel is not None and tunnel.state != "up":
            yield Difference(
                f"the tunnel to {peer.name} ({peer.vtep}) is {tunnel.state}",
                f"look whether {peer.name} runs and has this node as a peer, and allow UDP 4789 among the hosts",
            )


def _strangers(node: Node) -> Iterator[Difference]:
    """Other VXLAN ports, which take the tunnels' packets."""
    columns = ["name", "options", "external_ids"]
    for row in node.db.transact([select("Interface", [["type", "==", "vxlan"]], columns)])[0]:
        ours = as_dict(row["external_ids"]).get(bridges.ROLE) == "tunnel"
        if not ours and as_dict(row["options"]).get("dst_port", "4789") == "4789":
            yield Difference(
                f"VXLAN port {row['name']} of Open vSwitch is not the driver's and has its UDP port 4789",
                f"remove it: ovs-vsctl del-port {row['name']}",
            )
    for name in kernel.vxlan_devices(4789):
        yield Difference(
            f"VXLAN device {name} of the kernel has the driver's UDP port 4789", f"remove it: ip link del {name}"
        )


def _plugged(node: Node, ports: list[GuestPort]) -> Iterator[Difference]:
    """Guest ports as they are plugged in and marked."""
    columns = ["_uuid", "name", "ofport", "external_ids", "error"]
    found, bound, on = node.db.transact(
        [
            select("Interface", [], columns),
            select("Port", [], ["_uuid", "name"]),
            select("Bridge", [], ["name", "ports", "external_ids"]),
        ]
    )
    interfaces = {row["name"]: row for row in found}
    names = {str(row["_uuid"]): row["name"] for row in bound}
    bridge_of = {names[str(one)]: row["name"] for row in on for one in as_list(row["ports"]) if str(one) in names}
    vnet_bridges = {row["name"] for row in on if as_dict(row["external_ids"]).get(bridges.ROLE) == "vnet"}
    for port in ports:
        row = interfaces.get(port.name)
        whose = f"port {port.name} of VM {port.vm_id}"
        if row is None or bridge_of.get(port.name) != port.bridge:
            yield Difference(f"{whose} is not on bridge {port.bridge}", f"see 'virsh domiflist one-{port.vm_id}'")
        elif not isinstance(row["ofport"], int) or row["ofport"] < 1:
            yield Difference(
                f"{whose} has no device: {row['error'] or 'not there'}", f"see 'virsh list' for one-{port.vm_id}"
            )
    known = {port.name for port in ports}
    for name in interfaces:
        if name not in known and bridge_of.get(name) in vnet_bridges and name.startswith("one-"):
            vm_id = name.split("-")[1] if name.count("-") == 2 else "?"
            yield Difference(
                f"port {name} on bridge {bridge_of[name]} is of no VM that the driver knows, and passes nothing",
                f"let OpenNebula plug it in again, 'onevm poweroff {vm_id}' and resume, or remove it: ovs-vsctl del-port {name}",
            )


def _flows(node: Node, ports: list[GuestPort]) -> Iterator[Difference]:
    """Flows that are missing, changed, or nobody's."""
    for bridge, lines in node.all_flows(ports).items():
        wanted = [line.removeprefix("flow add ") for line in lines if line.startswith("flow add ")]
        kinds: Counter[tuple[str, str]] = Counter()
        examples: dict[tuple[str, str], str] = {}
        for line in _diff(bridge, wanted):
            kind = ("missing" if line.startswith("+") else "there without reason", _owner(line))
            kinds[kind] += 1
            examples.setdefault(kind, line[1:].strip())
        for (how, whose), count in sorted(kinds.items()):
            what = f"{count} flows of {whose}" if count > 1 else f"a flow of {whose}"
            verb = "are" if count > 1 else "is"
            yield Difference(f"{what} on bridge {bridge} {verb} {how}: {examples[how, whose][:200]}")


def _diff(bridge: str, wanted: list[str]) -> list[str]:
    """Lines of `ovs-ofctl diff-flows`: + for what is missing on the bridge, - for what should not be there."""
    switch = f"unix:/run/openvswitch/{bridge}.mgmt"  # a bare name could be a file here
    with tempfile.NamedTemporaryFile("w", suffix=".flows") as file:
        file.write("\n".join(wanted) + "\n")
        file.flush()
        done = subprocess.run(
            ["ovs-ofctl", "--timeout=30", "diff-flows", switch, file.name], capture_output=True, text=True
        )
    if done.returncode not in (0, 2):
        lines = done.stderr.strip().splitlines()
        raise AwsOvsError(
            f"{_FLOW_FAILURE.format(bridge, lines[0] if lines else done.returncode)}; see 'ovs-vsctl show'"
        )
    learned = f"table={pipeline.LEARNED} priority=10,"
    return [line for line in done.stdout.splitlines() if not line[1:].startswith(learned)]


def _owner(line: str) -> str:
    at = line.find("cookie=")
    cookie = int(line[at + 7 :].split(",")[0].split()[0], 16) if at >= 0 else 0
    whose = pipeline.owner(cookie)
    return f"VM {whose[0]} NIC {whose[1]}" if whose else "the node"
