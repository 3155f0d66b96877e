"""Load a service on this machine: many clients at once, latencies, and its throughput beside the engine's own.

    python eval/load.py RUN [--clients 200] [--seconds 60]

Starts `genrec serve RUN` on a free port of 127.0.0.1, measures the engine's batch throughput in a process of its own
before and the service after it, prints p50/p95/p99, statuses, memory, and ends the service with SIGTERM.
Only the loopback address is ever asked.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from genrec.data.splits import evaluation_cases
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run

BATCH = 64
K = 10


def engine_throughput(run: Path, seconds: float) -> float:
    """Recommendations per second of the engine alone, in batches as large as the service's."""
    recommender, cases = Recommender.load(run), evaluation_cases(Run.open(run), "test")
    requests = [RankRequest(history) for history in cases.histories]
    done, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        part = [requests[(done + number) % len(requests)] for number in range(BATCH)]
        recommender.rank(part, K)
        done += BATCH
    return done / (time.monotonic() - started)


def memory_mb(pid: int) -> float:
    """Resident memory of a process in MB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


async def client_loop(
    client: httpx.AsyncClient, bodies: itertools.cycle[dict[str, object]], until: float, seen: list[tuple[float, int]]
) -> None:
    """One client: ask, wait for the answer, ask again; a 429 is heeded."""
    while (started := time.monotonic()) < until:
        try:
            answer = await client.post("/v1/recommendations", json=next(bodies))
            status = answer.status_code
            if status == 429:
                await asyncio.sleep(float(answer.headers["Retry-After"]))
        except httpx.HTTPError:
            status = 0
        seen.append((time.monotonic() - started, status))


async def load(address: str, bodies: list[dict[str, object]], clients: int, seconds: float) -> list[tuple[float, int]]:
    """All clients at once; (seconds, status) of every request, status 0 for a broken connection."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    seen: list[tuple[float, int]] = []
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        until, cycle = time.monotonic() + seconds, itertools.cycle(bodies)
        await asyncio.gather(*(client_loop(client, cycle, until, seen) for _ in range(clients)))
    return seen


def wait_until_ready(address: str) -> None:
    """Return when the model is loaded; give up after three minutes."""
    for _ in range(900):
        if httpx.get(f"{address}/ready", timeout=30).status_code == 200:
            return
        time.sleep(0.2)
    raise SystemExit("the service did not become ready")


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Load test of a service on this machine.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    alone = engine_throughput(given.run, min(20, given.seconds))
    command = [sys.executable, "-m", "genrec", "serve", str(given.run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        address = service.stdout.readline().split()[0]
        wait_until_ready(address)
        cases = evaluation_cases(Run.open(given.run), "test")
        ids = Recommender.load(given.run).catalog.item_ids
        bodies: list[dict[str, object]] = [
            {"history": [ids[item] for item in history], "k": K} for history in cases.histories
        ]
        asyncio.run(load(address, bodies, given.clients, 5))  # warm
        before, started = memory_mb(service.pid), time.monotonic()
        seen = asyncio.run(load(address, bodies, given.clients, given.seconds))
        seconds, after = time.monotonic() - started, memory_mb(service.pid)
        service.send_signal(signal.SIGTERM)
        status = service.wait(60)
    times = np.array([taken for taken, code in seen if code == 200]) * 1000
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    throughput = len(times) / seconds
    print(f"{given.clients} clients, {seconds:.0f} s: {dict(Counter(code for _, code in seen))}")
    print(f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    print(f"service {throughput:.0f}/s, engine alone {alone:.0f}/s: {throughput / alone:.0%}")
    print(f"memory {before:.0f} MB before, {after:.0f} MB after; exit status {status}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
