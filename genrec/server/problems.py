"""Errors as answers: RFC 9457 problems, with an `error` member beside it that clients of OpenAI's API read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from genrec.errors import GenrecError

_LOG = logging.getLogger("genrec.server")
MEDIA_TYPE = "application/problem+json"


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


def install(app: FastAPI) -> None:
    """Answer every error of an application with a problem; none shows a stack trace."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return error.response()

    async def ours(_: Request, error: Exception) -> Response:
        return ProblemError(422, "Unprocessable Content", str(error)).response()

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        title = HTTPStatus(error.status_code).phrase
        return ProblemError(error.status_code, title, str(error.detail), headers=error.headers).response()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # What was sent is not echoed: it may be long, secret or not encodable.
        found = [{"at": [*map(str, one["loc"])], "message": _plain(str(one["msg"]))} for one in error.errors()[:20]]
        detail = "; ".join(f"{'.'.join(one['at'])}: {one['message']}" for one in found)
        return ProblemError(422, "Unprocessable Content", _plain(detail), errors=found).response()

    async def unexpected(request: Request, error: Exception) -> Response:
        _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return ProblemError(500, "Internal Server Error", "Something went wrong here; it has been logged.").response()

    app.add_exception_handler(ProblemError, problem)
    app.add_exception_handler(GenrecError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
