"""Every error of the application as a problem; none shows a stack trace."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from genrec.errors import GenrecError
from genrec.server.problems import ProblemError

_LOG = logging.getLogger("genrec.server")


def install(app: FastAPI) -> None:
    """Answer every error of an application with a problem."""

    async def problem(request: Request, error: Exception) -> Response:
        return as_problem(request, error).response()

    for kind in (ProblemError, GenrecError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, problem)


def as_problem(request: Request, error: Exception) -> ProblemError:
    """What an error of a request is as an answer. One that nobody foresaw is logged, and says no more than that."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, GenrecError):
        return ProblemError(422, "Unprocessable Content", str(error))
    if isinstance(error, HTTPException):
        title = HTTPStatus(error.status_code).phrase
        return ProblemError(error.status_code, title, str(error.detail), headers=error.headers)
    if isinstance(error, RequestValidationError):
        # What was sent is not echoed: it may be long, secret or not encodable.
        found = [{"at": [*map(str, one["loc"])], "message": _plain(str(one["msg"]))} for one in error.errors()[:20]]
        detail = "; ".join(f"{'.'.join(one['at'])}: {one['message']}" for one in found)
        return ProblemError(422, "Unprocessable Content", _plain(detail), errors=found)
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return ProblemError(500, "Internal Server Error", "Something went wrong here; it has been logged.")


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
