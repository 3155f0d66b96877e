"""The process behind `genrec serve`: the application under uvicorn, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from genrec.errors import ConfigError
from genrec.server.opening import answering
from genrec.server.settings import ServeConfig, check_settings


def serve_run(run: Path, settings: ServeConfig, *, say: Callable[[str], None]) -> None:
    """Serve until the process is told to end; requests that were accepted are finished first.

    `say` gets the address once it can be connected to. Raises ConfigError for settings that must not be served,
    a database that cannot be used, and an address that is taken, and whatever keeps the run from being loaded
    (RunError, ModelError, …): such a service could never become ready.
    """
    check_settings(settings)
    refused: list[Exception] = []

    def refuse(error: Exception) -> None:
        refused.append(error)
        server.should_exit = True

    listening = listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    with answering(listening, settings.host_names):
        say(f"http://{host}:{listening.getsockname()[1]}  (Ctrl-C ends; the model is being loaded)")
        import uvicorn

        from genrec.server.app import create_app

        config = uvicorn.Config(
            create_app(run, settings, refuse=refuse),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=65,  # longer than the minute after which most proxies let go
            timeout_graceful_shutdown=settings.grace,
        )
        server = uvicorn.Server(config)
    server.run(sockets=[listening])
    if refused:
        raise refused[0]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ConfigError for an address that cannot be taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror}.", "Choose another --port."
        ) from error
    return listening
