"""What alignment learns from: items, training pairs and attribute texts, with some of each held out.

Held-out items take part in no training pair at all, and held-out users lend no pair, so what is measured on them
was not learned. Validation and test interactions are never read. I items, A attributes, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from genrec.config import AlignConfig
from genrec.data.catalog import Catalog
from genrec.data.sequences import Sequences

ATTRIBUTE_MODALITY = "text"  # the attribute texts go through the run's text encoder
# A smaller share of a small catalogue would be too few negatives to tell better from worse.
_MIN_HELD_OUT = 8


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attribute texts, each an own row after those of the items: attribute `a` is row I + a."""

    texts: list[str]  # (A,)
    members: csr_array  # (I, A) bool, which item has which


@dataclass(frozen=True, eq=False)
class Pool:
    """One side, training or held out. Only items with a vector of some modality occur."""

    items: NDArray[np.int64]  # (N,)
    tagged: NDArray[np.int64]  # (N',) those of them that have an attribute
    pairs: NDArray[np.int64]  # (P, 2) item and the item used next
    histories: list[NDArray[np.int64]]  # of two items and more


@dataclass(frozen=True, eq=False)
class PairData:
    """Both sides, and how often training sees an item on either end of a pair."""

    train: Pool
    held_out: Pool
    log_q: NDArray[np.float32]  # (2, I) logarithm of the share as source and as target
    attributes: Attributes
    log_q_attributes: NDArray[np.float32]  # (A,) the same of attributes as they are drawn

    @property
    def num_items(self) -> int:
        """I; attribute `a` is row I + a."""
        return self.log_q.shape[1]


def make_pairs(
    sequences: Sequences, attributes: Attributes, *, present: NDArray[np.bool_], config: AlignConfig
) -> PairData:
    """Pairs of training histories. `present` (I,) tells which items may teach: they have a vector of any modality."""
    num_items = len(present)
    rng = np.random.default_rng([config.seed, 0])
    items_out = _choose(np.flatnonzero(present), config.held_out_share, rng)
    users_out = _choose(np.arange(len(sequences)), config.held_out_share, rng)
    is_out = np.zeros(num_items, dtype=bool)
    is_out[items_out] = True
    chosen = np.isin(np.arange(len(sequences)), users_out)
    train = _pool(sequences, np.flatnonzero(~chosen), attributes, present & ~is_out)
    # What comes next is asked of unseen users about all items; the other questions are about unseen items.
    behaviour = _pool(sequences, np.flatnonzero(chosen), attributes, present)
    tagged = items_out[_num_attributes(attributes)[items_out] > 0]
    held_out = Pool(items_out, tagged, behaviour.pairs, behaviour.histories)
    counts = np.stack([np.bincount(train.pairs[:, side], minlength=num_items) for side in (0, 1)]).astype(float)
    return PairData(train, held_out, _log_share(counts), attributes, _attribute_log_q(attributes, train.tagged))


def find_attributes(catalog: Catalog, config: AlignConfig, *, warm: NDArray[np.bool_]) -> Attributes:
    """Attribute texts of `attribute_fields` that neither too few nor too many of the items of `warm` (I,) have."""
    members: dict[str, set[int]] = {}
    for field in config.attribute_fields:
        if field not in catalog.table.columns:
            continue
        cells = catalog.table[field].to_list()
        for row in np.flatnonzero(warm).tolist():
            cell = cells[row]
            for value in cell if isinstance(cell, list) else [cell]:
                if value is not None and str(value).strip():
                    members.setdefault(str(value).strip(), set()).add(row)
    most = config.attribute_max_share * int(warm.sum())
    texts = sorted(text for text, rows in members.items() if config.attribute_min_items <= len(rows) <= most)
    rows = np.array([row for text in texts for row in sorted(members[text])], dtype=np.int64)
    columns = np.repeat(np.arange(len(texts)), [len(members[text]) for text in texts])
    table = csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(catalog), len(texts)))
    return Attributes(texts, table)


def no_attributes(num_items: int) -> Attributes:
    """None at all."""
    return Attributes([], csr_array((num_items, 0), dtype=bool))


def draw_attributes(attributes: Attributes, items: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One attribute number for each of the items (N,), each of which has one at least."""
    start = attributes.members.indptr[items]
    count = attributes.members.indptr[items + 1] - start
    return np.asarray(attributes.members.indices[start + rng.integers(count)], dtype=np.int64)


def _pool(sequences: Sequences, users: NDArray[np.int64], attributes: Attributes, allowed: NDArray[np.bool_]) -> Pool:
    items = np.flatnonzero(allowed)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    histories = []
    for user in users:
        history = sequences[int(user)].astype(np.int64)
        steps = np.stack([history[:-1], history[1:]], axis=1)
        pairs.append(steps[allowed[steps].all(axis=1) & (steps[:, 0] != steps[:, 1])])
        known = history[allowed[history]]
        if len(known) > 1:
            histories.append(known)
    return Pool(items, items[_num_attributes(attributes)[items] > 0], np.concatenate(pairs), histories)


def _choose(numbers: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    size = min(max(round(share * len(numbers)), _MIN_HELD_OUT), len(numbers) // 4)
    return np.sort(rng.choice(numbers, size=size, replace=False))


def _num_attributes(attributes: Attributes) -> NDArray[np.int64]:
    return np.diff(attributes.members.indptr).astype(np.int64)  # (I,)


def _attribute_log_q(attributes: Attributes, items: NDArray[np.int64]) -> NDArray[np.float32]:
    """An item draws each of its attributes alike."""
    weights = csr_array(attributes.members[items].astype(float))
    shares = np.zeros((1, len(attributes.texts)))
    if len(items) and attributes.texts:
        per_item = 1.0 / np.diff(weights.indptr)
        shares[0] = weights.T @ per_item
    return _log_share(shares)[0]


def _log_share(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Logarithm of each row's shares; what never occurs counts as having occurred once."""
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return np.log(np.where(counts > 0, counts, 1.0) / total).astype(np.float32)
