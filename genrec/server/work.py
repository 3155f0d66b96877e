"""Requests as pieces of work for the engine: see `worker.Work`.

The methods import what they need: they run in the worker's thread when all of it is loaded, and the routes that make
pieces of work have to be there before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrec.chat.replay import Said, replay
from genrec.chat.state import ChatState
from genrec.chat.steps import Rank, Steps
from genrec.server.schemas import (
    ExplanationsRequest,
    ExplanationsResponse,
    RecommendationsRequest,
    RecommendationsResponse,
    RecommendedItem,
    StatementView,
)

if TYPE_CHECKING:
    from genrec.chat import ChatTurn, Dialogue
    from genrec.decoding.engine import RankedItem


@dataclass(frozen=True)
class Recommend:
    """Items for a history."""

    body: RecommendationsRequest
    model: str

    def steps(self, dialogue: Dialogue) -> Steps[RecommendationsResponse]:
        """See `Work.steps`."""
        body = self.body
        request = dialogue.recommender.request(
            body.history, exclude=body.exclude, allow=body.allow, at_most=body.at_most, new_share=body.new_share
        )
        ranked = yield Rank(request, body.k)
        return listing(dialogue, ranked, self.model)


@dataclass(frozen=True)
class Similar:
    """Items that go with one item: ranked after it, sharing an attribute value with it where it has one."""

    item_id: str
    k: int
    model: str

    def steps(self, dialogue: Dialogue) -> Steps[RecommendationsResponse]:
        """See `Work.steps`."""
        from genrec.chat.filters import sharing_mask
        from genrec.recommender import RankRequest
        from genrec.trie_filters import ItemFilter

        rows = dialogue.recommender.catalog.indices([self.item_id])
        mask = sharing_mask(dialogue.index, rows.tolist())
        allowed = ItemFilter.allowing(dialogue.recommender.trie, mask)
        ranked = yield Rank(RankRequest(rows, None, allowed), self.k)
        return listing(dialogue, ranked, self.model)


@dataclass(frozen=True)
class Explain:
    """Why an item, for a history, or what the history's taste is."""

    body: ExplanationsRequest

    def steps(self, dialogue: Dialogue) -> Steps[ExplanationsResponse]:
        """See `Work.steps`; nothing is needed of the engine but what the explainer writes."""
        yield from ()
        from genrec.explanation.explainer import ExplainRequest, Wording

        here, body = dialogue.recommender, self.body
        row = None if body.item_id is None else int(here.catalog.indices([body.item_id])[0])
        request = ExplainRequest(tuple(here.catalog.indices(body.history).tolist()), row, body.user_id)
        told = here.explainer().explain([request], Wording(body.style, body.language, body.tone))[0]
        return ExplanationsResponse(
            item_id=told.item_id,
            title=None if told.item_id is None else here.catalog.titles[here.catalog.index[told.item_id]],
            text=told.text,
            source=told.source,
            evidence=list(told.evidence),
            statements=[
                StatementView(text=one.text, verdict=one.verdict, reason=one.reason) for one in told.statements
            ],
            note=told.note,
            catalog_version=here.trie.version,
        )


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation, after messages of the past that are not in the state yet."""

    state: ChatState
    message: str
    past: Sequence[Said] = ()

    def steps(self, dialogue: Dialogue) -> Steps[ChatTurn]:
        """See `Work.steps`."""
        state = yield from replay(dialogue, self.state, self.past)
        return (yield from dialogue.steps(state, self.message))


def listing(dialogue: Dialogue, ranked: Sequence[RankedItem], model: str) -> RecommendationsResponse:
    """Ranked items as an answer."""
    items: list[Any] = [
        RecommendedItem(item_id=one.item_id, title=one.title, score=one.score, rank=one.rank)
        for one in dialogue.recommender.describe(ranked)
    ]
    return RecommendationsResponse(items=items, catalog_version=dialogue.recommender.trie.version, model=model)
