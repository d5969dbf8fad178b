"""XML-RPC as oned speaks it: requests read, replies written byte for byte in its form."""

from __future__ import annotations

import xmlrpc.client

AUTHENTICATION, NO_EXISTS, ACTION = 0x100, 0x400, 0x800
RPC_API, INTERNAL, ALLOCATE = 0x1000, 0x2000, 0x4000

NO_SUCH_METHOD, WRONG_TYPE = -506, -501


class OneError(Exception):
    """A call failed.

    Args:
        code: as pyone tells exceptions apart.
        text: without the method's name before it.
        object_id: that oned's reply names, -1 for none.
    """

    def __init__(self, code: int, text: str, object_id: int = -1) -> None:
        super().__init__(text)
        self.code, self.text, self.object_id = code, text, object_id


def read(body: bytes) -> tuple[str, tuple[object, ...]]:
    """Read method and parameters of a request."""
    values, method = xmlrpc.client.loads(body, use_builtin_types=True)
    return method or "", values


def _typed(value: int | str) -> str:
    if isinstance(value, int):
        return f"<i4>{value}</i4>"
    return f"<string>{xmlrpc.client.escape(value)}</string>".replace("\r", "&#x0d;")


def _reply(*values: str) -> bytes:
    items = "".join(f"<value>{value}</value>\r\n" for value in values)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\r\n<methodResponse>\r\n<params>\r\n<param><value><array><data>\r\n'
        f"{items}</data></array></value></param>\r\n</params>\r\n</methodResponse>\r\n"
    ).encode()


def success(value: int | str) -> bytes:
    """Write the reply to a call that succeeded."""
    return _reply("<boolean>1</boolean>", _typed(value), "<i4>0</i4>")


def failure(method: str, error: OneError) -> bytes:
    """Write the reply to a call that failed."""
    text = f"[{method}] {error.text}"
    return _reply("<boolean>0</boolean>", _typed(text), _typed(error.code), _typed(error.object_id), "<i8>-1</i8>")


def fault(error: xmlrpc.client.Fault) -> bytes:
    """Write the reply to what is no call: an unknown method, a parameter of the wrong type."""
    return xmlrpc.client.dumps(error, methodresponse=True).encode()
