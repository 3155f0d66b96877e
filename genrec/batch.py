"""Bulk recommendation: one JSON line in, one JSON line out, in the same order.

A line that cannot be served (not JSON, an unknown item, an unknown attribute) gets a line with its error; all
the others are served. An output that is a file appears whole or not at all; a pipe gets line after line.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar, cast

from pydantic import BeforeValidator, Field

from genrec.config import Config, build_config
from genrec.data.sources.cells import whole_number_as_text
from genrec.errors import ConfigError, DataError, GenrecError
from genrec.files import output_file
from genrec.progress import SILENT, Progress
from genrec.recommender import RankRequest, Recommender

_LINES_AT_ONCE = 256
RequestT = TypeVar("RequestT")
ItemId = Annotated[str, BeforeValidator(whole_number_as_text)]
"""The id of an item as a line has it: text, or a whole number, as in tables."""


class UserLine(Config):
    """One line of `users.jsonl`; only `history` is required and it may be empty (a new user)."""

    history: list[ItemId]
    user_id: str | int | None = None
    exclude: list[ItemId] = Field(default_factory=list)
    allow: dict[str, Any] = Field(default_factory=dict)
    at_most: dict[str, int] = Field(default_factory=dict)
    new_share: float | None = None


@dataclass
class BatchSummary:
    """What became of the lines. `errors` holds the first ones in words, `counts` whatever else is counted."""

    num_lines: int = 0
    num_errors: int = 0
    errors: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def recommend_file(
    recommender: Recommender,
    source: Path,
    target: Path,
    *,
    k: int,
    new_share: float = 0.0,
    progress: Progress = SILENT,
) -> BatchSummary:
    """Serve every line of `source` (see `UserLine`) and write `target`; `new_share` is for lines that name none.

    Raises DataError for an unreadable file, ConfigError where both are one file.
    """
    check_apart(source, target)
    summary = BatchSummary()
    with (
        open_lines(source) as (num_lines, stream),
        output_file(target) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as out,  # half a surrogate pair is legal JSON
        progress.track("recommending", num_lines, "users") as task,
    ):
        while lines := list(islice(stream, _LINES_AT_ONCE)):
            for answer in _answers(recommender, lines, k, summary, source, new_share):
                out.write(json.dumps(answer, ensure_ascii=False) + "\n")
            task.advance(len(lines))
    return summary


def _answers(
    recommender: Recommender, lines: Sequence[str], k: int, summary: BatchSummary, source: Path, new_share: float
) -> Iterator[dict[str, Any]]:
    """One answer per line, in order, all from one version of the catalogue."""
    recommender = recommender.pinned()
    parsed: list[tuple[Any, RankRequest | GenrecError]] = []
    for line in lines:
        summary.num_lines += 1
        user_id, request = _parse(recommender, line, f"{source.name}, line {summary.num_lines}", new_share)
        if isinstance(request, GenrecError):
            summary.num_errors += 1
            summary.errors = [*summary.errors, str(request)][:5]
        parsed.append((user_id, request))
    requests = [request for _, request in parsed if isinstance(request, RankRequest)]
    ranked = iter(recommender.rank(requests, k))
    for user_id, request in parsed:
        if isinstance(request, GenrecError):
            yield {"user_id": user_id, "error": str(request)}
            continue
        items = [asdict(item) for item in recommender.describe(next(ranked))]
        answer = {"user_id": user_id, "items": items, "catalog_version": recommender.trie.version}
        if len(items) < k:
            answer["note"] = f"{len(items)} of {k}: no more items are allowed for this user"
        yield answer


def _parse(recommender: Recommender, line: str, place: str, new_share: float) -> tuple[Any, RankRequest | GenrecError]:
    def request(values: dict[str, Any]) -> RankRequest:
        user = build_config(UserLine, values, source=place)
        return recommender.request(
            user.history,
            exclude=user.exclude,
            allow=user.allow,
            at_most=user.at_most,
            new_share=new_share if user.new_share is None else user.new_share,
        )

    return parse_line(line, place, request, example='{"history": ["item id"]}')


def parse_line(
    line: str, place: str, read: Callable[[dict[str, Any]], RequestT], *, example: str
) -> tuple[Any, RequestT | GenrecError]:
    """The user id of a line and what `read` makes of its values, or what is wrong with the line at `place`."""
    user_id = None
    try:
        line.encode("utf-8")  # fails on bytes that were not UTF-8
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError(f"expected an object such as {example}")
        if isinstance(values.get("user_id"), str | int):  # anything else is refused and need not be echoed
            user_id = values["user_id"]
        return user_id, read(values)
    except GenrecError as error:
        message = error.message if error.message.startswith(place) else f"{place}: {error.message}"
        return user_id, DataError(message, error.hint)
    except UnicodeEncodeError:
        return user_id, DataError(f"{place}: holds bytes that are not UTF-8.", "Save the file as UTF-8.")
    except (ValueError, RecursionError) as error:
        return user_id, DataError(f"{place}: not valid JSON: {error}.", "Write one JSON object per line.")


def check_apart(source: Path, target: Path) -> None:
    """Raise ConfigError where the answers would take the place of the questions."""
    if source.exists() and target.exists() and source.samefile(target):
        raise ConfigError(f"--input and --output are one file, {target}.", "Name another file for the output.")


@contextmanager
def open_lines(source: Path) -> Iterator[tuple[int, TextIO]]:
    """How many lines `source` has, plain or `.gz`, and a stream of them.

    Raises DataError for a file that cannot be read, or not twice.

    Bytes that are not UTF-8 come as half surrogate pairs, which `parse_line` refuses.
    """
    try:
        if source.exists() and not source.is_file():
            raise DataError(
                f"{source} cannot be read: it is no regular file, and it has to be read more than once.",
                "Write it to a file first, and give that as --input.",
            )
        opened = gzip.open if source.suffix == ".gz" else open
        with opened(source, "rb") as counted:
            num_lines = sum(1 for _ in counted)
        # newline: one line out per line in, also where JSON has a carriage return between its values.
        stream = cast(TextIO, opened(source, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="\n"))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{source} cannot be read: {reason}.", "Check the path of --input.") from error
    with stream:
        yield num_lines, stream
