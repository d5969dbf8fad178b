"""Commands of ovs-vswitchd itself, as `ovs-appctl` gives them (JSON-RPC 1.0): a process of that would cost 5 ms."""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import json

from ..errors import AwsOvsError

_RUN = "/run/openvswitch"
TIMEOUT_S = 30.0


def call(method: str, *arguments: str, timeout: float = TIMEOUT_S) -> str:
    """Give a command, and return what it prints.

    Raises:
        AwsOvsError: ovs-vswitchd does not answer, or refuses it.
    """
    remedy = "see 'systemctl status ovs-vswitchd'"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with open(f"{_RUN}/ovs-vswitchd.pid", encoding="ascii") as file:
            pid = int(file.read())
        connection.settimeout(timeout)
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
