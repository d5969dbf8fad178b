"""Open vSwitch's database, over its socket (RFC 7047): each call is one transaction.

A transaction over the socket costs 1 ms, an `ovs-vsctl` process 10 ms, and a driver call needs two or three of them.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import json
import time
from typing import Any

from ..errors import AwsOvsError

SOCKET = "/run/openvswitch/db.sock"
Row = dict[str, Any]
Operation = dict[str, Any]


class Ovsdb:
    """A connection to the local ovsdb-server.

    Raises:
        AwsOvsError: nothing answers, or a transaction is refused.
    """

    def __init__(self, path: str = SOCKET, timeout: float = 30.0) -> None:
        self._path, self._timeout = path, timeout
        self._ids = 0
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(self._timeout)
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self._socket.close()
            what = f"Open vSwitch does not answer at {self._path} ({error.strerror})"
            raise AwsOvsError(what, "start it: systemctl start openvswitch-switch") from None

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def transact(self, operations: list[Operation]) -> list[Any]:
        """Carry out `operations` as one transaction, and return each one's result: the rows of a select, or an object."""
        if not operations:
            return []
        if self._socket.fileno() < 0:
            self._connect()
        self._ids += 1
        request = {"method": "transact", "params": ["Open_vSwitch", *operations], "id": self._ids}
        try:
            self._socket.sendall(json.dumps(request).encode())
            reply = self._receive()
        except OSError as error:
            self.close()  # what may still come on it answers no later transaction
            raise AwsOvsError(f"ovsdb-server stopped answering ({error})", "see journalctl -u ovsdb-server") from None
        if reply.get("error"):
            raise AwsOvsError(f"ovsdb-server refused a transaction: {reply['error']}", "see journalctl -u ovsdb-server")
        for result in reply["result"]:
            if result and "error" in result:
                details = result.get("details", "")
                what = f"ovsdb-server refused a change: {result['error']} {details}"
                raise AwsOvsError(what, "run 'aws-ovs restore'")
        return [result["rows"] if result and "rows" in result else result for result in reply["result"]]

    def _receive(self) -> dict[str, Any]:
        buffer = b""
        while True:
            chunk = self._socket.recv(1 << 20)
            if not chunk:
                raise ConnectionError("connection closed")
            buffer += chunk
            if chunk[-1:] != b"}":
                continue
            try:
                message: dict[str, Any] = json.loads(buffer)
            except ValueError:
                continue  # the message goes on
            if message.get("method") == "echo":
                self._socket.sendall(
                    json.dumps({"result": message["params"], "error": None, "id": message["id"]}).encode()
                )
                buffer = b""
                continue
            return message

    def commit(self, operations: list[Operation], timeout: float = 10.0) -> None:
        """Carry out changes, if there are any, and wait until ovs-vswitchd acts on them, as ovs-vsctl does."""
        if not operations:
            return
        count: Operation = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        *_, ((row,)) = self.transact([*operations, count, select("Open_vSwitch", [], ["next_cfg"])])
        deadline = time.monotonic() + timeout
        pause = 0.002
        while self.transact([select("Open_vSwitch", [], ["cur_cfg"])])[0][0]["cur_cfg"] < row["next_cfg"]:
            if time.monotonic() > deadline:
                what = f"ovs-vswitchd did not act on a change within {timeout:.0f} s"
                raise AwsOvsError(what, "see journalctl -u ovs-vswitchd")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)


def select(table: str, where: list[Any], columns: list[str]) -> Operation:
    """Make a select operation."""
    return {"op": "select", "table": table, "where": where, "columns": columns}


def ids_include(**pairs: str) -> list[Any]:
    """Make the condition that external_ids hold these pairs; '_' in a key stands for itself."""
    return ["external_ids", "includes", ovs_map(pairs)]


def ovs_map(pairs: dict[str, str]) -> list[Any]:
    """Write a map in OVSDB's notation."""
    return ["map", [[key, value] for key, value in pairs.items()]]


def ovs_set(values: list[Any]) -> list[Any]:
    """Write a set in OVSDB's notation."""
    return ["set", values]


def as_dict(value: Any) -> dict[str, str]:
    """Read a map column as a dictionary."""
    return dict(value[1])


def as_list(value: Any) -> list[Any]:
    """Read a set column as a list; OVSDB writes a set of one as its element."""
    return list(value[1]) if isinstance(value, list) and value and value[0] == "set" else [value]


def replace_ids(table: str, where: list[Any], drop: list[str], add: dict[str, str]) -> Operation:
    """Make the operation that sets some keys of external_ids and drops others; what else is there stays."""
    # 'insert' alone would keep old values.
    mutations: list[Any] = [["external_ids", "delete", ovs_set(list(dict.fromkeys([*drop, *add])))]]
    if add:
        mutations.append(["external_ids", "insert", ovs_map(add)])
    return {"op": "mutate", "table": table, "where": where, "mutations": mutations}
