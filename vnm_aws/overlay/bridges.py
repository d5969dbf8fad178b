"""Bridges and patch ports: what is there, and which changes make it what is needed.

The overlay bridge `aws_ovs` holds the tunnels and the node's two internal ports. Each VNET bridge is joined to it by
one pair of patch ports for each VNI. All bridges are `fail_mode=secure`: a port without flows passes nothing.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from ..errors import AwsOvsError
from ..names import (
    CLAIMS_KEY,
    GATEWAY_PORT,
    NETWORK_KEY,
    OVERLAY,
    PEER_KEY,
    PORT_KEY,
    REPAIR_PORT,
    ROLE,
    SIDE_KEY,
    SLOT_KEY,
    SWITCH_KEY,
    VNET_KEY,
)
from .guest_port import GuestPort
from .ovsdb import Operation, Ovsdb, Row, as_dict, as_list, ids_include, ovs_map, ovs_set, replace_ids, select
from .pipeline import NODE_MAC, VnetTable

RESERVED = (OVERLAY, GATEWAY_PORT, REPAIR_PORT)
OTHER_BRIDGE = "give the network a BRIDGE that nobody else uses: 'onevnet update' with the network's ID"
"""The remedy where a network has chosen a bridge that the driver may not have."""
PORT_COLUMNS = ["name", "ofport", "external_ids", "error"]
_GUEST = r"one-\d+-\d+\Z"  # compiled only where it is used: that costs 0.2 ms
_TUNNEL = r"vx-[0-9a-f]{8}\Z"
_PREFIXES = {
    VnetTable.IN_RULES: {"ct_nw_src", "ct_ipv6_src", "nw_src"},
    VnetTable.OUT_RULES: {"ct_nw_dst", "ct_ipv6_dst", "nw_dst"},
}
"""By which addresses tables have their flows in tries, three fields at most. In tables without, rules about addresses make
what Open vSwitch learns from a packet hold for its address alone, and a flood from many addresses fills its cache."""


class OvsInterface(NamedTuple):
    """An interface that the driver owns."""

    name: str
    ofport: int
    ids: dict[str, str]


def as_interfaces(reply: list[Row]) -> list[OvsInterface]:
    """Read the rows of a select."""
    return [OvsInterface(row["name"], port_number(row), as_dict(row["external_ids"])) for row in reply]


def port_number(row: Row) -> int:
    """Read the port number of an interface; 0 while ovs-vswitchd has not taken it."""
    return row["ofport"] if isinstance(row["ofport"], int) and row["ofport"] > 0 else 0


def select_role(role: str) -> Operation:
    """Select the interfaces of one role."""
    return select("Interface", [ids_include(**{ROLE: role})], PORT_COLUMNS)


def driven(rows: list[Row]) -> set[str]:
    """Read which bridges are the driver's from rows with `name` and `external_ids`."""
    return {row["name"] for row in rows if as_dict(row["external_ids"]).get(ROLE) in ("overlay", "vnet")}


def patch_name(bridge: str, vni: int) -> tuple[str, str]:
    """Name the patch ports that join `bridge` to the overlay bridge for `vni`: its own and the far end."""
    tail = f"{vni:06x}{binascii.crc32(bridge.encode()):08x}"
    return f"p{tail}", f"q{tail}"


def is_patch(name: str, bridge: str | None = None) -> bool:
    """Tell whether a port has a name that the driver gives to a patch port, `bridge` being the one that it joins."""
    if not re.match(r"[pq][0-9a-f]{14}\Z", name):
        return False
    return bridge is None or name in patch_name(bridge, int(name[1:7], 16))


def is_tunnel(name: str) -> bool:
    """Tell whether a port has the name of a tunnel of the driver."""
    return bool(re.match(_TUNNEL, name))


def is_own(name: str) -> bool:
    """Tell whether a port has a name that the driver gives to ports of its own, which no VM and nobody else has."""
    return name in RESERVED or is_patch(name) or is_tunnel(name)


GUEST_KEYS = [ROLE, PORT_KEY, NETWORK_KEY, CLAIMS_KEY, SWITCH_KEY, VNET_KEY, SLOT_KEY]
_KEYS = [*GUEST_KEYS, SIDE_KEY, PEER_KEY]
"""All keys of external_ids that are the driver's."""


def guest_ids(port: GuestPort) -> dict[str, str]:
    """Make the external_ids of a guest port's interface: the node's index of who has what."""
    claims = " ".join(map(str, port.claims))
    ids = {ROLE: "guest", PORT_KEY: mark(port.vm_id, port.nic_id), NETWORK_KEY: f"{port.bridge}/{port.vni}"}
    ids |= {CLAIMS_KEY: claims, SWITCH_KEY: str(port.member), SLOT_KEY: str(port.slot)}
    if port.network_id >= 0:  # a file of an older version does not tell it
        ids[VNET_KEY] = str(port.network_id)
    return ids


