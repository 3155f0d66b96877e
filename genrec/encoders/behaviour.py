"""Items as people use them: vectors from the order of the training histories, and from nothing else.

`ppmi-svd` factorises how much more often than chance two items stand near each other: positive pointwise mutual
information, then a truncated singular value decomposition (Levy & Goldberg 2014, sec. 3.3; Levy et al. 2015 for
smoothing, shift and the symmetric root of the singular values). `spectral` takes the leading eigenvectors of the
normalised graph of items that follow each other (Ng, Jordan & Weiss 2001), in which communities of items lie
together, so that few codes tell them apart. `sequential` takes the item embeddings of a small
causal model that learns to predict the next item (sequential.py). An item that no training history shows with
another has no vector: it is missing, like a film without a poster.

I items, D width, N pairs.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import eigsh, svds

from genrec.data.sequences import Sequences
from genrec.errors import DataError
from genrec.progress import SILENT, Progress

MODELS = ("ppmi-svd", "spectral", "sequential")
_VERSION = 1  # raised when vectors of the same histories change
_DISTANCES = 3  # items apart; a pair at distance d counts 1/d
_SMOOTHING = 0.75  # exponent of the context frequencies: rare contexts would look too telling
_SHIFT = 1.0  # in nats: what is less than e times likelier than chance is noise
_REGULARISER = (
    5.0  # pairs that every item gets on top: rare items would form communities of two (Chaudhuri et al. 2012)
)


def behaviour_vectors(
    sequences: Sequences, num_items: int, *, model: str, width: int, seed: int, progress: Progress = SILENT
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Unit vectors (I, D) and mask (I,) of the items of training histories; `model` is one of MODELS.

    Raises DataError where hardly any two items stand in one history, or none together more often than by chance.
    """
    counts = _neighbour_counts(sequences, num_items)
    mask: NDArray[np.bool_] = np.asarray(counts.sum(axis=1)).ravel() > 0
    if mask.sum() < 8:
        raise DataError(
            f"Only {int(mask.sum())} items stand beside another one in a training history.",
            "Leave behaviour out (--behaviour none), or ingest more interactions.",
        )
    width = min(width, int(mask.sum()) // 2)
    if model == "sequential":
        from genrec.encoders.sequential import train_item_embeddings

        vectors = train_item_embeddings(sequences, num_items, width=width, seed=seed, progress=progress)
    elif model == "spectral":
        following = _neighbour_counts(sequences, num_items, distances=1)
        vectors = _eigenvectors(following, width, seed).astype(np.float32)
    else:
        telling = _shifted_ppmi(counts)
        if not telling.nnz:
            raise DataError(
                "No two items stand beside each other in training histories much more often than by chance.",
                "Leave behaviour out (--behaviour none), or ingest more interactions.",
            )
        vectors = _factorised(telling, width, seed).astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    mask &= norms[:, 0] > 1e-12  # where nothing exceeds chance, nothing is known
    unit = np.where(mask[:, None], vectors / np.maximum(norms, 1e-12), 0.0)
    return unit.astype(np.float32), mask


def behaviour_revision(sequences: Sequences) -> str:
    """A checksum of the histories and of how they are read: which behaviour the vectors are of."""
    digest = hashlib.sha256(f"version {_VERSION}".encode())
    digest.update(sequences.offsets.tobytes())
    digest.update(sequences.items.tobytes())
    return digest.hexdigest()[:12]


def _neighbour_counts(sequences: Sequences, num_items: int, *, distances: int = _DISTANCES) -> sparse.csr_array:
    """Symmetric weighted counts (I, I) of items that stand near each other in a history; no item with itself."""
    owner = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    total = sparse.csr_array((num_items, num_items), dtype=np.float64)
    for distance in range(1, distances + 1):
        first, second = sequences.items[:-distance], sequences.items[distance:]
        kept = (owner[distance:] == owner[:-distance]) & (first != second)
        weight = np.full(int(kept.sum()), 1.0 / distance)
        pairs = sparse.coo_array((weight, (first[kept], second[kept])), shape=total.shape).tocsr()
        total = total + pairs + pairs.T
    return total.tocsr()


def _shifted_ppmi(counts: sparse.csr_array) -> sparse.csr_array:
    """max(0, log P(j | i) / P(j) - shift) of counts (I, I), with smoothed context frequencies."""
    pairs = counts.tocoo()
    rows = np.asarray(counts.sum(axis=1)).ravel()
    contexts = rows**_SMOOTHING / (rows**_SMOOTHING).sum()
    values = np.log(pairs.data / (rows[pairs.row] * contexts[pairs.col])) - _SHIFT
    found = sparse.coo_array((np.maximum(values, 0.0), (pairs.row, pairs.col)), shape=counts.shape).tocsr()
    found.eliminate_zeros()
    return found


def _factorised(matrix: sparse.csr_array, width: int, seed: int) -> NDArray[np.float64]:
    """U √S of the `width` largest singular values, (I, width); signs fixed so that equal input gives equal output."""
    start = np.random.default_rng(seed).normal(size=matrix.shape[0])
    left, values, _ = svds(matrix, k=min(width, matrix.shape[0] - 1), v0=start)
    order = np.argsort(-values)
    return _signed(left[:, order]) * np.sqrt(values[order])


def _eigenvectors(counts: sparse.csr_array, width: int, seed: int) -> NDArray[np.float64]:
    """Eigenvectors (I, width) of D^-½ C D^-½ with the largest eigenvalues; D are regularised degrees."""
    degrees = np.asarray(counts.sum(axis=1)).ravel() + _REGULARISER
    root = sparse.diags_array(1.0 / np.sqrt(degrees))
    start = np.random.default_rng(seed).normal(size=counts.shape[0])
    values, vectors = eigsh((root @ counts @ root).tocsr(), k=min(width, counts.shape[0] - 1), which="LA", v0=start)
    return _signed(vectors[:, np.argsort(-values)])


def _signed(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns with the sign that makes their largest number positive: equal input gives equal output."""
    signs = np.sign(columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])])
    return np.asarray(columns * signs)
