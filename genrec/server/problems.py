"""Errors as answers: RFC 9457 problems, with an `error` member beside it that clients of OpenAI's API read.

Nothing of the web framework is imported here until a problem has to be its response: the page's first second
(`opening`) answers with problems, too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi.responses import Response

MEDIA_TYPE = "application/problem+json"
# What keeps browsers strict, on every answer.
STRICT_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class ProblemError(Exception):
    """An answer that is an error. `title` is the same for every case of its kind, `detail` says what was found."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        self.status, self.title, self.detail = status, title, detail
        self.headers = dict(headers or {})
        self.errors = errors
        super().__init__(f"{status} {title}: {detail}")

    def body(self) -> bytes:
        """The problem as JSON."""
        values: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "error": {"message": self.detail, "type": self.title, "code": self.status},
        }
        if self.errors is not None:
            values["errors"] = self.errors
        return json.dumps(values).encode()

    def response(self) -> Response:
        """The problem as an answer."""
        from fastapi.responses import Response

        return Response(self.body(), self.status, headers=self.headers, media_type=MEDIA_TYPE)


def not_found(what: str) -> ProblemError:
    """The problem of something that is not there."""
    return ProblemError(404, "Not Found", f"{what} is not here.")


def too_busy(seconds: int) -> ProblemError:
    """The problem of a queue that is full."""
    return ProblemError(
        429,
        "Too Many Requests",
        f"Too many requests are waiting. Try again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
    )


def not_ready(detail: str) -> ProblemError:
    """The problem of a service that is loading, ending or broken."""
    return ProblemError(503, "Service Unavailable", detail, headers={"Retry-After": "1"})


def misdirected(host: str, names: Collection[str]) -> ProblemError | None:
    """The problem of a request whose Host header is none of `names`; with no names every host will do."""
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    if not names or name.lower() in names:
        return None
    return ProblemError(421, "Misdirected Request", "This service is not called by that host name.")