def mark(vm_id: int, nic_id: int) -> str:
    """Say whose a port is, as its external_ids do."""
    return f"{vm_id}/{nic_id}"


def marked_vm(ids: dict[str, str]) -> int | None:
    """Read whose port an interface is marked as; None when it is no guest port."""
    vm_id = ids.get(PORT_KEY, "").partition("/")[0]
    return int(vm_id) if vm_id.isdecimal() else None


def marked_slot(ids: dict[str, str]) -> int:
    """Read the slot that an interface is marked with; 0 when it has none."""
    slot = ids.get(SLOT_KEY, "")
    return int(slot) if slot.isdecimal() else 0


class Place(NamedTuple):
    """A port that there is: some columns of its interface, its UUID, and the bridge that holds it."""

    row: Row
    port: Any
    bridge: str


def select_places(names: Iterable[str], columns: list[str]) -> list[Operation]:
    """Select what `places` reads: ports by their names, whatever they are marked as."""
    wanted = [[["name", "==", name]] for name in names]
    interfaces = [select("Interface", where, ["name", *columns, "type", "external_ids"]) for where in wanted]
    ports = [select("Port", where, ["_uuid", "name"]) for where in wanted]
    return [*interfaces, *ports, select("Bridge", [], ["name", "ports"])]


def places(replies: list[Any]) -> dict[str, Place]:
    """Read the replies to `select_places`: the ports that there are, by name."""
    *rows, on = replies
    flat = [row for reply in rows for row in reply]
    bridge_of = {str(uuid): row["name"] for row in on for uuid in as_list(row["ports"])}
    interfaces = {row["name"]: row for row in flat if "type" in row}
    ports = {row["name"]: row["_uuid"] for row in flat if "_uuid" in row}
    return {name: Place(interfaces.get(name, {}), uuid, bridge_of.get(str(uuid), "")) for name, uuid in ports.items()}


class Transaction:
    """Operations of one transaction, which refer to each other by names.

    Attributes:
        operations: what to do.
        reasons: what is not as it should be, for people.
        strangers: those of the reasons that are about a port of no VM that the driver knows.
        bridges: the bridges that it makes.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.reasons: list[str] = []
        self.strangers: list[str] = []
        self.bridges: list[str] = []
        self._names = 0

    def name(self) -> str:
        """Choose a name for a row that the transaction inserts."""
        self._names += 1
        return f"row{self._names}"

    def port(self, bridge: str | None, name: str, interface: dict[str, Any]) -> list[Any]:
        """Add a port with one interface, and return a reference to it; a bridge that the caller inserts is None."""
        inner, outer = self.name(), self.name()
        self.operations.append(
            {"op": "insert", "table": "Interface", "row": {"name": name, **interface}, "uuid-name": inner}
        )
        row = {"name": name, "interfaces": ["named-uuid", inner]}
        self.operations.append({"op": "insert", "table": "Port", "row": row, "uuid-name": outer})
        reference = ["named-uuid", outer]
        if bridge is not None:
            self.change_ports([["name", "==", bridge]], "insert", [reference])
        return reference

    def change_ports(self, where: list[Any], mutator: str, ports: list[Any]) -> None:
        """Insert ports into bridges, or delete them: a port that no bridge holds vanishes, and its interface with it."""
        mutations = [["ports", mutator, ovs_set(ports)]]
        self.operations.append({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})

    def ensure_port(
        self, bridge: str, name: str, row: dict[str, Any], there: dict[str, Place], missing: str, wrong: str
    ) -> None:
        """Add a port of the driver that is missing, or correct it: whoever has marked or moved it, the name is ours.

        Args:
            bridge: where it has to be.
            name: its name.
            row: the columns of its interface.
            there: the ports that there are, by name, with some of these columns.
            missing: what to say when it is not there.
            wrong: what to say when a column has another value.
        """
        place, where = there.get(name), [["name", "==", name]]
        if place is None:
            self.reasons.append(missing)
            self.port(bridge, name, row)
            return
        if place.bridge != bridge or place.row.get("type") != row["type"]:
            self.reasons.append(f"port {name} is not a port of type {row['type']} on bridge {bridge}")
            self.change_ports([], "delete", [place.port])
            self.port(bridge, name, row)
            return
        columns = {key: value for key, value in row.items() if key != "external_ids"}
        if any(_plain(value) != _plain(columns.get(key, value)) for key, value in place.row.items()):
            self.reasons.append(wrong)
            self.operations.append({"op": "update", "table": "Interface", "where": where, "row": columns})
        ids = as_dict(row["external_ids"])
        if {key: value for key, value in as_dict(place.row["external_ids"]).items() if key in _KEYS} != ids:
            self.reasons.append(f"port {name} is not marked as the driver's (external_ids)")
            self.operations.append(replace_ids("Interface", where, _KEYS, ids))

    def bridge(self, name: str, role: str, datapath_type: str, ports: list[Any]) -> None:
        """Add a bridge of the driver with its LOCAL port and `ports`."""
        self.bridges.append(name)
        local = self.port(None, name, {"type": "internal"})
        reference = self.name()
        row = {
            "name": name, "fail_mode": "secure", "datapath_type": datapath_type, "ports": ovs_set([local, *ports]),
            "external_ids": ovs_map({ROLE: role}), "other_config": ovs_map({"disable-in-band": "true"}),
        }  # fmt: skip
        if role == "vnet":
            row["flow_tables"] = self._flow_tables()
        self.operations.append({"op": "insert", "table": "Bridge", "row": row, "uuid-name": reference})
        mutation = [["bridges", "insert", ovs_set([["named-uuid", reference]])]]
        self.operations.append({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": mutation})

    def take_over(self, name: str, role: str, datapath_type: str) -> None:
        """Make an existing bridge the driver's."""
        self.reasons.append(f"bridge {name} is not the driver's, or not fail_mode=secure and {datapath_type}")
        where = [["name", "==", name]]
        row = {"fail_mode": "secure", "datapath_type": datapath_type}
        self.operations.append({"op": "update", "table": "Bridge", "where": where, "row": row})
        self.operations.append(replace_ids("Bridge", where, [], {ROLE: role}))

    def add_tries(self, name: str) -> None:
        """Give tries of addresses to the tables of an existing VNET bridge that need them."""
        self.reasons.append(f"bridge {name} does not have the rules of security groups in tries (flow_tables)")
        # New rows, for a change of `prefixes` within one can end in the database's loss: ovsdb-server 3.1 does not read back the
        # difference of two such sets when it is greater than the set may be, and drops all that was written after it.
        old = ovs_set([table.value for table in _PREFIXES])
        mutations = [["flow_tables", "delete", old], ["flow_tables", "insert", self._flow_tables()]]
        where = [["name", "==", name]]
        self.operations.append({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})

    def _flow_tables(self) -> list[Any]:
        references = []
        for table, prefixes in _PREFIXES.items():
            name, row = self.name(), {"prefixes": ovs_set(sorted(prefixes))}
            self.operations.append({"op": "insert", "table": "Flow_Table", "row": row, "uuid-name": name})
            references.append([table.value, ["named-uuid", name]])
        return ["map", references]


