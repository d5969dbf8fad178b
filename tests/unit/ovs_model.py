"""A node without Open vSwitch and kernel: the driver's own code on a database and flow tables that are dictionaries."""

from __future__ import annotations

import itertools
import re
from typing import Any, NamedTuple

from vnm_aws.config import Config
from vnm_aws.driver import restore, state
from vnm_aws.driver.node import Node
from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay import limits, messages, openflow
from vnm_aws.overlay.ovsdb import Operation, Ovsdb, as_dict, as_list
from vnm_aws.underlay.eni import Underlay

_FLOW = re.compile(r"flow add cookie=(0x[0-9a-f]+),(table=\d+,priority=\d+\S*) actions=(.*)")
_DELETE = re.compile(r"flow delete cookie=(0x[0-9a-f]+)/(-1|0x[0-9a-f]+)")
_METER = re.compile(r"meter:(\d+)")
_ALL = (1 << 64) - 1

_DEFAULTS: dict[str, dict[str, Any]] = {
    "Interface": {
        "type": "", "ofport": ["set", []], "external_ids": ["map", []], "error": ["set", []], "options": ["map", []],
        "bfd": ["map", []], "mac": ["set", []], "mtu_request": ["set", []],
    },
    "Port": {"interfaces": ["set", []], "fake_bridge": False, "tag": ["set", []]},
    "Bridge": {
        "ports": ["set", []], "fail_mode": ["set", []], "datapath_type": "", "external_ids": ["map", []],
        "controller": ["set", []], "flow_tables": ["map", []],
    },
    "Flow_Table": {"prefixes": ["set", []]},
    "Open_vSwitch": {"bridges": ["set", []]},
}  # fmt: skip


class Interrupted(BaseException):
    """The process was killed."""


