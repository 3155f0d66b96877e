"""Bulk explanation: one JSON line in, one JSON line out, in the same order, resumable to the line.

Finished lines are appended to `OUTPUT.part`, in order and synced to the disk, so the number of whole lines in it
says where to go on. `OUTPUT.part.json` says what the lines were made from: a job goes on only with the same
input, run and wording. When all lines are there the part takes the name of the output.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from genrec.batch import BatchSummary, ItemId, check_apart, open_lines, parse_line
from genrec.config import Config, build_config
from genrec.data.catalog import Catalog
from genrec.decoding.opening import check_name
from genrec.errors import ConfigError, DataError, GenrecError, RunError
from genrec.explanation.explainer import Explainer, ExplainRequest, Wording
from genrec.explanation.language import language_file, prompt_folder
from genrec.explanation.loading import WriterName, load_explainer, writes_with_model
from genrec.explanation.tags import read_tags
from genrec.files import is_stream, stream_error
from genrec.live_catalogue import LiveCatalogue
from genrec.progress import SILENT, Progress
from genrec.recommender import Recommender
from genrec.run import Run, file_checksum, read_json, write_json
from genrec.vocabulary import SidVocabulary

LINES_AT_ONCE = 64
Answers = Callable[["ExplainJob", Iterable[tuple[int, str]]], Iterator[str]]
"""(job, numbered lines) → one JSON line per line, in order. Numbers start at 1."""


class PairLine(Config):
    """One line of `pairs.jsonl`. `item_id` may be missing for the style `taste` alone."""

    history: list[ItemId]
    item_id: ItemId | None = None
    user_id: str | int | None = None


@dataclass(frozen=True)
class ExplainJob:
    """What to explain with, in words that travel to another process. `name` of the input is for messages."""

    run: Path
    wording: Wording
    name: str
    engine: str = "transformers"
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    writer: WriterName = "auto"
    prompts: Path | None = None
    tags: Path | None = None

    def open(self) -> ExplainWorker:
        """Load it. The model is read only where it writes. Raises GenrecError for anything that is wrong."""
        run = Run.open(self.run)
        if writes_with_model(run, self.writer):
            recommender = Recommender.load(self.run, self.engine, engine_options=self.engine_options)
            live, engine = recommender.live, recommender.engine
        else:
            live, engine = LiveCatalogue.load(run, SidVocabulary.load(run.path / "model")), None
        tags = None if self.tags is None else read_tags(self.tags, run, live.catalog)
        explainer = load_explainer(run, live, engine=engine, writer=self.writer, prompts=self.prompts, tags=tags)
        return ExplainWorker(self, explainer, live.catalog)


class ExplainWorker:
    """Turns lines into answers."""

    def __init__(self, job: ExplainJob, explainer: Explainer, catalog: Catalog) -> None:
        self._job, self._explainer, self._catalog = job, explainer, catalog
        language = explainer.language(job.wording.language)
        language.tone(job.wording.tone)
        self._about = language.style(job.wording.style).about

    @property
    def versions(self) -> tuple[str, str]:
        """Of the model and the catalogue."""
        return self._explainer.model_version, self._explainer.catalog_version

    def answers(self, lines: Sequence[tuple[int, str]]) -> list[str]:
        """One JSON line per numbered line, in order."""
        parsed = [self._parse(number, line) for number, line in lines]
        requests = [request for _, request in parsed if isinstance(request, ExplainRequest)]
        told = iter(self._explainer.explain(requests, self._job.wording))
        return [json.dumps(self._answer(user_id, request, told), ensure_ascii=False) for user_id, request in parsed]

    def _answer(self, user_id: Any, request: ExplainRequest | GenrecError, told: Iterator[Any]) -> dict[str, Any]:
        if isinstance(request, GenrecError):
            return {"user_id": user_id, "error": str(request)}
        record: dict[str, Any] = next(told).as_record()
        return {"user_id": user_id, **record}

    def _parse(self, number: int, line: str) -> tuple[Any, ExplainRequest | GenrecError]:
        place = f"{self._job.name}, line {number}"

        def request(values: dict[str, Any]) -> ExplainRequest:
            pair = build_config(PairLine, values, source=place)
            if pair.item_id is None and self._about != "taste":
                raise ConfigError("item_id is missing.", "Say which item is to be explained.")
            item_ids = [] if pair.item_id is None or self._about == "taste" else [pair.item_id]
            item = next(iter(self._catalog.indices(item_ids).tolist()), None)
            user_id = None if pair.user_id is None else str(pair.user_id)
            return ExplainRequest(tuple(self._catalog.indices(pair.history).tolist()), item, user_id)

        return parse_line(line, place, request, example='{"history": ["item id"], "item_id": "item id"}')


def explain_here(job: ExplainJob, lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    """Answers made in this process."""
    worker, waiting = job.open(), iter(lines)
    while part := list(islice(waiting, LINES_AT_ONCE)):
        yield from worker.answers(part)


def explain_file(
    job: ExplainJob,
    source: Path,
    target: Path,
    *,
    resume: bool = False,
    answers: Answers = explain_here,
    progress: Progress = SILENT,
) -> BatchSummary:
    """Explain every line of `source` (see `PairLine`) and write `target`; `resume` goes on where a job was killed.

    A `target` that is a pipe or a device gets the lines as they are made. Raises DataError for an input or tags that
    cannot be read, RunError where an unfinished output is there and `resume` is not given, where it was made from
    something else, cannot be written or is written by another process, ConfigError where both are one file, the engine
    does not exist or a pipe is to be resumed.
    """
    check_apart(source, target)
    check_name(job.engine)  # also where no model writes
    with (
        open_lines(source) as (num_lines, stream),
        _opened(target, _identity(job, source), resume=resume) as (out, summary),
    ):
        done = summary.num_lines
        if done:
            progress.say(f"{done:,} of {num_lines:,} lines were finished already.")
        lines = islice(enumerate(stream, start=1), done, None)
        with progress.track("explaining", num_lines - done, "lines") as task:
            _write(answers(job, lines), out, summary, advance=_rate(task.advance))
    return summary


@contextmanager
def _opened(target: Path, identity: dict[str, Any], *, resume: bool) -> Iterator[tuple[BinaryIO, BatchSummary]]:
    """Where lines go, and what became of those that are there; where all went well, `target` stands in the end."""
    if is_stream(target):
        if resume:
            raise ConfigError(f"{target} keeps no lines to go on from.", "Leave out --resume, or name a file.")
        try:
            stream = target.open("wb")
        except OSError as error:
            raise stream_error(target, error) from error
        try:
            yield stream, BatchSummary()
        finally:
            with _writing(stream):
                stream.close()
        return
    target = Path(os.path.realpath(target))  # a link stays a link
    with _part(target) as part:
        with _writing(part):
            summary = _finished_lines(part, target, identity, resume=resume)
        yield part, summary
        with _writing(part):
            os.fsync(part.fileno())
            _part_path(target).replace(target)
            _about_path(target).unlink(missing_ok=True)


def _write(answers: Iterator[str], part: BinaryIO, summary: BatchSummary, *, advance: Callable[[int], None]) -> None:
    while lines := list(islice(answers, LINES_AT_ONCE)):
        for line in lines:
            _count(summary, json.loads(line))
        with _writing(part):
            # One write of whole lines; what a kill leaves of it is cut at the last line's end.
            part.write("".join(f"{line}\n" for line in lines).encode("utf-8", errors="backslashreplace"))
            part.flush()
            if not is_stream(Path(part.name)):
                os.fsync(part.fileno())
        advance(len(lines))


def _count(summary: BatchSummary, answer: dict[str, Any]) -> None:
    summary.num_lines += 1
    if "error" in answer:
        summary.num_errors += 1
        summary.errors = [*summary.errors, answer["error"]][:5]
        return
    for name in (answer["source"], *(["fallback"] if answer["fallback"] else [])):
        summary.counts[name] = summary.counts.get(name, 0) + 1
    for statement in answer["statements"]:
        key = f"statements {statement['verdict']}"
        summary.counts[key] = summary.counts.get(key, 0) + 1


def _rate(advance: Callable[..., None]) -> Callable[[int], None]:
    started, done = time.monotonic(), 0

    def report(amount: int) -> None:
        nonlocal done
        done += amount
        advance(amount, f"{done / max(1e-9, time.monotonic() - started):,.0f} lines/s")

    return report


def _part_path(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _about_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


@contextmanager
def _part(target: Path) -> Iterator[BinaryIO]:
    """The unfinished output, locked: the operating system takes the lock back from a dead process."""
    path = _part_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        stream = path.open("a+b")
    except OSError as error:
        raise RunError(f"{target} could not be written: {error.strerror}.", "Choose another --output.") from error
    try:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{path} is being written by another process.", "Wait for it, or stop it.") from error
        yield stream
    finally:
        with _writing(stream):  # what could not be written before is tried once more
            stream.close()


@contextmanager
def _writing(part: BinaryIO) -> Iterator[None]:
    """Says what became of a write to the unfinished output, or to a stream. Raises RunError."""
    try:
        yield
    except OSError as error:
        if is_stream(Path(part.name)):
            raise stream_error(Path(part.name), error) from error
        raise RunError(
            f"{part.name} could not be written: {error.strerror or error}.", "Mend it, then go on with --resume."
        ) from error


def _identity(job: ExplainJob, source: Path) -> dict[str, Any]:
    """What decides the answers: the input, the run's files, the languages, the options.

    Raises DataError for tags that cannot be read.
    """
    stages = Run.open(job.run).stages
    made = {name: stages[name].outputs for name in ("ingest", "embed", "trie", "train") if name in stages}
    wanted = {key: str(value) for key, value in asdict(job).items() if key != "run"}
    language = language_file(prompt_folder(job.run, job.prompts), job.wording.language)
    files = [file_checksum(file) for file in (source, language)]
    if job.tags is not None:
        try:
            files.append(file_checksum(job.tags))
        except OSError as error:
            raise DataError(f"{job.tags} cannot be read: {error.strerror}.", "Check the path of --tags.") from error
    return {"files": files, "run": made, "options": wanted}


def _finished_lines(part: BinaryIO, target: Path, identity: dict[str, Any], *, resume: bool) -> BatchSummary:
    """What became of the lines that are finished; the part is cut behind the last whole one."""
    summary, end = BatchSummary(), 0
    about = _about_path(target)
    part.seek(0, os.SEEK_END)
    if part.tell() and not resume:
        raise RunError(
            f"{_part_path(target)} is the unfinished output of another job.", "Go on with --resume, or remove it."
        )
    if part.tell() and read_json(about) != identity:
        raise RunError(
            f"{_part_path(target)} was made from another input, run or wording.", "Remove it, or take them back."
        )
    part.seek(0)
    for line in part:
        if not line.endswith(b"\n"):
            break
        _count(summary, json.loads(line))
        end += len(line)
    part.truncate(end)
    if not end:
        write_json(about, identity)
    return summary