def _plain(value: Any) -> Any:
    """Make a column's value comparable: the pairs of a map have no order."""
    return as_dict(value) if isinstance(value, list) and value[:1] == ["map"] else value


def plan_overlay(db: Ovsdb, datapath_type: str, mtu: int) -> Transaction:
    """Plan the changes that make the overlay bridge complete; `mtu` is that of aws_gw, the way to the Internet."""
    internal = {"type": "internal", "external_ids": ovs_map({ROLE: "node"})}
    wanted = {
        GATEWAY_PORT: {**internal, "mac": NODE_MAC, "mtu_request": mtu},
        REPAIR_PORT: {**internal, "mtu_request": mtu},
    }
    overlay, *replies = db.transact([_select_bridge(OVERLAY), *select_places(wanted, ["mac", "mtu_request"])])
    there = places(replies)
    changes = Transaction()
    if not overlay:
        changes.reasons.append(f"bridge {OVERLAY} is missing")
        if there:
            changes.change_ports([], "delete", [place.port for place in there.values()])
        references = [changes.port(None, name, row) for name, row in wanted.items()]
        changes.bridge(OVERLAY, "overlay", datapath_type, references)
        return changes
    if not _is_right(overlay[0], "overlay", datapath_type):
        changes.take_over(OVERLAY, "overlay", datapath_type)
    for name, row in wanted.items():
        missing = f"port {name} of bridge {OVERLAY} is missing"
        wrong = f"port {name} has another MTU or MAC than the driver gave it"
        changes.ensure_port(OVERLAY, name, row, there, missing, wrong)
    return changes


def _select_bridge(name: str) -> Operation:
    columns = ["name", "fail_mode", "datapath_type", "external_ids", "ports", "flow_tables"]
    return select("Bridge", [["name", "==", name]], columns)


def _is_right(row: dict[str, Any], role: str, datapath_type: str) -> bool:
    return bool(
        row["fail_mode"] == "secure"
        and (row["datapath_type"] or "system") == datapath_type
        and as_dict(row["external_ids"]).get(ROLE) == role
    )


