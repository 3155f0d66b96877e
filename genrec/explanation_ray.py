"""Bulk explanation on a Ray cluster: the lines become a Ray dataset, each worker opens the run once.

The answers come back in the order of the lines, so the file is the one that a single process writes, and it is
resumed in the same way. Every machine of the cluster needs the run, the languages and the tags under the same paths.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from genrec.errors import MissingDependencyError, RunError
from genrec.explanation_batch import LINES_AT_ONCE, Answers, ExplainJob


def explain_on_ray(address: str | None, *, workers: int) -> Answers:
    """Answers from `workers` processes of a cluster: that of `address`, or one of this machine where it is None.

    Raises MissingDependencyError where Ray is not installed, RunError where the cluster does not answer.
    """
    return partial(_answers, address=address, workers=workers)


class _Worker:
    """What every process of the cluster holds: the opened run."""

    def __init__(self, job: ExplainJob) -> None:
        self._worker = job.open()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        lines = [
            (int(number), line.decode("utf-8", errors="surrogateescape"))
            for number, line in zip(batch["number"], batch["line"], strict=True)
        ]
        answers = self._worker.answers(lines)
        return {"answer": [answer.encode("utf-8", errors="backslashreplace") for answer in answers]}


def _connect(init: Callable[..., object], address: str | None, workers: int) -> None:
    """Join a cluster or start one. Raises RunError where that fails, which Ray also says by ending the process."""
    where = {"address": address} if address else {"address": "local", "num_cpus": workers}
    try:
        init(**where, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError, TimeoutError, SystemExit) as error:
        raise RunError(
            f"Ray cannot {f'reach a cluster at {address}' if address else 'start a cluster'}: {error}.",
            "`ray status` says what runs; `ray start --head`, then `--ray-address auto`, joins what runs here.",
        ) from error


def _answers(job: ExplainJob, lines: Iterable[tuple[int, str]], *, address: str | None, workers: int) -> Iterator[str]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no report about us to anybody
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError("Ray is not installed.", "Install the extra `ray` (docs/install.md).") from error
    job.open()  # what is wrong with the options is said here, not by a worker
    # Bytes: a line may hold bytes that are not UTF-8, and its answer is to say so.
    rows = [{"number": number, "line": line.encode("utf-8", errors="surrogateescape")} for number, line in lines]
    if not rows:
        return
    own = not ray.is_initialized()
    if own:
        _connect(ray.init, address, workers)
    try:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // LINES_AT_ONCE))
        answered = dataset.map_batches(
            _Worker, fn_constructor_args=(job,), batch_size=LINES_AT_ONCE, concurrency=workers
        )
        for row in answered.iter_rows():
            yield bytes(row["answer"]).decode("utf-8")
    finally:
        if own:
            ray.shutdown()
