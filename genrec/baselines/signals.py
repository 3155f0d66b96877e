"""Signals: what counts, texts and a retriever say about the next item, as named scores over all items.

A signal is one question about a history, such as "what followed its last items in other histories?", answered for
every item of the catalogue at once. Each comes in two shapes, because how much a second count is worth differs between
catalogues: counts as a logarithm and as they are, cosines as they are and squared, chances as a logarithm and as their
cube root. What each is worth is learned in `blend`. Items without any interaction have the content signals, and what
is reached through similar texts.

B histories, I items, D width, V words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from genrec.baselines.base import (
    centred_directions,
    common_users,
    item_counts,
    recency_weights,
    transition_counts,
)
from genrec.baselines.two_tower import TowerScores
from genrec.data.sequences import Sequences

RETRIEVER = "retriever"
_PRIOR = 2.0  # interactions that every item is given before its lateness is told
_NEAREST = 30  # items of similar text that stand for an item
_LAST = 5  # history items that content is compared with
_COSINES_AT_ONCE = 8_000_000  # cosines of a block: 32 MB
_LOG_START = 0.05  # of a signal's scale: where counting begins to tell from nothing


@dataclass(frozen=True)
class Feature:
    """One column: `group` is what people are told, `name` is unique. All values of a call, float32 (B, I)."""

    group: str
    name: str
    values: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Walk:
    """History items, weighted by recency, carried along one or two matrices (I, I)."""

    group: str
    name: str
    steps: tuple[sparse.csr_array, ...]
    last: int
    decay: float


class SignalSource(Protocol):
    """What a blend weighs: named scores over the items of a catalogue."""

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        ...

    def raw(self, histories: Sequence[NDArray[np.int32]]) -> Iterator[Feature]:
        """Every signal once, before it takes its two shapes; zero where it says nothing."""
        ...


class Signals:
    """All signals of one catalogue and its training sequences.

    `vectors` (I, D) float32 with `mask` (I,), True where an item has a vector; None leaves out what needs content.
    `titles` (I,) None leaves out the words of titles, `retriever` None what is trained.
    """

    def __init__(
        self,
        sequences: Sequences,
        num_items: int,
        *,
        vectors: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        titles: Sequence[str] | None = None,
        retriever: TowerScores | None = None,
    ) -> None:
        self.num_items, self.retriever = num_items, retriever
        counts = np.maximum(item_counts(sequences, num_items), 1)
        self._popularity = np.log(counts).astype(np.float32)
        self._lateness = _lateness(sequences, num_items)
        self._directions: NDArray[np.float32] | None = None
        if vectors is not None and mask is not None:
            self._directions = centred_directions(vectors, mask)
        self._words = None if titles is None else _words(titles)
        self._walks = list(_walks(sequences, counts.astype(np.float64), self._directions))

    def raw(self, histories: Sequence[NDArray[np.int32]]) -> Iterator[Feature]:
        """Every signal once, before it takes its two shapes; zero where it says nothing."""
        for walk in self._walks:
            reached = recency_weights(histories, self.num_items, last=walk.last, decay=walk.decay)
            for step in walk.steps:
                reached = reached @ step
            yield Feature(walk.group, walk.name, _dense(reached))
        if self._directions is not None:
            weights = recency_weights(histories, self.num_items, last=_LAST)
            yield Feature("text", "text mean", np.asarray((weights @ self._directions) @ self._directions.T))
            yield Feature("text", "text nearest", self._nearest(histories, self._directions, self._directions.T))
        if self._words is not None:
            weights, (rows, columns) = recency_weights(histories, self.num_items, last=_LAST), self._words
            yield Feature("words", "words mean", _dense((weights @ rows) @ columns))
            yield Feature("words", "words nearest", self._nearest(histories, rows, columns))
        if self.retriever is not None:
            yield Feature(RETRIEVER, "two towers", self.retriever.log_chances(histories))
        yield Feature("popularity", "popularity", np.tile(self._popularity, (len(histories), 1)))
        yield Feature("popularity", "lateness", np.tile(self._lateness, (len(histories), 1)))

    def _nearest(
        self,
        histories: Sequence[NDArray[np.int32]],
        rows: NDArray[np.float32] | sparse.csr_array,
        columns: NDArray[np.float32] | sparse.csr_array,
    ) -> NDArray[np.float32]:
        """Cosine of the most similar of the last history items, (B, I), by unit vectors (I, D) and their transpose."""
        found = np.zeros((len(histories), self.num_items), dtype=np.float32)
        last = [history[-_LAST:] for history in histories]
        items, places = np.unique(np.concatenate([*last, np.zeros(0, np.int32)]), return_inverse=True)
        ends = np.cumsum([len(one) for one in last])
        block = max(1, _COSINES_AT_ONCE // max(len(items), 1))
        for start in range(0, self.num_items, block):
            some = columns if block >= self.num_items else columns[:, start : start + block]
            cosines = _dense(rows[items] @ some)
            for row, (one, end) in enumerate(zip(last, ends, strict=True)):
                if len(one):
                    found[row, start : start + block] = cosines[places[end - len(one) : end]].max(axis=0)
        return found


class SignalsWithDialogues:
    """Signals of users' histories and, counted apart, the same of what real dialogues named together.

    Apart, because the two differ in size a hundredfold and in what they mean: what each is worth is learned.
    """

    def __init__(self, users: Signals, dialogues: Sequences) -> None:
        """`dialogues`: what each dialogue named, in order, over the same catalogue as `users`."""
        self._users, self._dialogues = users, Signals(dialogues, users.num_items)
        self.num_items = users.num_items

    def raw(self, histories: Sequence[NDArray[np.int32]]) -> Iterator[Feature]:
        """See `SignalSource.raw`."""
        yield from self._users.raw(histories)
        for signal in self._dialogues.raw(histories):
            yield Feature(signal.group, f"dialogues: {signal.name}", signal.values)


def shapes(signal: Feature, scale: float) -> Iterator[Feature]:
    """The two shapes of a signal, in units of `scale`; popularity and lateness, logarithms already, have one."""
    values = signal.values / np.float32(scale)
    yield Feature(signal.group, f"{signal.name}, linear", values)
    if signal.group == RETRIEVER:
        yield Feature(signal.group, f"{signal.name}, cube root", np.exp(signal.values / 3))
    elif signal.group in ("text", "words"):
        yield Feature(signal.group, f"{signal.name}, squared", values * values)
    elif signal.group != "popularity":
        # 0 stays 0: a signal that says nothing adds nothing.
        grown = np.log1p(np.maximum(values, 0) / np.float32(_LOG_START))
        yield Feature(signal.group, f"{signal.name}, log", grown)


def _words(titles: Sequence[str]) -> tuple[sparse.csr_array, sparse.csr_array] | None:
    """TF-IDF of words and pairs of words that two titles share, unit vectors (I, V) and (V, I); None without any.

    Unlike a sentence encoder it knows product lines and series by name.
    """
    count = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, dtype=np.float32)
    try:
        rows = sparse.csr_array(count.fit_transform(titles))
    except ValueError:  # no word stands in two titles: where titles are ids, for example
        return None
    return rows, rows.T.tocsr()


def _dense(values: NDArray[np.float32] | sparse.csr_array) -> NDArray[np.float32]:
    return np.asarray(values.toarray() if isinstance(values, sparse.csr_array) else values, dtype=np.float32)


def _lateness(sequences: Sequences, num_items: int) -> NDArray[np.float32]:
    """How late in histories an item stands: the logarithm of a ratio, 0 as late as all others, (I,).

    The ratio is that of two counts: one in which a step back from the end of a history halves an interaction, and the
    plain one, with two average interactions more in both. What comes up now stands near the ends; the next item of a
    history is later than all of them.
    """
    steps = np.repeat(sequences.offsets[1:], np.diff(sequences.offsets)) - 1 - np.arange(len(sequences.items))
    plain = item_counts(sequences, num_items)
    late = np.bincount(sequences.items, weights=0.5**steps, minlength=num_items)
    average = late.sum() / max(plain.sum(), 1)
    if average == 0:
        return np.zeros(num_items, dtype=np.float32)
    return np.asarray(np.log((late + _PRIOR * average) / ((plain + _PRIOR) * average)), dtype=np.float32)


def _walks(
    sequences: Sequences, popularity: NDArray[np.float64], directions: NDArray[np.float32] | None
) -> Iterator[_Walk]:
    num_items = len(popularity)
    forward = transition_counts(sequences, num_items)

    def damped(matrix: sparse.csr_array, source: float, target: float) -> sparse.csr_array:
        left, right = (sparse.diags_array(popularity**-power) for power in (source, target))
        return sparse.csr_array((left @ matrix @ right).astype(np.float32))

    both = damped(sparse.csr_array(forward + 0.5 * forward.T), 0.3, 0.3)  # as in the hybrid
    yield _Walk("transitions", "next or before", (both,), 5, 0.5)
    yield _Walk("transitions", "next", (damped(forward, 0.5, 0.0),), 5, 0.5)
    yield _Walk("transitions", "next, rare items first", (damped(forward, 0.5, 0.5),), 5, 0.5)
    yield _Walk("transitions", "before", (damped(sparse.csr_array(forward.T), 0.3, 0.3),), 5, 0.5)
    common = common_users(sequences, num_items)
    yield _Walk("common users", "common users", (damped(common, 0.5, 0.5),), 20, 0.8)
    yield _Walk("common users", "common users, popular items first", (damped(common, 0.3, 0.3),), 10, 0.7)
    chances = _rows_to_one(both)
    yield _Walk("two steps", "two steps", (chances, damped(chances, 0.0, 0.3)), 3, 0.5)
    if directions is not None:
        similar = _similar_items(directions)
        yield _Walk("similar items", "next of similar items", (similar, both), 5, 0.5)
        yield _Walk("similar items", "similar to next", (both, similar), 5, 0.5)


def _similar_items(directions: NDArray[np.float32]) -> sparse.csr_array:
    """Each item's nearest by cosine, cubed so that the nearest count most; rows sum to 1 or are empty. (I, I)."""
    num_items = len(directions)
    size = min(_NEAREST, num_items - 1)
    columns, values = [], []
    block = max(1, _COSINES_AT_ONCE // max(num_items, 1))
    for start in range(0, num_items, block):
        cosines = directions[start : start + block] @ directions.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -1.0
        nearest = np.argpartition(-cosines, max(size - 1, 0), axis=1)[:, :size]
        columns.append(nearest.ravel())
        values.append(np.maximum(np.take_along_axis(cosines, nearest, axis=1), 0.0).ravel() ** 3)
    rows = np.repeat(np.arange(num_items), size)
    found = sparse.coo_array((np.concatenate(values), (rows, np.concatenate(columns))), shape=(num_items, num_items))
    return _rows_to_one(found.tocsr())


def _rows_to_one(matrix: sparse.csr_array) -> sparse.csr_array:
    total = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)
    return sparse.csr_array((sparse.diags_array(scale) @ matrix).astype(np.float32))
