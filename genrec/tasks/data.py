"""What tasks are made of: the training part of a run and nothing else.

Held-out items are in no list here, validation and test interactions in no history. `leaks.py` checks the examples that
come out against the run's tables all the same. Items that were removed are in no list of items to tell of, but stay in
the histories in which people used them: they say what went before and after, and the trie keeps them from being named.

I items, L levels, U users with training interactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from genrec.data.catalog import Catalog, removed_items
from genrec.data.dialogues import DialogueTurn, load_turns
from genrec.data.interactions import load_interactions, read_run_table
from genrec.data.sequences import Sequences
from genrec.data.splits import cold_items, training_sequences
from genrec.data.text_source import TextSource
from genrec.encoders.base import Embeddings, vouched_modalities
from genrec.run import Run
from genrec.tasks.rendering import Codes, words_in

# What users wrote about an item, some of it after the interactions that are to be predicted.
WRITTEN_BY_USERS = ("tags",)
_NOT_WORDS = ("item_id", "title", "description", "image", "audio", "video", "imdb_id", "tmdb_id", *WRITTEN_BY_USERS)
_MOST_WORDS = 60  # of a cell
_COMMON_WORDS = 1000
_MIN_ITEMS = 2  # an attribute of one item says which it is
_MAX_SHARE = 0.5  # an attribute of every other item says nothing


@dataclass(frozen=True)
class Attribute:
    """A value that several items share: `Attribute("genres", "Comedy")`."""

    column: str
    value: str


@dataclass(frozen=True)
class Review:
    """What a user (a row of the training histories) wrote about an item that the user took in training."""

    user: int
    item: int
    text: str


@dataclass(frozen=True, eq=False)
class TaskData:
    """The training part of a run, in item indices."""

    catalog: Catalog
    item_tokens: NDArray[np.int64]  # (I, L)
    warm: NDArray[np.bool_]  # (I,) items that training may speak of
    sequences: Sequences  # U training histories
    reviews: Sequence[Review] = ()  # of training interactions
    replay: Sequence[str] = ()  # text at hand that is not of the run
    embeddings: Callable[[], Mapping[str, Embeddings]] = dict  # by modality; read by tasks that need them only
    dialogues: Callable[[], Sequence[DialogueTurn]] = list  # turns of the training part; the same
    own_tokens: NDArray[np.int64] | None = None  # (I,) of items that have one, −1 for the others; None: no item has

    def codes(self, items: Sequence[int] | NDArray[np.int32]) -> Codes:
        """The semantic-ID tokens of items, one after the other."""
        return Codes(tuple(self.item_tokens[np.asarray(items, dtype=np.int64)].ravel().tolist()))

    def titles_of_id(self, item: int) -> list[str]:
        """Titles of all items with the semantic ID of `item`: what a text says of one it says of all of them."""
        return [self.catalog.titles[row] for row in self._sharing[self.item_tokens[item].tobytes()]]

    @cached_property
    def _sharing(self) -> dict[bytes, list[int]]:
        rows: dict[bytes, list[int]] = {}
        for row, tokens in enumerate(self.item_tokens):
            rows.setdefault(tokens.tobytes(), []).append(row)
        return rows

    @cached_property
    def items(self) -> NDArray[np.int64]:
        """Rows of the warm items."""
        return np.flatnonzero(self.warm)

    @cached_property
    def attributes(self) -> list[list[Attribute]]:
        """Of every item, (I,): values of its columns that it shares with other warm items; of others none."""
        columns = [name for name in self.catalog.table.columns if name not in _NOT_WORDS]
        found: list[list[Attribute]] = [[] for _ in range(len(self.catalog))]
        for name in columns:
            cells = [_values(cell) for cell in self.catalog.table[name].to_list()]
            counts = Counter(value for item in self.items for value in set(cells[item]))
            for item in self.items:
                found[item] += [
                    Attribute(name, value)
                    for value in dict.fromkeys(cells[item])
                    if _MIN_ITEMS <= counts[value] <= _MAX_SHARE * len(self.items)
                ]
        return found

    @cached_property
    def popularity(self) -> Counter[Attribute]:
        """How many warm items have an attribute."""
        return Counter(attribute for item in self.items for attribute in self.attributes[item])

    @cached_property
    def common_words(self) -> list[str]:
        """The most frequent words of descriptions and reviews, as they are written."""
        described = self.cells.get("description", [""] * len(self.catalog))
        texts = [described[item] for item in self.items] + [review.text for review in self.reviews]
        counts = Counter(word for text in texts for word in words_in(text))
        return [word for word, _ in counts.most_common(_COMMON_WORDS)]

    @cached_property
    def columns(self) -> list[str]:
        """Columns whose cells templates can name: words that came with the items, not with their users."""
        return [
            name
            for name in self.catalog.table.columns
            if name in ("title", "description") or name not in (*_NOT_WORDS, "item_id")
        ]

    def titles(self, items: Sequence[int]) -> dict[str, str]:
        """The field `history_titles` of these items; nothing where none has a title."""
        titles = self.catalog.worded_titles
        told = "; ".join(titles[item] for item in items if titles[item])
        return {"history_titles": told} if told else {}

    @cached_property
    def cells(self) -> dict[str, list[str]]:
        """Column → its cells as text, (I,); empty where there is nothing, long ones cut but titles: half a title is
        another answer to what an item is called."""
        table = self.catalog.table
        texts = {name: [_cut(", ".join(_values(cell))) for cell in table[name].to_list()] for name in self.columns}
        return texts | {"title": self.catalog.worded_titles}


def load_task_data(run: Run, item_tokens: NDArray[np.int64], *, replay: Sequence[str] = ()) -> TaskData:
    """Read the training part of a run whose items have the semantic-ID tokens `item_tokens` (I, L).

    `replay` names files of text (`TextSource.parse`). Raises DataError for one that cannot be read.
    """
    catalog = Catalog.load(run)
    warm = ~(cold_items(run) | removed_items(run, catalog=catalog))
    sequences = training_sequences(run)
    return TaskData(
        catalog,
        item_tokens,
        warm,
        sequences,
        _training_reviews(run, catalog, sequences),
        [text for source in replay for text in TextSource.parse(source).documents()],
        embeddings=lambda: _embeddings(run, catalog),
        dialogues=lambda: load_turns(run, "train", catalog=catalog),
    )


def _embeddings(run: Run, catalog: Catalog) -> dict[str, Embeddings]:
    return {name: Embeddings.load(run, name, catalog=catalog) for name in vouched_modalities(run)}


def _training_reviews(run: Run, catalog: Catalog, sequences: Sequences) -> list[Review]:
    interactions = load_interactions(run)
    if "review" not in interactions.columns or interactions["review"].null_count() == interactions.height:
        return []
    splits = read_run_table(run, "splits.parquet")  # row by row the interactions
    users = {user_id: row for row, user_id in enumerate(sequences.user_ids)}
    training = interactions.filter(splits["split"] == "train").select("user_id", "item_id", "review")
    return [Review(users[user], catalog.index[item], text) for user, item, text in training.iter_rows() if text]


def _cut(text: str) -> str:
    words = text.split()
    return text if len(words) <= _MOST_WORDS else " ".join(words[:_MOST_WORDS])


def _values(cell: object) -> list[str]:
    if isinstance(cell, list):
        return [str(value) for value in cell if str(value).strip()]
    return [] if cell is None or not str(cell).strip() else [str(cell)]
