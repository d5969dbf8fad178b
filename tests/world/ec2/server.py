"""EC2 for the lab: a moto server whose backend is corrected where it differs from EC2 in what the lab stands on.

Run as `python -m tests.world.ec2.server FD REGION`; FD is a listening socket. The corrections are in `addresses`
and `describe`, what a test can do to calls in `control`. Clients are never patched.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

# Before moto is imported: thousands of images would take seconds, and an instance starts from any name of one.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from . import addresses, describe, notices
from .control import CLOCK, Control


class _Handler(MotoRequestHandler):  # type: ignore[misc]
    protocol_version = "HTTP/1.1"
    # Header and body are two writes; without this the second waits for the client's delayed acknowledgment.
    disable_nagle_algorithm = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date of an answer."""
        return str(super().date_time_string((time.time() if timestamp is None else timestamp) + CLOCK.ahead))

    def log_request(self, *_: Any) -> None:
        """Only errors are worth a line."""


def main() -> None:
    """Serve until killed."""
    fd, region = int(sys.argv[1]), sys.argv[2]
    addresses.correct()
    describe.correct()
    notices.correct()
    application = Control(DomainDispatcherApplication(create_backend_app), ec2_backends[DEFAULT_ACCOUNT_ID][region])
    make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Handler, fd=fd).serve_forever()


if __name__ == "__main__":
    main()
