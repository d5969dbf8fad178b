"""How many entries of connection tracking each NIC may have: the limits of zones, which ovs-vswitchd keeps in the datapath.

Its database has them from version 3.3 on. Earlier ones take them by the socket that `ovs-appctl` uses; a process of that
would cost 5 ms at every start of a VM.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import AwsOvsError
from ..names import NIC_ZONES

_RUN = "/run/openvswitch"
_TIMEOUT_S = 30.0
_DATAPATHS = {"system": "system@ovs-system", "netdev": "netdev@ovs-netdev"}
_LINE = "limit "


class Zone(NamedTuple):
    """Tell of a zone how many entries it may have, and how many it has."""

    limit: int
    entries: int


def limit(datapath_type: str, zone: int, entries: int) -> str:
    """Write the line of a bundle that gives a zone its limit; it is carried out before the flows."""
    return f"{_LINE}{_DATAPATHS[datapath_type]} zone={zone},limit={entries}"


def is_limit(line: str) -> bool:
    """Tell whether a line is one of these."""
    return line.startswith(_LINE)


def apply(lines: Iterable[str]) -> None:
    """Carry out such lines.

    Raises:
        AwsOvsError: ovs-vswitchd does not answer, or refuses a limit.
    """
    zones: dict[str, list[str]] = {}
    for line in lines:
        _, datapath, zone = line.split()
        zones.setdefault(datapath, []).append(zone)
    for datapath, words in zones.items():
        _call("dpctl/ct-set-limits", datapath, *words)


def read(datapath_type: str) -> dict[int, Zone]:
    """Read the limits and the numbers of entries of all NICs that have limits, by their zones.

    Raises:
        AwsOvsError: ovs-vswitchd does not answer.
    """
    shown = _call("dpctl/ct-get-limits", _DATAPATHS[datapath_type])
    found = re.findall(r"zone=([0-9]+),limit=([0-9]+),count=([0-9]+)", shown)
    return {int(zone): Zone(int(most), int(count)) for zone, most, count in found if int(zone) > NIC_ZONES}


def _call(method: str, *arguments: str) -> str:
    """Call a command of ovs-vswitchd as `ovs-appctl` does (JSON-RPC 1.0), and return what it prints."""
    remedy = "see 'systemctl status ovs-vswitchd'"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with open(f"{_RUN}/ovs-vswitchd.pid", encoding="ascii") as file:
            pid = int(file.read())
        connection.settimeout(_TIMEOUT_S)
        connection.connect(f"{_RUN}/ovs-vswitchd.{pid}.ctl")
        connection.sendall(json.dumps({"method": method, "params": arguments, "id": 0}).encode())
        reply = _receive(connection)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise AwsOvsError(f"ovs-vswitchd does not answer to {method} ({why})", remedy) from None
    finally:
        connection.close()
    if reply.get("error"):
        raise AwsOvsError(f"ovs-vswitchd refuses {method}: {str(reply['error']).strip()}", remedy)
    return str(reply.get("result", ""))


def _receive(connection: socket.socket) -> dict[str, object]:
    received = b""
    while True:
        chunk = connection.recv(1 << 16)
        if not chunk:
            raise ConnectionError("it hung up")
        received += chunk
        if chunk[-1:] == b"}":
            try:
                reply: dict[str, object] = json.loads(received)
            except ValueError:
                continue  # it goes on
            return reply
