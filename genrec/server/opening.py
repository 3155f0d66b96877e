"""The first second of a service: the page and `/health` from the standard library, while the application is imported.

Importing the web framework and the schemas takes most of a second of CPU time, and people look at an empty tab
meanwhile. The page's files need none of it; everything else is told to come again, with the same problem and headers
that the application has for it. A connection carries one answer, so that the next one reaches the application.
"""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from urllib.parse import urlsplit

from genrec.server.problems import MEDIA_TYPE, STRICT_HEADERS, misdirected, not_ready

PAGE = Path(__file__).parent / "page"
_ALIVE = b'{"status":"alive","detail":"","catalog_version":null}'
_LOOK_SECONDS = 0.02  # how often the thread looks whether it is to end
_READ_SECONDS = 2.0  # a client that says nothing is hung up on, so that its next try reaches the application


@contextmanager
def answering(listening: socket, host_names: Collection[str]) -> Iterator[None]:
    """Answer what comes to a listening socket until the block ends; the socket stays open for whoever takes over."""
    files = {"/": PAGE / "index.html"} | {f"/page/{path.name}": path for path in PAGE.iterdir() if path.is_file()}

    class Handler(_Handler):
        timeout = _READ_SECONDS

        def answer(self) -> tuple[int, str, bytes]:
            path = urlsplit(self.path).path
            problem = misdirected(self.headers.get("host", ""), host_names)
            if problem is None and self.command in ("GET", "HEAD"):
                if path in files:
                    kind = mimetypes.guess_type(files[path].name)[0]
                    return 200, kind or "application/octet-stream", files[path].read_bytes()
                if path == "/health":
                    return 200, "application/json", _ALIVE
            problem = problem or not_ready("The service is starting.")
            return problem.status, MEDIA_TYPE, problem.body()

    server = ThreadingHTTPServer(listening.getsockname()[:2], Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening.dup()
    thread = threading.Thread(target=server.serve_forever, args=(_LOOK_SECONDS,), name="genrec-opening", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()  # answers that have begun are finished by their own threads


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, one connection."""

    server_version, sys_version = "genrec", ""

    def answer(self) -> tuple[int, str, bytes]:
        """Status, media type and body."""
        raise NotImplementedError

    def _send(self) -> None:
        status, kind, body = self.answer()
        self.send_response_only(status)
        for name, value in STRICT_HEADERS.items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-cache")
        self.send_header("connection", "close")
        if status == 503:
            self.send_header("retry-after", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = _send  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the application logs no requests either."""
