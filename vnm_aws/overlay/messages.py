"""What cannot be part of a bundle of flows: OpenFlow's meters, and the end of all entries of a zone of connection tracking.

A meter lets so many packets a second pass, the rest is dropped and counted. A flow can name only a meter that is there, and
whoever deletes one deletes the flows that name it. So meters are set before the flows, and stay when a NIC goes: the next one
with its slot begins anew. A zone is flushed before the flows of a port that is new in it, and behind those of one that goes.
An `ovs-ofctl` process for each bridge would cost 5 ms at every start of a VM; this speaks OpenFlow 1.3 itself.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import struct

from ..errors import AwsOvsError

_TIMEOUT_S = 30.0
_VERSION = 4
_HELLO, _ERROR, _EXPERIMENTER, _BARRIER_REQUEST, _BARRIER_REPLY, _METER_MOD = 0, 1, 4, 20, 21, 29
_NICIRA, _CT_FLUSH_ZONE = 0x2320, 29
_ADD, _MODIFY, _DELETE = 0, 1, 2
_COMMANDS = {"new": (_DELETE, _ADD), "keep": (_ADD,), "adjust": (_MODIFY, _ADD)}
_PACKETS_WITH_BURST = 2 | 4
_DROP = 1
_NO_COMMON_VERSION = 0
"""Type of the error of a switch that speaks later versions only; the first word of one that speaks earlier ones is in them."""
_IS_THERE, _IS_NOT_THERE = (12, 1), (12, 3)
"""Type and code of errors: what is to be added is there already, what is to be modified is not."""


def new(number: int, rate: int) -> str:
    """Write the line that makes a meter which has counted nothing; flows that name the one before it go."""
    return f"meter new {number} {rate}"


def keep(number: int, rate: int) -> str:
    """Write the line that makes a meter when it is not there; one that is there counts on."""
    return f"meter keep {number} {rate}"


def adjust(number: int, rate: int) -> str:
    """Write the line that gives a meter its rate, with which it counts anew, and makes it when it is not there."""
    return f"meter adjust {number} {rate}"


def flush(zone: int) -> str:
    """Write the line that ends all entries of a zone of connection tracking, before the flows."""
    return f"zone flush {zone}"


def forget(zone: int) -> str:
    """Write the line that ends them behind the flows."""
    return f"zone forget {zone}"


def is_message(line: str) -> bool:
    """Tell whether a line is one of these."""
    return line.startswith(("meter ", "zone "))


def comes_behind(line: str) -> bool:
    """Tell whether one of these lines is carried out behind the flows."""
    return line.startswith("zone forget ")


def apply(lines: dict[str, list[str]]) -> None:
    """Carry out the lines for each bridge, and return when all have been.

    Raises:
        AwsOvsError: a bridge does not answer, or refuses a meter.
    """
    switches = []
    try:
        for bridge, of_bridge in lines.items():
            switch = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            switches.append((bridge, switch))
            switch.settimeout(_TIMEOUT_S)
            switch.connect(f"/run/openvswitch/{bridge}.mgmt")
            switch.sendall(_request(of_bridge))
        for bridge, switch in switches:
            _wait(bridge, switch)
    except OSError as error:
        what = f"bridge {bridge} does not answer to OpenFlow ({error.strerror or error})"
        raise AwsOvsError(what, "see 'systemctl status ovs-vswitchd'") from None
    finally:
        for _, switch in switches:
            switch.close()


def _request(lines: list[str]) -> bytes:
    messages = [_message(_HELLO, 0)]
    for line in lines:
        kind, verb, number, *rate = line.split()
        if kind == "zone":
            messages.append(_message(_EXPERIMENTER, 0, struct.pack("!II6xH", _NICIRA, _CT_FLUSH_ZONE, int(number))))
        else:
            messages += [_meter(command, int(number), int(*rate)) for command in _COMMANDS[verb]]
    return b"".join([*messages, _message(_BARRIER_REQUEST, 0)])


def _meter(command: int, number: int, rate: int) -> bytes:
    band = b"" if command == _DELETE else struct.pack("!HHIIxxxx", _DROP, 16, rate, rate)
    return _message(_METER_MOD, number, struct.pack("!HHI", command, _PACKETS_WITH_BURST, number) + band)


def _message(kind: int, transaction: int, body: bytes = b"") -> bytes:
    return struct.pack("!BBHI", _VERSION, kind, 8 + len(body), transaction) + body


def _wait(bridge: str, switch: socket.socket) -> None:
    """Read what a bridge answers up to the end of its work; what it tells besides does not matter."""
    while True:
        version, kind, length, transaction = struct.unpack("!BBHI", _receive(switch, 8))
        body = _receive(switch, length - 8)
        if kind == _BARRIER_REPLY:
            return
        error = struct.unpack_from("!HH", body) if kind == _ERROR else _IS_THERE
        if version < _VERSION or error[0] == _NO_COMMON_VERSION:
            what = f"bridge {bridge} does not speak OpenFlow 1.3"
            raise AwsOvsError(what, f"let it speak all versions: ovs-vsctl clear Bridge {bridge} protocols")
        if error not in (_IS_THERE, _IS_NOT_THERE):
            what = f"bridge {bridge} refused {_refused(transaction)} (OpenFlow error {error[0]}, {error[1]})"
            raise AwsOvsError(what, "run 'aws-ovs restore' on the node")


def _refused(transaction: int) -> str:
    return f"meter {transaction}" if transaction else "to flush a zone of connection tracking"


def _receive(switch: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        chunk = switch.recv(size - len(received))
        if not chunk:
            raise ConnectionError("it hung up")
        received += chunk
    return received
