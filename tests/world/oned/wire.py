"""XML-RPC as oned speaks it: requests read, replies written byte for byte in its form."""

from __future__ import annotations

import xmlrpc.client
from typing import NamedTuple

AUTHENTICATION, AUTHORIZATION, NO_EXISTS, ACTION = 0x100, 0x200, 0x400, 0x800
RPC_API, INTERNAL, ALLOCATE = 0x1000, 0x2000, 0x4000

NO_SUCH_METHOD, WRONG_TYPE, BAD_REQUEST = -506, -501, -503


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


class FaultError(Exception):
    """What is no call at all: an unknown method, a parameter of the wrong type."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Call(NamedTuple):
    """A call as it arrived.

    Args:
        method: "one.vn.info".
        arguments: what follows the session.
        mutates: whether the method changes anything in oned when it succeeds.
    """

    method: str
    arguments: tuple[object, ...]
    mutates: bool


class Parameters:
    """The parameters of a call, numbered as oned numbers them: 0 is the session."""

    def __init__(self, values: tuple[object, ...]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def integer(self, number: int, default: int | None = None) -> int:
        """The number-th parameter. Raises FaultError when it is missing without a default, or is no integer."""
        value = self._value(number, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise FaultError(WRONG_TYPE, "Parameter that is supposed to be integer is not")
        return value

    def string(self, number: int, default: str | None = None) -> str:
        """Likewise, a string."""
        value = self._value(number, default)
        if not isinstance(value, str):
            raise FaultError(WRONG_TYPE, "Parameter that is supposed to be a string is not")
        return value

    def boolean(self, number: int, default: bool | None = None) -> bool:
        """Likewise, a boolean."""
        value = self._value(number, default)
        if not isinstance(value, bool):
            raise FaultError(WRONG_TYPE, "Parameter that is supposed to be boolean is not")
        return value

    def _value(self, number: int, default: object) -> object:
        if number < len(self.values):
            return self.values[number]
        if default is None:
            raise FaultError(WRONG_TYPE, "Not enough parameters")
        return default


def read(body: bytes) -> tuple[str, tuple[object, ...]]:
    """Method and parameters of a request. Raises FaultError when it is none."""
    try:
        values, method = xmlrpc.client.loads(body, use_builtin_types=True)
    except Exception as error:
        raise FaultError(BAD_REQUEST, f"Call is not valid XML-RPC: {error}") from error
    if not method:
        raise FaultError(BAD_REQUEST, "Call has no method")
    return method, values


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#x0d;")


def _typed(value: int | str) -> str:
    return f"<i4>{value}</i4>" if isinstance(value, int) else f"<string>{_escape(value)}</string>"


def _reply(*values: str) -> bytes:
    items = "".join(f"<value>{value}</value>\r\n" for value in values)
    return _document(f"<params>\r\n<param><value><array><data>\r\n{items}</data></array></value></param>\r\n</params>")


def _document(content: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\r\n<methodResponse>\r\n{content}\r\n</methodResponse>\r\n'.encode()


def success(value: int | str) -> bytes:
    """The reply of a call that succeeded."""
    return _reply("<boolean>1</boolean>", _typed(value), "<i4>0</i4>")


def failure(method: str, error: OneError) -> bytes:
    """The reply of a call that failed."""
    text = f"[{method}] {error.text}"
    return _reply("<boolean>0</boolean>", _typed(text), _typed(error.code), _typed(error.object_id), "<i8>-1</i8>")


def fault(error: FaultError) -> bytes:
    """The reply to what is no call."""
    return _document(
        "<fault>\r\n<value><struct>\r\n"
        f"<member><name>faultCode</name>\r\n<value><i4>{error.code}</i4></value></member>\r\n"
        f"<member><name>faultString</name>\r\n<value><string>{_escape(error.text)}</string></value></member>\r\n"
        "</struct></value>\r\n</fault>"
    )
