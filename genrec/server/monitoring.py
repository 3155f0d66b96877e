"""What Prometheus reads: requests, how long they took, how many wait, how they were batched."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Monitor:
    """The figures of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "genrec_requests_total", "Answers by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "genrec_request_seconds",
            "Time to the end of an answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "genrec_batch_size",
            "Requests ranked together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "genrec_batch_seconds", "Time of one batch.", buckets=_SECONDS, registry=self.registry
        )
        self.turns = Counter(
            "genrec_chat_turns_total", "Turns of conversations by act.", ["act"], registry=self.registry
        )
        self.waiting = Gauge("genrec_waiting_requests", "Requests in the queue.", registry=self.registry)
        self.open = Gauge("genrec_open_requests", "Requests that are being answered.", registry=self.registry)
        self.ready = Gauge("genrec_ready", "1 where the model is loaded.", registry=self.registry)

    def batch(self, size: int, seconds: float) -> None:
        """See `worker.Observer`."""
        self.batches.observe(size)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class MonitorRequests:
    """Counts answers by the route's pattern, never by the path: paths hold ids, and there is no end of them."""

    def __init__(self, app: ASGIApp, *, monitor: Monitor) -> None:
        self._app, self._monitor = app, monitor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 499  # the client went away before there was an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._monitor.open.inc()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._monitor.open.dec()
            route = getattr(scope.get("route"), "path_format", "other")
            self._monitor.requests.labels(route, str(status)).inc()
            self._monitor.seconds.labels(route).observe(time.monotonic() - started)
