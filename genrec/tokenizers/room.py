"""Codes within codebooks that cannot grow: unique semantic IDs for a catalogue that a model has never seen.

A model knows its codebooks and nothing beyond them, so here a collision can add no level. Items first spread
over the prefixes until none has more items than semantic IDs: what is too much for a prefix goes to the nearest
sibling with room. Then the usual policy tells the items of each prefix apart.

I items, D width, L levels of the tokenizer, K codes of a level, E codes of the extra level that the model may have.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from genrec.errors import ConfigError, DataError
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.codes import Policy, resolve_collisions

_ITEMS_AT_ONCE = 64


def resolve_within(
    codes: NDArray[np.uint16],
    codebook_sizes: tuple[int, ...],
    *,
    policy: Policy,
    tokenizer: ItemTokenizer,
    vectors: NDArray[np.float32],
) -> NDArray[np.uint16]:
    """Codes (I, len(codebook_sizes)) of vectors (I, D) with codes (I, L), inside the given codebooks.

    `codebook_sizes` are those of the model: one per level and, where its own items needed it, an extra one.
    `reassign`: unique; `extra-level`: unique, and refused where the model has no such level or too small a
    one; `shared`: codes stay. Equal calls give equal codes. Raises DataError where the catalogue has more
    items than there are semantic IDs.
    """
    levels = codes.shape[1]
    extra = codebook_sizes[levels] if len(codebook_sizes) > levels else 1
    if policy == "reassign":
        codes = _spread(codes, (*codebook_sizes[:levels], extra), tokenizer=tokenizer, vectors=vectors)
    made, sizes = resolve_collisions(
        codes,
        codebook_sizes[:levels],
        policy=policy,
        last_costs=lambda items: tokenizer.last_costs(vectors[items], codes[items]),
    )
    needed = sizes[levels] if len(sizes) > levels else 1
    if needed > extra:
        raise _too_many(needed, extra)
    if len(made[0]) < len(codebook_sizes):
        made = np.concatenate([made, np.zeros((len(made), 1), dtype=np.uint16)], axis=1)
    assert made.shape[1] == len(codebook_sizes)
    return made


def _too_many(needed: int, extra: int) -> Exception:
    if extra == 1:
        return ConfigError(
            "Items collide, and the model that knows these codes has no extra level.",
            "Use --collisions reassign or shared.",
        )
    return DataError(
        f"{needed:,} items share all codes; the extra level of the model that knows them has {extra:,}.",
        "Use --collisions reassign or shared.",
    )


def _spread(
    codes: NDArray[np.uint16], sizes: tuple[int, ...], *, tokenizer: ItemTokenizer, vectors: NDArray[np.float32]
) -> NDArray[np.uint16]:
    """Codes (I, L) in which no prefix has more items than semantic IDs, with as few moves as that takes.

    `sizes` (L + 1,) are the codes of every level and of the extra one.
    """
    if len(codes) > math.prod(sizes):
        raise DataError(
            f"{len(codes):,} items are more than the {math.prod(sizes):,} semantic IDs that the model knows.",
            "Use --collisions shared, or a source with more levels or larger codebooks.",
        )
    codes = codes.copy()
    for level in range(codes.shape[1] - 1):
        room = math.prod(sizes[level + 1 :])  # semantic IDs below a prefix that ends on this level
        _, prefix, members = np.unique(codes[:, : level + 1], axis=0, return_inverse=True, return_counts=True)
        crowded = members[prefix.reshape(-1)] > room
        for parent in np.unique(codes[crowded, :level], axis=0):
            family = np.flatnonzero((codes[:, :level] == parent).all(axis=1))
            counts = np.bincount(codes[family, level], minlength=sizes[level])
            candidates = family[crowded[family]]
            costs = _costs(tokenizer, vectors[candidates], codes[candidates, : level + 1], size=sizes[level])
            for row, code in _moves(costs, codes[candidates, level], counts, room):
                item = candidates[row]
                codes[item, level] = code
                codes[item] = _rest_anew(tokenizer, vectors[item], codes[item, : level + 1], sizes)
    return codes


def _moves(
    costs: NDArray[np.float64], own: NDArray[np.uint16], counts: NDArray[np.int64], room: int
) -> list[tuple[int, int]]:
    """Which rows of costs (n, K) leave their `own` code (n,), and for which: cheapest moves first.

    `counts` (K,) are the items under every code. A code that takes items in never loses any and the other way
    round, so one pass over the sorted moves leaves no code above `room`.
    """
    counts = counts.copy()
    rise = costs - costs[np.arange(len(own)), own][:, None]
    moved = np.zeros(len(own), dtype=bool)
    moves = []
    for flat in np.argsort(rise, axis=None, kind="stable"):
        row, code = divmod(int(flat), costs.shape[1])
        if moved[row] or counts[own[row]] <= room or counts[code] >= room:
            continue
        counts[own[row]] -= 1
        counts[code] += 1
        moved[row] = True
        moves.append((row, code))
    return moves


def _costs(
    tokenizer: ItemTokenizer, vectors: NDArray[np.float32], prefixes: NDArray[np.uint16], *, size: int
) -> NDArray[np.float64]:
    """Squared error (n, K) of vectors (n, D) with each of `size` K codes in the last place of prefixes (n, l)."""
    costs = np.empty((len(vectors), size))
    for start in range(0, len(vectors), _ITEMS_AT_ONCE):
        some = slice(start, start + _ITEMS_AT_ONCE)
        tried = np.repeat(prefixes[some], size, axis=0)
        tried[:, -1] = np.tile(np.arange(size, dtype=np.uint16), len(prefixes[some]))
        rebuilt = tokenizer.reconstruct(tried).reshape(-1, size, vectors.shape[1])
        costs[some] = np.square(rebuilt - vectors[some, None], dtype=np.float64).sum(axis=2)
    return costs


def _rest_anew(
    tokenizer: ItemTokenizer, vector: NDArray[np.float32], kept: NDArray[np.uint16], sizes: tuple[int, ...]
) -> NDArray[np.uint16]:
    """Codes (L,) of one moved item: those that are `kept` (l,), and the nearest ones after them."""
    levels = len(sizes) - 1
    codes = np.zeros(levels, dtype=np.uint16)
    codes[: len(kept)] = kept
    for level in range(len(kept), levels - 1):
        codes[level] = _costs(tokenizer, vector[None], codes[None, : level + 1], size=sizes[level])[0].argmin()
    codes[-1] = tokenizer.last_costs(vector[None], codes[None])[0].argmin()
    return codes
