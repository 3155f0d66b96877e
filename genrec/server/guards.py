"""What stands before every request: who may ask, under which name, and how much.

Plain ASGI, outermost first: the host name and what a browser says of the page that asks (one of another site must not
talk to a service on this machine), the API key, the size of the body; and the headers that keep browsers strict.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec.server.problems import STRICT_HEADERS, ProblemError, misdirected

OPEN_PATHS = ("/health", "/ready", "/", "/favicon.ico")  # and the files of the page: they hold no data
_HEADERS = [(name.encode(), value.encode()) for name, value in STRICT_HEADERS.items()]


class _TooLargeError(Exception):
    pass


class Guard:
    """Lets through what may pass, and answers the rest itself."""

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], host_names: Sequence[str], max_body: int) -> None:
        self._app, self._max_body = app, max_body
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._host_names = frozenset(name.lower() for name in host_names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        problem = self._refusal(scope["path"], headers)
        started, oversized, size = False, False, 0

        async def counted() -> Message:
            nonlocal size, oversized
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._max_body:
                    oversized = True
                    raise _TooLargeError
            return message

        async def strict(message: Message) -> None:
            nonlocal started
            if oversized and not started:  # what the application makes of a body that was cut off
                return
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        try:
            if problem is None:
                await self._app(scope, counted, strict)
        except _TooLargeError:
            pass
        if oversized and not started:
            problem, oversized = self._too_large(), False
        if problem is not None and not started:
            await problem.response()(scope, receive, strict)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> ProblemError | None:
        if problem := misdirected(headers.get(b"host", b"").decode("latin-1"), self._host_names):
            return problem
        is_open = path in OPEN_PATHS or path.startswith("/page/")
        if self._host_names and not is_open and headers.get(b"sec-fetch-site") == b"cross-site":
            return ProblemError(403, "Forbidden", "Pages of other sites may not use this service.")
        if self._digests and not is_open and not self._has_key(headers):
            return ProblemError(
                401, "Unauthorized", "An API key is needed.", headers={"WWW-Authenticate": 'Bearer realm="genrec"'}
            )
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_body:
            return self._too_large()
        return None

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        # Every key is compared, in constant time: how long it takes says nothing about which one is close.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)

    def _too_large(self) -> ProblemError:
        return ProblemError(413, "Content Too Large", f"A request may have {self._max_body:,} bytes.")
