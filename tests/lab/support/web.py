"""A small web server for guests and the Internet, run as `python3 -c TEXT PORT...`.

`/` says whom it sees, `/big/BYTES/SECONDS` sends that many zero bytes spread over that time.
"""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = 16384


class Handler(BaseHTTPRequestHandler):
    """See the module."""

    def do_GET(self) -> None:
        """Answer."""
        parts = self.path.strip("/").split("/")
        if parts[0] == "big":
            self._big(int(parts[1]), float(parts[2]))
            return
        body = f"{self.client_address[0]}\n".encode()
        self._head(len(body))
        self.wfile.write(body)

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _big(self, size: int, seconds: float) -> None:
        self._head(size)
        started, sent = time.monotonic(), 0
        while sent < size:
            step = min(CHUNK, size - sent)
            self.wfile.write(b"\0" * step)
            sent += step
            time.sleep(max(0.0, started + seconds * sent / size - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve on all ports that the command line names."""
    for port in map(int, sys.argv[1:]):
        server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
        threading.Thread(target=server.serve_forever).start()
    print("ready", flush=True)


if __name__ == "__main__":
    main()
