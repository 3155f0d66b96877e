"""Examples are checked against the tables of the run, not against the code that made them.

What is found out from an example's tokens counts: every semantic ID in them is read back into items. An item with
whose history an example is marked must be one of that user's *training* interactions; no held-out item may be in any
example; a request must not hold the title that it looks for.

I items, L levels, G different semantic IDs (as many as items where none is shared), T tokens of all examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.data.interactions import read_run_table
from genrec.data.splits import cold_items
from genrec.errors import DataError
from genrec.examples import Example
from genrec.run import Run
from genrec.tasks.titles import holds_title

_SHOWN = 5


class LeakCheck:
    """What a run's tables allow to be trained on, ready to check examples."""

    def __init__(
        self,
        run: Run,
        user_ids: Sequence[str],
        item_tokens: NDArray[np.int64],
        own_tokens: NDArray[np.int64] | None = None,
    ) -> None:
        """`user_ids` are those that the examples' `user` numbers; `item_tokens` is (I, L), `own_tokens` (I,)."""
        self._catalog = Catalog.load(run)
        self._user_ids = user_ids
        self._ids = _IdReader(item_tokens, own_tokens)
        self._splits = read_run_table(run, "splits.parquet")
        cold = cold_items(run)
        groups = self._ids.groups
        self._cold = np.ones(self._ids.num_groups, dtype=np.bool_)
        self._cold[groups[~cold]] = False  # an ID that a warm item shares can be meant for that one
        rows = self._splits.filter(pl.col("split") == "train")
        numbers = {user_id: row for row, user_id in enumerate(user_ids)}
        users = np.array([numbers[user_id] for user_id in rows["user_id"].to_list()], dtype=np.int64)
        trained = groups[self._catalog.indices(rows["item_id"].to_list())]
        self._allowed = np.unique(users * self._ids.num_groups + trained)

    def problems(self, examples: Sequence[Example]) -> list[str]:
        """Every leak of the examples in words; none where all is well."""
        owners, groups = self._mentions(examples)
        users = np.array([example.user for example in examples], dtype=np.int64)[owners]
        pairs = users * self._ids.num_groups + groups
        known = np.isin(pairs, self._allowed) | (users < 0)
        bad = np.flatnonzero(self._cold[groups] | ~known)
        found = [self._words(examples[int(owners[row])], int(groups[row])) for row in bad]
        return found + [problem for example in examples if example.request for problem in self._told(example)]

    def check(self, examples: Sequence[Example]) -> None:
        """Raise DataError naming the first leaks, if there are any."""
        problems = self.problems(examples)
        if problems:
            shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
            more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise DataError(
                f"{len(problems)} leak(s) in training examples:\n{shown}{more}\n",
                "A source of genrec/tasks must tell of training interactions and of items that are not held out only.",
            )

    def _mentions(self, examples: Sequence[Example]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which example shows which ID: read from its tokens, and as it declares."""
        sizes = [len(example.tokens) for example in examples]
        tokens = np.concatenate([example.tokens for example in examples]) if examples else np.zeros(0, np.int64)
        owners = np.repeat(np.arange(len(examples)), sizes)
        places, groups = self._ids.read(tokens, owners)
        declared = np.fromiter((item for example in examples for item in example.items), dtype=np.int64)
        declaring = np.repeat(np.arange(len(examples)), [len(example.items) for example in examples])
        showing, shown = (
            np.concatenate([owners[places], declaring]),
            np.concatenate([groups, self._ids.groups[declared]]),
        )
        pairs = np.unique(showing * self._ids.num_groups + shown)
        return pairs // self._ids.num_groups, pairs % self._ids.num_groups

    def _words(self, example: Example, group: int) -> str:
        item = self._catalog.item_ids[int(np.flatnonzero(self._ids.groups == group)[0])]
        if self._cold[group]:
            return f"task {example.task}: item {item!r} is held out of training."
        user = self._user_ids[example.user]
        rows = self._splits.filter((pl.col("user_id") == user) & (pl.col("item_id") == item))["split"].to_list()
        what = f"is a {rows[0]} interaction of" if rows else "was never used by"
        return f"task {example.task}: item {item!r} {what} user {user!r}, in an example of that user's history."

    def _told(self, example: Example) -> list[str]:
        places, groups = self._ids.read(example.tokens, np.zeros(len(example.tokens), np.int64))
        wanted = groups[example.targets[places]]
        # What is written, or, where the answer is words, what the example says it is about last.
        asked = [*np.flatnonzero(np.isin(self._ids.groups, wanted)).tolist(), *example.items[-1:]]
        titles = {self._catalog.titles[int(item)] for item in asked}
        return [
            f"task {example.task}: the request {example.request!r} holds the title {title!r} of what it looks for."
            for title in sorted(titles)
            if holds_title(example.request, title)
        ]


class _IdReader:
    """Finds semantic IDs and items' own tokens. Items with equal IDs are one group; `groups` (I,) says which."""

    def __init__(self, item_tokens: NDArray[np.int64], own_tokens: NDArray[np.int64] | None) -> None:
        _, groups = np.unique(item_tokens, axis=0, return_inverse=True)
        self.groups: NDArray[np.int64] = groups.reshape(-1)
        self.num_groups = int(self.groups.max(initial=-1)) + 1
        # Level by level, prefixes are numbered: (number of the prefix before, token) → number.
        self._levels: list[tuple[NDArray[np.int64], int]] = []
        prefix = np.zeros(len(item_tokens), dtype=np.int64)
        self._span = int(item_tokens.max(initial=0)) + 1
        for level in range(item_tokens.shape[1]):
            keys, prefix = np.unique(prefix * self._span + item_tokens[:, level], return_inverse=True)
            self._levels.append((keys, level))
        self._group_of = np.zeros(int(prefix.max(initial=-1)) + 1, dtype=np.int64)
        self._group_of[prefix] = self.groups
        owners = np.zeros(0, np.int64) if own_tokens is None else np.flatnonzero(own_tokens >= 0)
        self._own = np.zeros(0, np.int64) if own_tokens is None else own_tokens[owners]  # ascending, as rows are
        self._group_of_own = self.groups[owners]

    def read(self, tokens: NDArray[np.int64], owners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where items start in `tokens` (T,), and their groups. A semantic ID lies within one owner (T,)."""
        num_levels = len(self._levels)
        places = np.arange(max(0, len(tokens) - num_levels + 1))
        places = places[owners[places] == owners[places + num_levels - 1]]
        prefix = np.zeros(len(places), dtype=np.int64)
        for keys, level in self._levels:
            wanted = prefix * self._span + tokens[places + level]
            found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            real = (keys[found] == wanted) & (tokens[places + level] < self._span)
            places, prefix = places[real], found[real]
        if not len(self._own):
            return places, self._group_of[prefix]
        found = np.minimum(np.searchsorted(self._own, tokens), len(self._own) - 1)
        single = np.flatnonzero(self._own[found] == tokens)
        groups = np.concatenate([self._group_of[prefix], self._group_of_own[found[single]]])
        return np.concatenate([places, single]), groups
