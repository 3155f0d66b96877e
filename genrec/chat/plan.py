"""A message and a state to a plan: what kind of turn this is, what the state becomes, what to ask the ranker.

`Plan` is the seam for words: `replies.write` turns it, with the items that were decoded, into a reply. A language model
that writes words before a list (`wording`) sees no more than a plan and its items hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.filters import constraint_mask, constraint_words, relatives, sharing_mask
from genrec.chat.state import ChatState
from genrec.recommender import RankRequest, Recommender
from genrec.trie_filters import ItemFilter

Act = Literal["ask", "recommend", "explain", "answer", "chat"]
_SURPRISE_POOL = 40


@dataclass(frozen=True)
class Plan:
    """What a turn will do. `request` is there where items have to be decoded: `k` of them, `shown` of which go out."""

    act: Act
    topic: str  # which reply within the act, such as "which" for a question which of several was meant
    state: ChatState
    rows: tuple[int, ...] = ()  # items that the reply is about
    request: RankRequest | None = None
    k: int = 0
    notes: tuple[str, ...] = ()  # what the reply should own up to: "there is no …"
    trace: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    explained: tuple[str, ...] = ()  # one text per item of `rows`, empty where there is no evidence


@dataclass
class Draft:
    """A plan under construction: the state so far and the trace of decisions."""

    state: ChatState
    trace: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repeated: bool = False  # the question that will be asked was asked before
    slate: tuple[str, ...] = ()  # the list that the message points into, where it is not the last one

    def change(self, why: str, **values: object) -> None:
        """Replace fields of the state, and say why in the trace."""
        self.state = self.state.model_copy(update=values)
        self.trace.append(why)


def recommend_plan(
    draft: Draft, recommender: Recommender, index: CatalogueIndex, *, number: int, topic: str = "list"
) -> Plan:
    """Plan a list of `number` items under the state's filters. Raises nothing: no item left is a plan, too."""
    state, catalog = draft.state, index.catalog
    seeds = _rows(index, state.seeds)
    told = [item for item in (*state.history, *state.seen, *state.liked) if item not in state.disliked]
    history = seeds or _rows(index, dict.fromkeys(told))
    allowed = constraint_mask(index, state.constraints)
    if wishes := constraint_words(state.constraints):
        draft.trace.append(f"filter: {'; '.join(wishes)} ({int(allowed.sum())} items)")
    gone = _excluded(draft, recommender, index)
    if seeds:
        close = allowed & sharing_mask(index, seeds)
        close[gone] = False
        if int(close.sum()) > 0:
            allowed = close
            draft.trace.append(f"like {_titles(index, seeds)}: {int(close.sum())} items share a value with it")
        else:
            draft.trace.append(
                f"like {_titles(index, seeds)}: nothing left shares a value with it, so any item may come"
            )
            draft.notes.append("far")
    basis = tuple(catalog.item_ids[row] for row in history)
    draft.trace.append(f"ranked by the model after {_titles(index, history)}" if history else "ranked for a new user")
    draft.state = state.model_copy(update={"basis": basis})
    excluded = np.asarray(gone, dtype=np.int32)
    request = RankRequest(
        np.asarray(history, dtype=np.int32),
        excluded,
        ItemFilter.allowing(recommender.trie, allowed),
        in_dialogue=bool(seeds) or not state.history,  # else most of the history is a user's, not what was mentioned
    )
    k = max(number, _SURPRISE_POOL) if topic == "surprise" else number
    return Plan("recommend", topic, draft.state, request=request, k=k, **_told(draft))  # type: ignore[arg-type]


def reply_plan(draft: Draft, act: Act, topic: str, *, rows: Sequence[int] = (), unknown: Sequence[str] = ()) -> Plan:
    """Plan a reply that decodes nothing."""
    return Plan(act, topic, draft.state, rows=tuple(rows), unknown=tuple(unknown), **_told(draft))  # type: ignore[arg-type]


def _told(draft: Draft) -> dict[str, tuple[str, ...]]:
    return {"notes": tuple(dict.fromkeys(draft.notes)), "trace": tuple(draft.trace)}


def _rows(index: CatalogueIndex, item_ids: object) -> list[int]:
    """Rows of items that the catalogue still has."""
    known = index.catalog.index
    return [known[item] for item in item_ids if item in known]  # type: ignore[attr-defined]


def _excluded(draft: Draft, recommender: Recommender, index: CatalogueIndex) -> list[int]:
    """Rows that must not come up: told, shown, and disliked ones with their like."""
    state = draft.state
    gone = set(_rows(index, (*state.history, *state.seen, *state.liked, *state.shown, *state.seeds)))
    for row in _rows(index, state.disliked):
        family = relatives(recommender.item_tokens, row)
        gone |= {int(other) for other in family}
        draft.trace.append(f"disliked {index.catalog.titles[row]}: left out with {len(family) - 1} items of its kind")
    if gone:
        draft.trace.append(f"left out: {len(gone)} items that were used, named, shown or disliked")
    return sorted(gone)


def _titles(index: CatalogueIndex, rows: Sequence[int], shown: int = 3) -> str:
    titles = [index.catalog.titles[row] for row in rows[-shown:]]
    more = f"{len(rows) - shown} more and " if len(rows) > shown else ""
    return more + ", ".join(titles)
