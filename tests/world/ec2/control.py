"""What stands before the lab's EC2: it records calls, throttles them, makes them fail, or kills their caller.

Under /lab/ it has an interface of its own, plain HTTP with JSON:

* POST /lab/reset: an account as `populate` describes, no settings, no calls.
* POST /lab/settings: any of `elastic_ips`, `visibility_delay`, `throttle`, `kill`, `fail`, `mark`, `clock_ahead`, as
  `Ec2World` sends them.
* GET /lab/calls: the calls so far; DELETE forgets them.
* POST /lab/populate: see `populate`.

Calls by the world's own client are neither recorded nor counted, throttled, failed, killed or answered late.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend

from tests.world.killing import end

from .addresses import LIMITS
from .marks import MARKS
from .populate import begin, populate
from .region import OWN_KEY
from .views import HISTORY

_Environ = dict[str, Any]
_Start = Callable[..., Any]
_CREDENTIAL = re.compile(r"Credential=([^/]+)/[^/]+/([^/]+)/([^/]+)/")
_STATUS = {
    "AuthFailure": 401,
    "DryRunOperation": 412,
    "UnauthorizedOperation": 403,
    "InternalError": 500,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
}


def is_mutating(action: str) -> bool:
    """Whether a call changes anything, as its name tells."""
    return not action.startswith(("Describe", "Get", "List", "Search"))


class Clock:
    """The clock that answers show in their Date: how many seconds it is ahead of this machine's."""

    ahead = 0.0


CLOCK = Clock()


class Bucket:
    """Tokens: a call takes one; there are at most `capacity`, and `refill` new ones a second."""

    def __init__(self, capacity: float, refill: float) -> None:
        self._capacity, self._refill = capacity, refill
        self._tokens, self._at = capacity, time.monotonic()

    def take(self) -> bool:
        """Take a token; False if there is none."""
        now = time.monotonic()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._refill)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _reply(start: _Start, status: int, body: bytes, kind: str) -> Iterable[bytes]:
    start(f"{status} {HTTPStatus(status).phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))], None)
    return [body]


def _error(start: _Start, code: str, message: str) -> Iterable[bytes]:
    body = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>lab</RequestID></Response>"
    )
    return _reply(start, _STATUS.get(code, 400), body.encode(), "text/xml")


