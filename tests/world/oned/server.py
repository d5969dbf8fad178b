"""A stand-in for OpenNebula's oned: XML-RPC over HTTP, faithful to recordings of a real one.

Clients talk to it as to the real one. A test plays what else changes an OpenNebula: monitoring, drivers, VMs that
run, move and end.
"""

from __future__ import annotations

import inspect
import threading
import time
import xmlrpc.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from . import methods, wire
from .control import CallerKilledError
from .play import Play
from .wire import OneError

SESSION = "oneadmin:SESSION"

_METHODS = {
    "one." + name.replace("_", ".", 1): function
    for name, function in inspect.getmembers(methods, inspect.isfunction)
    if function.__module__ == methods.__name__ and not name.startswith("_")
}
_READS = ("info", "infoextended", "version", "config", "raftstatus")


def _arguments(function: Callable[..., int | str], values: tuple[object, ...]) -> tuple[object, ...]:
    """Select what a method's function gets of a call's arguments; oned ignores what is beyond its parameters.

    Raises:
        Fault: an argument is missing or of another type.
    """
    _, *parameters = inspect.signature(function).parameters.values()
    for parameter, value in zip(parameters, values, strict=False):
        if type(value).__name__ != parameter.annotation:
            raise xmlrpc.client.Fault(
                wire.WRONG_TYPE, f"Parameter that is supposed to be {parameter.annotation} is not"
            )
    if any(parameter.default is parameter.empty for parameter in parameters[len(values) :]):
        raise xmlrpc.client.Fault(wire.WRONG_TYPE, "Not enough parameters")
    return values[: len(parameters)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    answer: Callable[[bytes], bytes]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a caller that is gone is no news, for tests kill it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            reply = self.server.answer(body)
        except CallerKilledError:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/xml; charset=utf-8")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what was called is in Oned.calls()."""


class Oned(Play):
    """An oned of its own on loopback, empty but for the default cluster.

    Attributes:
        session: what clients have to present, "user:password".
        latency: seconds that every call takes; may be changed at any time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.session, self.latency = SESSION, 0.0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.answer = self._answer
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Oned:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """Tell what ONE_XMLRPC is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/RPC2"

    def environment(self, directory: Path) -> dict[str, str]:
        """Give the variables by which OpenNebula's clients find it; writes the file `one_auth` into `directory`."""
        auth = directory / "one_auth"
        # Nobody else can read it, not even between making and filling it.
        auth.touch(0o600)
        auth.chmod(0o600)
        auth.write_text(self.session + "\n")
        return {"ONE_XMLRPC": self.endpoint, "ONE_AUTH": str(auth)}

    def reset(self) -> None:
        """Begin anew, at the same endpoint: only the default cluster is left, of objects and of arrangements."""
        with self._lock:
            self._forget_objects()
            self._forget_arrangements()
            self.latency = 0.0

    def _answer(self, body: bytes) -> bytes:
        if self.latency:
            time.sleep(self.latency)
        try:
            method, values = wire.read(body)
            if method not in _METHODS:
                raise xmlrpc.client.Fault(wire.NO_SUCH_METHOD, f"Method '{method}' not defined")
            try:
                return wire.success(self._execute(method, values))
            except OneError as error:
                return wire.failure(method, error)
        except xmlrpc.client.Fault as fault:
            return wire.fault(fault)

    def _execute(self, method: str, values: tuple[object, ...]) -> int | str:
        if values[:1] != (self.session,):
            raise OneError(wire.AUTHENTICATION, "User couldn't be authenticated, aborting call.")
        function, mutates = _METHODS[method], not method.endswith(_READS)
        return self._perform(method, mutates, lambda: function(self._state, *_arguments(function, values[1:])))