class Faults:
    """Lets a driver call fail at its n-th change, once, or die there."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._kills = self._dead = False

    def arm(self, left: int | None, kills: bool = False) -> None:
        """From now on: fail after `left` changes, or never."""
        self._left, self._kills, self._dead = left, kills, False

    def touch(self) -> None:
        """Something is about to be changed."""
        if self._dead:
            raise Interrupted
        if self._left is None:
            return
        if self._left:
            self._left -= 1
            return
        self._left = None
        self._dead = self._kills
        if self._dead:
            raise Interrupted
        raise AwsOvsError("a change failed", "try again")


class Database(Ovsdb):
    """As much of Open vSwitch's database, and of ovs-vswitchd's numbering of ports, as the driver needs."""

    def __init__(self, faults: Faults) -> None:
        self.tables: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in _DEFAULTS}
        self.tables["Open_vSwitch"]["root"] = _DEFAULTS["Open_vSwitch"]
        self._faults = faults
        self._numbers = itertools.count(1)

    def commit(self, operations: list[Operation], timeout: float = 10.0) -> None:
        """Carry out changes, on which nobody needs to wait."""
        self.transact(operations)

    def transact(self, operations: list[Operation]) -> list[Any]:
        """All operations, or none."""
        names: dict[str, str] = {}
        if all(operation["op"] == "select" for operation in operations):
            return [self._carry_out(operation, names) for operation in operations]
        self._faults.touch()
        before = {name: dict(table) for name, table in self.tables.items()}  # rows are replaced, never changed
        try:
            return [self._carry_out(operation, names) for operation in operations]
        except BaseException:
            self.tables = before
            raise
        finally:
            self._collect()

    def _carry_out(self, operation: Operation, names: dict[str, str]) -> Any:
        verb = operation["op"]
        if verb == "comment":
            return {}
        table = self.tables[operation["table"]]
        if verb == "insert":
            uuid = f"u{next(self._numbers)}"
            names[operation["uuid-name"]] = uuid
            row = {**_DEFAULTS[operation["table"]], **operation["row"], "_uuid": ["uuid", uuid]}
            table[uuid] = {key: _resolved(value, names) for key, value in row.items()}
            return {"uuid": row["_uuid"]}
        rows = [row for row in table.values() if all(_holds(row, condition) for condition in operation["where"])]
        if verb == "select":
            return [{key: row[key] for key in operation["columns"]} for row in rows]
        for uuid, row in [(uuid, row) for uuid, row in table.items() if any(row is one for one in rows)]:
            changed = {**row, **operation.get("row", {})}
            for column, mutator, value in operation.get("mutations", []):
                changed[column] = _mutated(changed[column], mutator, _resolved(value, names))
            table[uuid] = changed
        return {"count": len(rows)}

    def _collect(self) -> None:
        """What nothing refers to vanishes; what a bridge has got has a port number."""
        for parent, column, table in (
            ("Open_vSwitch", "bridges", "Bridge"),
            ("Bridge", "ports", "Port"),
            ("Port", "interfaces", "Interface"),
        ):
            held = {one[1] for row in self.tables[parent].values() for one in as_list(row[column])}
            self.tables[table] = {uuid: row for uuid, row in self.tables[table].items() if uuid in held}
        held = {one[1] for row in self.tables["Bridge"].values() for _, one in row["flow_tables"][1]}
        self.tables["Flow_Table"] = {uuid: row for uuid, row in self.tables["Flow_Table"].items() if uuid in held}
        for uuid, row in self.tables["Interface"].items():
            if not isinstance(row["ofport"], int):
                self.tables["Interface"][uuid] = {**row, "ofport": next(self._numbers)}

    def bridges(self) -> set[str]:
        """The names of the bridges."""
        return {row["name"] for row in self.tables["Bridge"].values()}

    def interfaces(self) -> dict[str, tuple[int, dict[str, str]]]:
        """Port number and external_ids of each interface."""
        found = self.tables["Interface"].values()
        return {row["name"]: (row["ofport"], as_dict(row["external_ids"])) for row in found}

    def plug(self, bridge: str, name: str) -> None:
        """What the hypervisor does."""
        assert bridge in self.bridges(), f"there is no bridge {bridge}"
        self.unplug(name)
        interface = {"op": "insert", "table": "Interface", "row": {"name": name}, "uuid-name": "i"}
        row = {"name": name, "interfaces": ["named-uuid", "i"]}
        port = {"op": "insert", "table": "Port", "row": row, "uuid-name": "p"}
        where = [["name", "==", bridge]]
        mutation = [["ports", "insert", ["set", [["named-uuid", "p"]]]]]
        self.transact([interface, port, {"op": "mutate", "table": "Bridge", "where": where, "mutations": mutation}])

    def unplug(self, name: str) -> None:
        """What the hypervisor does."""
        gone = [["uuid", uuid] for uuid, row in self.tables["Port"].items() if row["name"] == name]
        mutation = [["ports", "delete", ["set", gone]]]
        self.transact([{"op": "mutate", "table": "Bridge", "where": [], "mutations": mutation}])


def _resolved(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return ["uuid", names[value[1]]] if value[:1] == ["named-uuid"] else [_resolved(one, names) for one in value]
    return value


def _holds(row: dict[str, Any], condition: list[Any]) -> bool:
    column, how, value = condition
    if how == "includes":
        return as_dict(value).items() <= as_dict(row[column]).items()
    assert how == "=="
    return bool(row[column] == value)


def _mutated(column: Any, mutator: str, value: Any) -> Any:
    if column[0] == "map":
        pairs = as_dict(column)
        if mutator == "delete":
            gone = value[1]
            return ["map", [[key, text] for key, text in pairs.items() if key not in gone]]
        return ["map", [[key, text] for key, text in {**as_dict(value), **pairs}.items()]]
    held, named = as_list(column), as_list(value)
    if mutator == "delete":
        return ["set", [one for one in held if one not in named]]
    return ["set", held + [one for one in named if one not in held]]


class FlowTables:
    """The flows of all bridges: (table, priority, match) to cookie and actions; and their meters, which flows may name."""

    def __init__(self) -> None:
        self.bridges: dict[str, dict[str, tuple[int, str]]] = {}
        self.meters: dict[str, set[str]] = {}

    def apply(self, bundles: openflow.Bundles, known: set[str]) -> None:
        """Carry out bundles, each as a whole."""
        for bridge, lines in bundles.items():
            if bridge not in known:
                raise AwsOvsError(f"{bridge} is not a bridge", "create it")
            flows = dict(self.bridges.get(bridge, {}))
            for line in filter(messages.is_message, lines):
                self._message(bridge, flows, line)
            for line in itertools.filterfalse(messages.is_message, itertools.filterfalse(limits.is_limit, lines)):
                self._line(flows, line)
            self.bridges[bridge] = flows
            named = {meter for _, actions in flows.values() for meter in _METER.findall(actions)}
            assert named <= self.meters.get(bridge, set()), f"{bridge}: flows name meters that are not there"

    def read(self, bridge: str, cookie: str) -> list[str]:
        """Tell the flows with a cookie, as lines that add them again."""
        value, mask = (int(text, 16) for text in cookie.removeprefix("cookie=").split("/"))
        flows = self.bridges.get(bridge, {}).items()
        return [
            f"flow add cookie={owner:#x},{match} actions={actions}"
            for match, (owner, actions) in flows
            if owner & mask == value & mask
        ]

    def _message(self, bridge: str, flows: dict[str, tuple[int, str]], line: str) -> None:
        kind, verb, number, *_ = line.split()
        if kind == "zone":
            return
        assert verb in ("new", "keep", "adjust"), line
        if verb == "new":
            for match in [match for match, (_, actions) in flows.items() if number in _METER.findall(actions)]:
                del flows[match]
        self.meters.setdefault(bridge, set()).add(number)

    def _line(self, flows: dict[str, tuple[int, str]], line: str) -> None:
        added, deleted = _FLOW.fullmatch(line), _DELETE.fullmatch(line)
        if added:
            flows[added[2]] = (int(added[1], 16), added[3])
        elif deleted:
            mask = _ALL if deleted[2] == "-1" else int(deleted[2], 16)
            for match in [match for match, (cookie, _) in flows.items() if cookie & mask == int(deleted[1], 16) & mask]:
                del flows[match]
        elif line == "flow delete":
            flows.clear()
        else:
            assert line.startswith("packet-out "), line


class Model(NamedTuple):
    """A node, and what it is made of."""

    node: Node
    database: Database
    flows: FlowTables


def model(address: str, faults: Faults) -> Model:
    """Make a node; its base is there from the start."""
    database, tables = Database(faults), FlowTables()

    def apply_flows(bundles: openflow.Bundles) -> None:
        faults.touch()
        tables.apply(bundles, database.bridges())

    underlay = Underlay("ens5", address, "10.0.0.0/24", 9001)
    node = Node(Config(), underlay, database, apply_flows=apply_flows, read_flows=tables.read)
    nothing = state.Stored([], {})
    for changes in restore.plans(node, nothing):
        node.commit(changes)
    node.flow(restore.all_flows(node, nothing))
    return Model(node, database, tables)
