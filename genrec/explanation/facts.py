"""What a run knows and an explanation may say: the one source of the evidence and of the check.

Only the training split counts here, so that no explanation gives away what evaluation asks for. I items, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.catalog import Catalog, are_truths, is_object
from genrec.data.interactions import load_interactions, read_run_table
from genrec.data.sequences import Sequences
from genrec.data.splits import training_sequences
from genrec.encoders.base import Embeddings
from genrec.errors import DataError, RunError
from genrec.explanation.rarity import WordRarity
from genrec.run import Run

# `tags` of a film are what all people wrote, also after the interactions that are to be explained.
_NO_ATTRIBUTES = {"item_id", "title", "description", "image", "audio", "video", "tags"}
_SAYS_NOTHING = {"", "unknown", "n/a", "none", "null", "other", "others", "various", "misc", "generic"}
_MAX_UNIQUE = 0.9  # a text column in which more of the values are unique names its items and shares nothing
_MAX_LETTERS = 80
_CLOSE_KEPT = 1000  # items whose closest items are remembered
_CLOSE_SHARE = 0.01  # of the items count as close to an item


def plain(text: str) -> str:
    """Text on one line: any run of white space is one space."""
    return " ".join(text.split())


def folded(text: str) -> str:
    """Text for comparison: one line, without case."""
    return plain(text).casefold()


@dataclass(frozen=True)
class OwnText:
    """What a person wrote about an item, on one line. Reviews come with the interactions, tags from a table."""

    kind: Literal["review", "tag"]
    text: str


OwnTexts = Mapping[str, Mapping[int, tuple[OwnText, ...]]]  # user → item_index → texts


@dataclass(frozen=True, eq=False)
class Facts:
    """A catalogue, what people of the training split did with it, and vectors of what the items are.

    `vectors` (I, D) have length one, or zero where an item has none; None where the run has no content vectors.
    `own_texts` maps a user to what the user wrote, by item index.
    """

    catalog: Catalog
    sequences: Sequences
    vectors: NDArray[np.float32] | None = None
    own_texts: OwnTexts = field(default_factory=dict)

    @classmethod
    def load(cls, run: Run, catalog: Catalog, *, tags: OwnTexts | None = None) -> Facts:
        """Read a run; `catalog` is its catalogue now. `tags` are texts beside the reviews of the interactions.

        Raises RunError where the run is damaged, DataError for a tag of nobody's training interaction.
        """
        sequences = training_sequences(run)
        texts: dict[str, dict[int, tuple[OwnText, ...]]] = training_reviews(run, catalog)
        for user_id, by_item in (tags or {}).items():
            for item, written in by_item.items():
                mine = texts.setdefault(user_id, {})
                mine[item] = (*mine.get(item, ()), *written)
        check_training(sequences, texts)
        return cls(catalog, sequences, _content_vectors(run, catalog), texts)

    def title(self, item: int) -> str:
        """An item's title on one line."""
        return plain(self.catalog.titles[item])

    @cached_property
    def attribute_columns(self) -> tuple[str, ...]:
        """Columns whose values several items share: lists, and short texts that repeat."""
        table = self.catalog.table
        return tuple(name for name in table.columns if name not in _NO_ATTRIBUTES and _is_attribute(table[name]))

    @cached_property
    def number_columns(self) -> tuple[str, ...]:
        """Columns of numbers, such as `year`."""
        table = self.catalog.table
        return tuple(name for name in table.columns if name not in _NO_ATTRIBUTES and table[name].dtype.is_numeric())

    @cached_property
    def _attributes(self) -> list[list[tuple[str, str]]]:
        found: list[dict[tuple[str, str], None]] = [{} for _ in range(len(self.catalog))]
        for name in self.attribute_columns:
            for known, cell in zip(found, self.catalog.table[name].to_list(), strict=True):
                for value in (cell or ()) if isinstance(cell, list) else [cell]:
                    if value is not None and folded(value) not in _SAYS_NOTHING and not is_object(value):
                        known[name, plain(value)] = None
        return [list(known) for known in found]

    def attributes(self, item: int) -> list[tuple[str, str]]:
        """(column, value) of an item, values as they are written in the catalogue on one line."""
        return self._attributes[item]

    def has_column(self, item: int, column: str) -> bool:
        """Whether the item's record says anything in that column."""
        return any(name == column for name, _ in self.attributes(item))

    def numbers(self, item: int) -> list[tuple[str, float]]:
        """(column, number) of an item, such as ("year", 1995.0)."""
        cells = ((name, self.catalog.table[name][item]) for name in self.number_columns)
        return [(name, float(cell)) for name, cell in cells if cell is not None]

    def description(self, item: int) -> str:
        """The item's description on one line; empty where there is none."""
        if "description" not in self.catalog.table.columns:
            return ""
        return plain(self.catalog.table["description"][item] or "")

    def all_text(self, item: int) -> str:
        """All that an item's record says in words, folded: title, description, one value per line."""
        values = (value for _, value in self.attributes(item))
        return "\n".join([self.title(item), self.description(item), *values]).casefold()

    @cached_property
    def rarity(self) -> WordRarity:
        """How rare words are among the texts of the items and among the reviews."""
        reviews = (
            written.text
            for by_item in self.own_texts.values()
            for texts in by_item.values()
            for written in texts
            if written.kind == "review"
        )
        return WordRarity(map(self.all_text, range(len(self.catalog))), reviews)

    @cached_property
    def values(self) -> dict[str, frozenset[tuple[str, str]]]:
        """Folded value → (column, value as written) of all items of the catalogue."""
        found: dict[str, set[tuple[str, str]]] = {}
        for attributes in self._attributes:
            for column, value in attributes:
                found.setdefault(folded(value), set()).add((column, value))
        return {value: frozenset(pairs) for value, pairs in found.items()}

    @cached_property
    def num_items_with(self) -> dict[tuple[str, str], int]:
        """How many items of the catalogue have a (column, value)."""
        counts: dict[tuple[str, str], int] = {}
        for attributes in self._attributes:
            for attribute in attributes:
                counts[attribute] = counts.get(attribute, 0) + 1
        return counts

    @cached_property
    def _users_of(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Users of every item, flat and sorted within an item, and where each item's begin, (I + 1,)."""
        lengths = np.diff(self.sequences.offsets)
        users = np.repeat(np.arange(len(lengths)), lengths)
        pairs = np.unique(np.stack([self.sequences.items.astype(np.int64), users]), axis=1)
        starts = np.searchsorted(pairs[0], np.arange(len(self.catalog) + 1))
        return pairs[1], starts

    def users(self, item: int) -> NDArray[np.int64]:
        """People of the training split who chose an item, sorted."""
        flat, starts = self._users_of
        return flat[starts[item] : starts[item + 1]]

    def num_both(self, one: int, other: int) -> int:
        """People of the training split who chose both."""
        return len(np.intersect1d(self.users(one), self.users(other), assume_unique=True))

    def similarities(self, item: int) -> NDArray[np.float32] | None:
        """Cosine of an item with every item, (I,), −inf for itself and for items without a vector; None without."""
        if self.vectors is None or not self.vectors[item].any():
            return None
        values = self.vectors @ self.vectors[item]
        values[~self.vectors.any(axis=1)] = -np.inf
        values[item] = -np.inf
        return values

    @cached_property
    def num_close(self) -> int:
        """How many items count as close to an item: one in a hundred, at least one."""
        return max(1, round(_CLOSE_SHARE * len(self.catalog)))

    @cached_property
    def _close(self) -> dict[int, dict[int, float]]:
        return {}

    def close_items(self, item: int) -> dict[int, float]:
        """The `num_close` items whose content is closest to an item's, with their cosine."""
        found = self._close.get(item)
        if found is None:
            values = self.similarities(item)
            rows = [] if values is None else np.argsort(-values, kind="stable")[: self.num_close].tolist()
            found = {row: float(values[row]) for row in rows if values is not None and np.isfinite(values[row])}
            if len(self._close) >= _CLOSE_KEPT:
                self._close.clear()
            self._close[item] = found
        return found

    def texts_of(self, user_id: str | None, item: int) -> tuple[OwnText, ...]:
        """What a user wrote about an item."""
        return self.own_texts.get(user_id, {}).get(item, ()) if user_id is not None else ()


def _is_attribute(column: pl.Series) -> bool:
    if isinstance(column.dtype, pl.List):
        return True
    if column.dtype != pl.String:
        return False
    present = column.drop_nulls()
    if present.is_empty():
        return False
    if are_truths(present.unique().to_list()):
        return False  # "the same vegan: true" is no sentence
    longest = present.str.len_chars().quantile(0.95)
    return present.n_unique() <= _MAX_UNIQUE * len(present) and longest is not None and longest <= _MAX_LETTERS


def training_reviews(run: Run, catalog: Catalog) -> dict[str, dict[int, tuple[OwnText, ...]]]:
    """Reviews of training interactions alone: what was written about a held-out item is nobody's evidence."""
    splits = read_run_table(run, "splits.parquet")
    table = load_interactions(run).with_columns(split=splits["split"])
    rows = table.filter((pl.col("split") == "train") & pl.col("review").is_not_null())
    texts: dict[str, dict[int, tuple[OwnText, ...]]] = {}
    for user_id, item_id, review in rows.select("user_id", "item_id", "review").iter_rows():
        item = catalog.index[item_id]
        mine = texts.setdefault(user_id, {})
        mine[item] = (*mine.get(item, ()), OwnText("review", plain(review)))
    return texts


def check_training(sequences: Sequences, texts: Mapping[str, Mapping[int, object]]) -> None:
    """Raise DataError for a text about an item that its writer did not choose in the training split."""
    rows = {user_id: row for row, user_id in enumerate(sequences.user_ids)}
    for user_id, by_item in texts.items():
        trained = set(sequences[rows[user_id]].tolist()) if user_id in rows else set()
        if not set(by_item) <= trained:
            raise DataError(
                f"user {user_id!r} has texts about an item that is not among the user's training interactions.",
                "Leave them out: they would give away what evaluation asks for.",
            )


def _content_vectors(run: Run, catalog: Catalog) -> NDArray[np.float32] | None:
    """Vectors of what items are: text where there is text, else the first modality that is not behaviour."""
    names = [str(name) for name in run.require("embed", verify=False).report.get("modalities", [])]
    content = [name for name in names if not name.startswith("behaviour")]
    if not content:
        return None
    modality = "text" if "text" in content else content[0]
    found = Embeddings.load(run, modality, catalog=catalog)
    lengths = np.linalg.norm(found.vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise RunError(f"the {modality} embeddings hold numbers that are not finite.", "Run `genrec embed` again.")
    return np.asarray(found.vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
