"""A stand-in for OpenNebula's oned: XML-RPC over HTTP, faithful to recordings of a real one.

Clients talk to it as to the real one. A test plays what else changes an OpenNebula: monitoring, drivers, VMs that
run, move and end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from . import methods as _methods  # noqa: F401 - registers what it serves
from . import vn_methods as _vn_methods  # noqa: F401 - likewise
from . import wire as oned_wire
from .control import CallerKilledError, Control, When
from .play import Play
from .state import METHODS, State
from .wire import AUTHENTICATION, Call, FaultError, OneError, Parameters

SESSION = "oneadmin:SESSION"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    answer: Callable[[bytes], bytes]

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that is gone is no news: tests kill it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path not in ("/RPC2", "/"):
            self.send_error(404)
            return
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
        """Nothing: what was called is in Oned.calls()."""


class Oned(Play):
    """An oned of its own on loopback, empty but for the default cluster.

    Args:
        session: that clients have to present, "user:password".
        latency: seconds that every call takes; may be changed at any time.
    """

    def __init__(self, session: str = SESSION, latency: float = 0.0) -> None:
        super().__init__()
        self.session, self.latency = session, latency
        self._first_latency = latency
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.answer = self._answer
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Oned:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """What ONE_XMLRPC is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/RPC2"

    def environment(self, directory: Path) -> dict[str, str]:
        """The variables by which OpenNebula's clients find it; writes the file `one_auth` into `directory`."""
        auth = directory / "one_auth"
        # Nobody else can read it, not even between making and filling it.
        auth.touch(0o600)
        auth.chmod(0o600)
        auth.write_text(self.session + "\n")
        return {"ONE_XMLRPC": self.endpoint, "ONE_AUTH": str(auth)}

    def reset(self) -> None:
        """Begin anew, at the same endpoint: only the default cluster is left, of objects and of arrangements."""
        with self._lock:
            self._state, self._control = State(), Control()
            self.latency = self._first_latency

    def calls(self) -> list[str]:
        """The methods of every call since the start or forget_calls(), in the order of their arrival.

        Failed calls are among them, those that were not authenticated are not.
        """
        return [call.method for call in self.call_details()]

    def mutating_calls(self) -> list[str]:
        """Those of them that change something when they succeed."""
        return [call.method for call in self.call_details() if call.mutates]

    def call_details(self) -> list[Call]:
        """The same calls as calls(), with their arguments."""
        with self._lock:
            return list(self._control.calls)

    def forget_calls(self) -> None:
        """Begin the record of calls anew."""
        with self._lock:
            self._control.calls.clear()

    def kill_at(self, n: int, when: When, pid: int) -> None:
        """Kill a process at the n-th call from now on, the first being 1. Nobody gets a reply to that call.

        Args:
            n: counts every call that is authenticated, failed ones too.
            when: "before" the call takes effect, or "after", but before the reply.
            pid: the process.
        """
        with self._lock:
            self._control.kill_at(n, when, pid)

    def fail_next(
        self, method: str, code: int = oned_wire.INTERNAL, times: int = 1, text: str = "Internal error"
    ) -> None:
        """Let the next `times` calls of a method ("one.vn.add_ar") fail without effect.

        Args:
            method: in full.
            code: of the names in oned_wire: ACTION, INTERNAL and so on.
            times: how many calls.
            text: of the error; oned puts the method before it.
        """
        with self._lock:
            self._control.fail_next(method, OneError(code, text), times)

    def before(self, method: str, callback: Callable[[], None]) -> None:
        """Run a function once, just before the next call of a method does its work."""
        with self._lock:
            self._control.before(method, callback)

    def _answer(self, body: bytes) -> bytes:
        if self.latency:
            time.sleep(self.latency)
        try:
            method, values = oned_wire.read(body)
            if method not in METHODS:
                raise FaultError(oned_wire.NO_SUCH_METHOD, f"Method '{method}' not defined")
            try:
                return oned_wire.success(self._execute(method, values))
            except OneError as error:
                return oned_wire.failure(method, error)
        except FaultError as error:
            return oned_wire.fault(error)

    def _execute(self, method: str, values: tuple[object, ...]) -> int | str:
        parameters = Parameters(values)
        if parameters.string(0) != self.session:
            raise OneError(AUTHENTICATION, "User couldn't be authenticated, aborting call.")
        handler, mutates = METHODS[method]
        with self._lock:
            callback = self._control.callback(method)
        if callback is not None:
            callback()
        with self._lock:
            due = self._control.arrived(Call(method, values[1:], mutates))
            try:
                self._control.check_failure(method)
                return handler(self._state, parameters)
            finally:
                self._control.finished(due)
