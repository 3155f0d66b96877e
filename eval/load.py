"""Load a service on this machine: many clients at once, latencies, and its throughput beside the engine's own.

    python eval/load.py RUN [--clients 200] [--seconds 60]

Starts `genrec serve RUN` on a free port of 127.0.0.1 and opens the run in this process too. The engine alone is
measured before and after the service, with as many threads as the service takes, so that what else the machine does
falls on both. Prints p50/p95/p99, statuses, resident memory over time and the CPU time of one request. Then SIGTERM
comes while all clients ask: what was accepted before it has to be answered. Gives up where the service does not get
ready. Only the loopback address is ever asked.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from genrec.data.splits import evaluation_cases
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run
from genrec.server.threads import limit_threads

BATCH = 64
K = 10
READY_SECONDS = 180
ANSWER_SECONDS = 60
WATCH_SECONDS = 5.0
SHOWN_MEMORY = 13


@dataclass(frozen=True)
class Measured:
    """Requests answered, and the wall and CPU seconds that they took."""

    requests: int
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        """Throughput."""
        return self.requests / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time of one request."""
        return 1000 * self.cpu / max(1, self.requests)


def engine_alone(recommender: Recommender, requests: Sequence[RankRequest], seconds: float) -> Measured:
    """The engine without a service, in batches as large as the service's."""
    done, started, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds:
        recommender.rank([requests[(done + number) % len(requests)] for number in range(BATCH)], K)
        done += BATCH
    return Measured(done, time.monotonic() - started, time.process_time() - cpu)


def memory_mb(pid: int) -> float:
    """Resident memory of a process in MB (Linux)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else float("nan")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, float]:
    """Status and Retry-After of one answer; the connection stays open.

    Plain sockets, because a client library's pool of 200 connections takes more CPU time than the service has left.
    """
    head = "POST /v1/recommendations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    length, later = (re.search(rb"%s: (\d+)" % name, answer) for name in (b"content-length", b"retry-after"))
    assert length is not None
    await reader.readexactly(int(length[1]))
    return int(answer.split(b" ", 2)[1]), float(later[1]) if later else 0.0


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent and answered, and the status; 0 is a connection that broke."""

    sent: float
    done: float
    status: int


async def client_loop(port: int, bodies: Iterator[bytes], until: float, seen: list[Answer]) -> None:
    """One client: ask, wait for the answer, ask again; a 429 is heeded."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (started := time.monotonic()) < until:
        try:
            status, later = await asyncio.wait_for(ask(reader, writer, next(bodies)), ANSWER_SECONDS)
        except (OSError, EOFError, TimeoutError):
            seen.append(Answer(started, time.monotonic(), 0))
            break
        seen.append(Answer(started, time.monotonic(), status))
        await asyncio.sleep(later if status == 429 else 0)
    writer.close()


async def load(
    port: int, bodies: Sequence[bytes], clients: int, seconds: float, *, watch: Callable[[], None] = lambda: None
) -> list[Answer]:
    """All clients at once; every request. `watch` is called every few seconds meanwhile."""
    seen: list[Answer] = []
    until, cycle = time.monotonic() + seconds, itertools.cycle(bodies)

    async def watching() -> None:
        while True:
            watch()
            await asyncio.sleep(WATCH_SECONDS)

    watcher = asyncio.create_task(watching())
    await asyncio.gather(*(client_loop(port, cycle, until, seen) for _ in range(clients)))
    watcher.cancel()
    return seen


def end_under_load(service: subprocess.Popen[str], port: int, bodies: Sequence[bytes], clients: int) -> str:
    """SIGTERM in the middle of a load: what became of the requests that were on their way."""
    told: list[float] = []

    def watch() -> None:
        if len(told) == 1:
            service.send_signal(signal.SIGTERM)
        told.append(time.monotonic())

    seen = asyncio.run(load(port, bodies, clients, 3 * WATCH_SECONDS, watch=watch))
    status = service.wait(60)
    on_their_way = Counter(one.status for one in seen if one.sent < told[1] < one.done)
    ended = time.monotonic() - told[1]
    return f"SIGTERM: on their way {dict(on_their_way)}, exit status {status} after at most {ended:.1f} s"


@contextmanager
def served(run: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service in a process of its own and its port, once the model is loaded; it is killed if it still runs."""
    command = [sys.executable, "-m", "genrec", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            address = service.stdout.readline().split()[0]
            until = time.monotonic() + READY_SECONDS
            while httpx.get(f"{address}/ready", timeout=30).status_code != 200:
                if time.monotonic() > until:
                    raise SystemExit(f"the service did not become ready in {READY_SECONDS} s")
                time.sleep(0.2)
            yield service, int(address.rpartition(":")[2])
        finally:
            service.kill()


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Load test of a service on this machine.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    limit_threads(None)
    recommender, cases = Recommender.load(given.run), evaluation_cases(Run.open(given.run), "test")
    requests = [RankRequest(history) for history in cases.histories]
    ids = recommender.catalog.item_ids
    histories = ([ids[item] for item in history] for history in cases.histories)
    bodies = [json.dumps({"history": history, "k": K}).encode() for history in histories]
    with served(given.run) as (service, port):
        asyncio.run(load(port, bodies, given.clients, 3))  # warm
        parts = [engine_alone(recommender, requests, given.seconds / 4)]
        memory: list[float] = []
        cpu, started = cpu_seconds(service.pid), time.monotonic()
        seen = asyncio.run(
            load(port, bodies, given.clients, given.seconds, watch=lambda: memory.append(memory_mb(service.pid)))
        )
        seconds, cpu = time.monotonic() - started, cpu_seconds(service.pid) - cpu
        memory.append(memory_mb(service.pid))
        parts.append(engine_alone(recommender, requests, given.seconds / 4))
        ending = end_under_load(service, port, bodies, given.clients)
    statuses = Counter(one.status for one in seen)
    times = [one.done - one.sent for one in seen if one.status == 200]
    here = Measured(len(times), seconds, cpu)
    alone = Measured(*(sum(values) for values in zip(*((p.requests, p.seconds, p.cpu) for p in parts), strict=True)))
    print(f"{given.clients} clients, {seconds:.0f} s: {dict(statuses)}")
    if times:
        p50, p95, p99 = np.percentile(times, [50, 95, 99]) * 1000
        print(f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    print(f"engine alone {', '.join(f'{part.per_second:.1f}/s' for part in parts)}: {alone.per_second:.1f}/s")
    print(f"service {here.per_second:.1f}/s: {here.per_second / alone.per_second:.0%} of the engine alone")
    print(f"CPU of one request: engine {alone.cpu_ms:.2f} ms, service {here.cpu_ms:.2f} ms")
    shown = [memory[round(place)] for place in np.linspace(0, len(memory) - 1, min(len(memory), SHOWN_MEMORY))]
    print(f"memory over time, MB: {', '.join(f'{one:.0f}' for one in shown)}; highest {max(memory):.0f}")
    print(ending)
    return 0 if set(statuses) <= {200, 429} else 1


if __name__ == "__main__":
    sys.exit(main())
