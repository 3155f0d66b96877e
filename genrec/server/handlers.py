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