class Control:
    """The WSGI application before moto's.

    Args:
        inner: moto's.
        backend: of the Region that this server is.
    """

    def __init__(self, inner: Callable[[_Environ, _Start], Iterable[bytes]], backend: EC2Backend) -> None:
        self._inner, self._backend = inner, backend
        # The backend is not made for threads. One call at a time also gives calls their order.
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """No call has been made, and none is throttled, fails or kills."""
        self._calls: list[dict[str, Any]] = []
        self._throttle: dict[str, dict[str, float]] = {}
        self._buckets: dict[str, Bucket] = {}
        self._failures: dict[str, tuple[str, int]] = {}
        self._kill: dict[str, Any] = {}
        CLOCK.ahead = 0.0

    def __call__(self, environ: _Environ, start: _Start) -> Iterable[bytes]:
        """Answer a request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        path = environ["PATH_INFO"]
        with self._lock:
            if path.startswith("/lab/"):
                return self._own(environ["REQUEST_METHOD"], path, body, start)
            found = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
            if found is None or found[3] != "ec2":
                return list(self._inner(environ, start))
            if found[2] != self._backend.region_name:
                return _error(start, "AuthFailure", f"This is {self._backend.region_name}, not {found[2]}.")
            parameters = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            action = parameters.get("Action", "")
            if found[1] == OWN_KEY:
                return self._serve(action, environ, start)
            is_dry = parameters.get("DryRun") == "true"
            mutating = is_mutating(action) and not is_dry and not self._is_in_vain(parameters)
            self._calls.append({"action": action, "mutating": mutating, "parameters": parameters if mutating else {}})
            return self._call(action, is_dry, environ, start)

    def _serve(self, action: str, environ: _Environ, start: _Start) -> Iterable[bytes]:
        answer = list(self._inner(environ, start))
        if is_mutating(action):
            HISTORY.changed(self._backend)
        return answer

    def _call(self, action: str, is_dry: bool, environ: _Environ, start: _Start) -> Iterable[bytes]:
        kill = self._due()
        if kill.get("when") == "before":
            end(kill["pid"])
            return _error(start, "InternalError", "The caller has been killed.")
        if not self._allowed(action):
            return _error(start, "RequestLimitExceeded", "Request limit exceeded.")
        code = self._failure(action)
        if code:
            return _error(start, code, "This call was to fail.")
        if is_dry:
            return _error(start, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        answer = self._serve(action, environ, start)
        if kill:
            end(kill["pid"])
        return answer

    def _is_in_vain(self, parameters: dict[str, str]) -> bool:
        """Whether a call names the first address of a subnet, which is AWS' own: that is refused whoever asks."""
        subnets = (subnet for zone in self._backend.subnets.values() for subnet in zone.values())
        return parameters.get("PrivateIpAddress.1", "") in {str(subnet.cidr.network_address) for subnet in subnets}

    def _due(self) -> dict[str, Any]:
        if not self._kill:
            return {}
        self._kill["at"] -= 1
        if self._kill["at"] > 0:
            return {}
        kill, self._kill = self._kill, {}
        return kill

    def _allowed(self, action: str) -> bool:
        """Each action of an account in a Region has a token bucket; while that is empty, its calls get
        RequestLimitExceeded with status 503."""
        limit = self._throttle.get("mutating" if is_mutating(action) else "describe")
        if limit is None:
            return True
        if action not in self._buckets:
            self._buckets[action] = Bucket(limit["capacity"], limit["refill"])
        return self._buckets[action].take()

    def _failure(self, action: str) -> str:
        name = action if action in self._failures else "*"
        code, times = self._failures.get(name, ("", 0))
        if times > 1:
            self._failures[name] = (code, times - 1)
        else:
            self._failures.pop(name, None)
        return code

    def _own(self, method: str, path: str, body: bytes, start: _Start) -> Iterable[bytes]:
        answer: object = {}
        if (method, path) == ("POST", "/lab/settings"):
            self._set(json.loads(body))
        elif (method, path) == ("POST", "/lab/reset"):
            answer = self._reset(json.loads(body))
        elif (method, path) == ("GET", "/lab/calls"):
            answer = self._calls
        elif (method, path) == ("DELETE", "/lab/calls"):
            self._calls = []
        elif (method, path) == ("POST", "/lab/populate"):
            try:
                answer = populate(self._backend, json.loads(body))
            except EC2ClientError as error:
                return _reply(start, 400, str(error).encode(), "text/plain")
            finally:
                HISTORY.changed(self._backend)
        else:
            return _reply(start, 404, b"", "text/plain")
        return _reply(start, 200, json.dumps(answer).encode(), "application/json")

    def _reset(self, wanted: dict[str, Any]) -> dict[str, str]:
        self._forget()
        HISTORY.forget()
        LIMITS.elastic_ips = wanted["elastic_ips"]
        return begin(self._backend, wanted["vpc_cidr"], wanted["subnet_cidr"])

    def _set(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            if name == "elastic_ips":
                LIMITS.elastic_ips = value
            elif name == "visibility_delay":
                HISTORY.set_delay(self._backend, value)
            elif name == "throttle":
                self._throttle, self._buckets = value, {}
            elif name == "clock_ahead":
                CLOCK.ahead = value
            elif name == "kill":
                self._kill = value
            elif name == "fail":
                self._failures[value["action"]] = (value["code"], value["times"])
            elif name == "mark":
                MARKS[value["id"]] = MARKS.get(value["id"], {}) | value["values"]
                HISTORY.changed(self._backend)
            else:
                raise ValueError(f"there is no setting {name}")
