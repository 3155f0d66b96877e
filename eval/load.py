"""Load a service on this machine: many clients at once, latencies, and its throughput beside the engine's own.

    OMP_NUM_THREADS=1 python eval/load.py RUN [--clients 200] [--seconds 60]

Starts `genrec serve RUN` on a free port of 127.0.0.1 and opens the run in this process too. The engine alone is
measured before and after the service, so that what else the machine does falls on both. Prints p50/p95/p99, statuses,
memory and the CPU time of one request, ends the service with SIGTERM, and gives up where it does not get ready.
Only the loopback address is ever asked.

OpenMP's threads wait for each other: where another program has one of two cores, two threads take many times the time
of one. Leave the service a core for HTTP.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from genrec.data.splits import evaluation_cases
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run

BATCH = 64
K = 10
READY_SECONDS = 180
ANSWER_SECONDS = 60


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


async def client_loop(port: int, bodies: Iterator[bytes], until: float, seen: list[tuple[float, int]]) -> None:
    """One client: ask, wait for the answer, ask again; a 429 is heeded, status 0 is a broken connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (started := time.monotonic()) < until:
        try:
            status, later = await asyncio.wait_for(ask(reader, writer, next(bodies)), ANSWER_SECONDS)
        except (OSError, EOFError, TimeoutError):
            seen.append((time.monotonic() - started, 0))
            break
        seen.append((time.monotonic() - started, status))
        await asyncio.sleep(later if status == 429 else 0)
    writer.close()


async def load(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> list[tuple[float, int]]:
    """All clients at once; (seconds, status) of every request."""
    seen: list[tuple[float, int]] = []
    until, cycle = time.monotonic() + seconds, itertools.cycle(bodies)
    await asyncio.gather(*(client_loop(port, cycle, until, seen) for _ in range(clients)))
    return seen


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
    recommender, cases = Recommender.load(given.run), evaluation_cases(Run.open(given.run), "test")
    requests = [RankRequest(history) for history in cases.histories]
    ids = recommender.catalog.item_ids
    histories = ([ids[item] for item in history] for history in cases.histories)
    bodies = [json.dumps({"history": history, "k": K}).encode() for history in histories]
    with served(given.run) as (service, port):
        asyncio.run(load(port, bodies, given.clients, 3))  # warm
        parts = [engine_alone(recommender, requests, given.seconds / 4)]
        before, cpu, started = memory_mb(service.pid), cpu_seconds(service.pid), time.monotonic()
        seen = asyncio.run(load(port, bodies, given.clients, given.seconds))
        seconds, cpu = time.monotonic() - started, cpu_seconds(service.pid) - cpu
        after = memory_mb(service.pid)
        parts.append(engine_alone(recommender, requests, given.seconds / 4))
        service.send_signal(signal.SIGTERM)
        status = service.wait(60)
    times = [taken for taken, code in seen if code == 200]
    here = Measured(len(times), seconds, cpu)
    alone = Measured(*(sum(values) for values in zip(*((p.requests, p.seconds, p.cpu) for p in parts), strict=True)))
    print(f"{given.clients} clients, {seconds:.0f} s: {dict(Counter(code for _, code in seen))}")
    if times:
        p50, p95, p99 = np.percentile(times, [50, 95, 99]) * 1000
        print(f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    print(f"engine alone {', '.join(f'{part.per_second:.1f}/s' for part in parts)}: {alone.per_second:.1f}/s")
    print(f"service {here.per_second:.1f}/s: {here.per_second / alone.per_second:.0%} of the engine alone")
    print(f"CPU of one request: engine {alone.cpu_ms:.2f} ms, service {here.cpu_ms:.2f} ms")
    print(f"memory {before:.0f} MB before, {after:.0f} MB after; exit status {status}")
    return 0 if set(code for _, code in seen) <= {200, 429} else 1


if __name__ == "__main__":
    sys.exit(main())