def _has_tries(row: Row, prefixes: dict[str, set[str]]) -> bool:
    """Tell whether a bridge has the tries that it needs; `prefixes` are those of flow tables, by their UUIDs."""
    tables = {table: prefixes.get(str(uuid)) for table, uuid in row["flow_tables"][1]}
    return all(tables.get(table.value) == wanted for table, wanted in _PREFIXES.items())


def plan_networks(
    db: Ovsdb, networks: Iterable[tuple[str, int]], datapath_type: str, claim: Callable[[str], None]
) -> Transaction:
    """Plan the changes that give each (bridge, VNI) its bridge and its patch ports.

    `claim` is asked before a bridge becomes the driver's, and refuses that when it would take something from somebody.

    Raises:
        AwsOvsError: a bridge is somebody else's.
    """
    networks = sorted(set(networks))
    names = sorted({bridge for bridge, _ in networks})
    patches = [name for bridge, vni in networks for name in patch_name(bridge, vni)]
    selects = [select("Flow_Table", [], ["_uuid", "prefixes"]), *map(_select_bridge, names)]
    flow_tables, *replies = db.transact([*selects, *select_places(patches, ["options"])])
    prefixes = {str(row["_uuid"]): set(as_list(row["prefixes"])) for row in flow_tables}
    changes = Transaction()
    for name, reply in zip(names, replies, strict=False):
        if name in RESERVED:
            raise AwsOvsError(f"BRIDGE {name} is the driver's own", OTHER_BRIDGE)
        if not reply or as_dict(reply[0]["external_ids"]).get(ROLE) != "vnet":
            claim(name)
        if not reply:
            changes.reasons.append(f"bridge {name} is missing")
            changes.bridge(name, "vnet", datapath_type, [])
        elif not _is_right(reply[0], "vnet", datapath_type):
            changes.take_over(name, "vnet", datapath_type)
        if reply and not _has_tries(reply[0], prefixes):
            changes.add_tries(name)
    there = places(replies[len(names) :])
    for bridge, vni in networks:
        near, far = patch_name(bridge, vni)
        for name, peer, on in ((near, far, bridge), (far, near, OVERLAY)):
            ids = {ROLE: "patch", NETWORK_KEY: f"{bridge}/{vni}", SIDE_KEY: on}
            row = {"type": "patch", "options": ovs_map({"peer": peer}), "external_ids": ovs_map(ids)}
            missing = f"patch port {name} of bridge {on} is missing, for VNI {vni} of {bridge}"
            wrong = f"patch port {name} of bridge {on} leads elsewhere than to {peer}"
            changes.ensure_port(on, name, row, there, missing, wrong)
    return changes


def plan_guests(db: Ovsdb, ports: Iterable[GuestPort], untouched: Collection[int] = ()) -> Transaction:
    """Plan the changes that mark the guest ports that are plugged in, and no others.

    They also unplug the ports that a reboot has left behind. What is marked as a port of a VM of `untouched` stays.
    """
    changes, wanted = Transaction(), {port.name: port for port in ports}
    of_vnets = [ids_include(**{ROLE: "vnet"})]
    interfaces, plugged, vnets = db.transact(
        [
            select("Interface", [], PORT_COLUMNS),
            select("Port", [], ["_uuid", "name"]),
            select("Bridge", of_vnets, ["ports"]),
        ]
    )
    interfaces = [row for row in interfaces if marked_vm(as_dict(row["external_ids"])) not in untouched]
    on_vnets = {str(port) for row in vnets for port in as_list(row["ports"])}
    # -1: there is no such device. Open vSwitch keeps ports for ever, but VMs and their devices do not outlive a reboot.
    lost = {row["name"] for row in interfaces if row["ofport"] == -1 and re.match(_GUEST, row["name"])} - set(wanted)
    left_behind = [row for row in plugged if row["name"] in lost and str(row["_uuid"]) in on_vnets]
    if left_behind:
        changes.reasons += [f"port {row['name']} has no device, and its VM is gone" for row in left_behind]
        changes.change_ports(of_vnets, "delete", [row["_uuid"] for row in left_behind])
    for row in as_interfaces(interfaces):
        port = wanted.get(row.name)
        ids = guest_ids(port) if port else {}
        marked = {key: row.ids[key] for key in GUEST_KEYS if key in row.ids}
        if marked != ids and (port or row.ids.get(ROLE) == "guest"):
            whose = f"of VM {port.vm_id}" if port else "of no VM that the driver knows"
            changes.reasons.append(f"port {row.name} {whose} is marked otherwise than it should be (external_ids)")
            changes.strangers += [] if port else changes.reasons[-1:]
            changes.operations.append(replace_ids("Interface", [["name", "==", row.name]], GUEST_KEYS, ids))
    return changes
