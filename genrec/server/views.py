"""Items, turns and states as the page and the API show them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from genrec.server.schemas import ItemCard, SegmentView, StateView, TurnView

if TYPE_CHECKING:
    from genrec.chat import ChatState, ChatTurn, Dialogue


def card(dialogue: Dialogue, row: int) -> ItemCard:
    """An item of the catalogue with its facts."""
    from genrec.chat.facts import fact_line, facts_of  # loaded with the dialogue

    index, catalog = dialogue.index, dialogue.index.catalog
    images = catalog.table["image"] if "image" in catalog.table.columns else None
    return ItemCard(
        item_id=catalog.item_ids[row],
        title=catalog.titles[row],
        line=fact_line(index, row),
        facts=facts_of(index, row),
        image=bool(images is not None and images[row]),
    )


def turn_view(dialogue: Dialogue, turn: ChatTurn) -> TurnView:
    """A turn with cards for the items that it recommends."""
    known = dialogue.index.catalog.index
    return TurnView(
        act=turn.act,
        text=turn.text,
        segments=[SegmentView(text=part.text, item_id=part.item_id) for part in turn.segments],
        items=[card(dialogue, known[item]) for item in turn.item_ids if item in known],
        trace=list(turn.trace),
        catalog_version=turn.catalog_version,
    )


def state_view(dialogue: Dialogue, state: ChatState) -> StateView:
    """What a conversation remembers, with titles; items that the catalogue lost are left out."""
    from genrec.chat.filters import constraint_words  # loaded with the dialogue

    catalog = dialogue.index.catalog

    def titled(item_ids: Iterable[str]) -> list[SegmentView]:
        known = [item for item in item_ids if item in catalog.index]
        return [SegmentView(text=catalog.titles[catalog.index[item]], item_id=item) for item in known]

    return StateView(
        history=titled(state.history[-20:]),
        liked=titled(state.liked),
        disliked=titled(state.disliked),
        seen=titled(state.seen),
        filters=constraint_words(state.constraints),
    )
