"""Real dialogues: files of others to turns with names, and a run's `dialogues.parquet` to turns with items.

A turn is what was said and mentioned before somebody recommended something, and what they recommended then. Two layouts
of JSON lines (also `.gz`) are read: one line per turn (`context`, `entity`, `rec`, as ReDial's test turns are handed
around), and one per dialogue as ReDial publishes it (`messages`, `movieMentions`, who asked and who recommended).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.data.sources.rows import InputFile
from genrec.errors import DataError, RunError
from genrec.run import Run

STAGE = "dialogues"
_MENTION = re.compile(r"@(\d+)")
DialogueSplit = Literal["train", "validation"]


@dataclass(frozen=True)
class NamedTurn:
    """A turn as a file tells it: everything by name."""

    dialogue_id: str
    context: tuple[str, ...]  # what was said before, oldest first
    mentioned: tuple[str, ...]  # what was named before
    recommended: tuple[str, ...]


@dataclass(frozen=True)
class DialogueTurn:
    """A turn over a catalogue: item indices, oldest first; `recommended` are new in the dialogue."""

    dialogue_id: str
    context: tuple[str, ...]
    mentioned: tuple[int, ...]
    recommended: tuple[int, ...]


def dialogues_file(run: Run) -> Path:
    """Where a run keeps its dialogues: turns in the order of their files, those of a dialogue one after the other."""
    return run.path / "dialogues.parquet"


def read_turns(path: Path) -> Iterator[NamedTurn]:
    """The turns of a file. Raises DataError for a file that is not there or truncated, and naming a line that is
    neither layout."""
    with InputFile(path).open() as (lines, _, _):
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield from _turns_of(line, f"{path}, line {number}", number)


def load_turns(run: Run, split: DialogueSplit | None = None, *, catalog: Catalog) -> list[DialogueTurn]:
    """A run's turns, of one split or all; none where the run has no dialogues.

    Raises RunError where the file is not what the stage wrote.
    """
    if STAGE not in run.stages:
        return []
    run.require(STAGE)
    try:
        table = pl.read_parquet(dialogues_file(run))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunError(
            f"{dialogues_file(run)} cannot be read: {error}.", "Run `genrec dialogues RUN …` again."
        ) from error
    kept = table if split is None else table.filter(pl.col("split") == split)
    rows = catalog.index
    return [
        DialogueTurn(
            turn["dialogue_id"],
            tuple(turn["context"]),
            *(tuple(rows[item] for item in turn[name] if item in rows) for name in ("mentioned", "recommended")),
        )
        for turn in kept.iter_rows(named=True)
    ]


def forget_items(turns: pl.DataFrame, item_ids: Sequence[str]) -> pl.DataFrame:
    """A run's table of turns in which nobody named these items, which were something else when they did.

    Turns that recommended nothing else are left out.
    """
    named = ("mentioned", "recommended")
    kept = turns.with_columns(
        pl.col(name).list.eval(pl.element().filter(~pl.element().is_in(list(item_ids)))) for name in named
    )
    return kept.filter(pl.col("recommended").list.len() > 0)


def spoken_lines(turns: Sequence[DialogueTurn], may_teach: NDArray[np.bool_]) -> list[str]:
    """Everything that was said before the last recommendation of each dialogue that names items of `may_teach` (I,)
    alone."""
    last = (turn for turn in _last_turns(turns) if may_teach[[*turn.mentioned, *turn.recommended]].all())
    return [line for turn in last for line in turn.context]


def item_sequences(turns: Sequence[DialogueTurn], may_teach: NDArray[np.bool_]) -> Sequences:
    """What every dialogue named of `may_teach` (I,), in order, as if a user had taken it; dialogues that named one
    item are left out."""
    named = {
        turn.dialogue_id: [item for item in (*turn.mentioned, *turn.recommended) if may_teach[item]]
        for turn in _last_turns(turns)
    }
    long = {name: items for name, items in named.items() if len(items) > 1}
    return Sequences.from_lists(list(long), list(long.values()))


def turn_cases(turns: Sequence[DialogueTurn], may_teach: NDArray[np.bool_]) -> EvaluationCases:
    """A case per recommended item, after what was mentioned, both of `may_teach` (I,); `user_ids` are the dialogues."""
    told = [(turn, item) for turn in turns for item in turn.recommended if may_teach[item]]
    mentioned = [[item for item in turn.mentioned if may_teach[item]] for turn, _ in told]
    histories = Sequences.from_lists([turn.dialogue_id for turn, _ in told], mentioned)
    targets = pl.Series([item for _, item in told], dtype=pl.Int32).to_numpy()
    return EvaluationCases(histories, targets)


def _last_turns(turns: Sequence[DialogueTurn]) -> list[DialogueTurn]:
    """The last turn of each dialogue: it knows what all turns before it knew."""
    return list({turn.dialogue_id: turn for turn in turns}.values())


def _turns_of(line: bytes, where: str, number: int) -> Iterator[NamedTurn]:
    try:
        row = json.loads(line)
        if "messages" in row:
            yield from _turns_of_dialogue(row, str(row.get("conversationId", number)))
        else:
            yield NamedTurn(str(row["dialog_id"]), *(_texts(row, name) for name in ("context", "entity", "rec")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{where}: not a turn and not a dialogue of ReDial ({type(error).__name__}: {error}).",
            "Expected `dialog_id`, `context`, `entity` and `rec`, or `messages` and `movieMentions`.",
        ) from error


def _texts(row: dict[str, Any], name: str) -> tuple[str, ...]:
    if not isinstance(row[name], list) or not all(isinstance(text, str) for text in row[name]):
        raise TypeError(f"`{name}` is not a list of texts")
    return tuple(row[name])


def _turns_of_dialogue(row: dict[str, Any], dialogue_id: str) -> Iterator[NamedTurn]:
    names = {number: " ".join(name.split()) for number, name in dict(row["movieMentions"]).items() if name}
    context: list[str] = []
    mentioned: list[str] = []
    for message in row["messages"]:
        here = [names[number] for number in _MENTION.findall(message["text"]) if number in names]
        if message["senderWorkerId"] == row["respondentWorkerId"] and here and context:
            yield NamedTurn(dialogue_id, tuple(context), tuple(mentioned), tuple(here))
        context.append(_MENTION.sub(lambda found: names.get(found[1], found[0]), message["text"]))
        mentioned += here
