"""What a message changes in the state: opinions, wishes, ranges, and taking any of them back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.filters import constraint_words, span_mask, span_words
from genrec.chat.numbers import around
from genrec.chat.pieces import Asked, Comparison, Feeling, Place, Pointer, Range, Reading, Title
from genrec.chat.plan import Draft
from genrec.chat.state import Constraints, Span, Wish
from genrec.chat.words import joined

_SAID = {
    "liked": "likes",
    "disliked": "dislikes",
    "seen": "has seen",
    "unseen": "has not seen",
    "cleared": "takes back what was said about",
}


def point_at(index: CatalogueIndex, draft: Draft, pointer: Pointer) -> list[int]:
    """Rows that a reference means; none where the list has no such item."""
    state, known = draft.state, index.catalog.index
    slate = [known[item] for item in state.slate if item in known]
    if pointer.kind == "all":
        gone = left_out(index, draft, pointer)
        return [] if pointer.open and not set(gone) & set(slate) else [row for row in slate if row not in gone]
    if pointer.kind == "it":
        focus = known.get(state.focus or "")
        return [focus] if focus is not None else slate[:1]
    if pointer.kind == "number":
        inside = -len(slate) <= pointer.number < len(slate)
        return [slate[pointer.number]] if inside else []
    if pointer.kind == "value" and pointer.value is not None:
        cells = index.columns[pointer.value.attribute]
        return [row for row in slate if pointer.value.value in cells[row]][:1]
    if pointer.kind == "span" and pointer.span is not None:
        mask = span_mask(index, pointer.span)
        return [row for row in slate if mask[row]][:1]
    if pointer.kind == "other":  # of what was said before, which a list does not tell (`answers.correct`)
        return []
    dated = [(index.year(row), row) for row in slate if index.year(row) is not None]
    return [(min if pointer.kind == "oldest" else max)(dated)[1]] if dated else []


def left_out(index: CatalogueIndex, draft: Draft, pointer: Pointer) -> list[int]:
    """Rows that "all but …" leaves out."""
    pieces = [piece.rows if isinstance(piece, Title) else point_at(index, draft, piece) for piece in pointer.but]
    return [row for rows in pieces for row in rows]


def judge(index: CatalogueIndex, draft: Draft, rows: Sequence[int], feeling: Feeling) -> None:
    """Keep an opinion about items; the newest opinion counts. What is not seen is none, and no longer seen."""
    if feeling not in _SAID or not rows:
        return
    ids = [index.catalog.item_ids[row] for row in rows]
    titles = joined([index.catalog.titles[row] for row in rows])
    if feeling == "unseen":
        seen = tuple(item for item in draft.state.seen if item not in ids)
        draft.state = draft.state.model_copy(update={"seen": seen})
    else:
        draft.state = draft.state.judge(ids, feeling)  # type: ignore[arg-type]
    if feeling == "cleared":
        seeds = tuple(item for item in draft.state.seeds if item not in ids)
        draft.state = draft.state.model_copy(update={"seeds": seeds})
    draft.trace.append(f"the user {_SAID[feeling]} {titles}")


def apply_wishes(index: CatalogueIndex, draft: Draft, reading: Reading) -> bool:
    """Apply wanted, unwanted and relaxed values, ranges and comparisons; whether anything was said about them."""
    before = draft.state.constraints
    constraints = before
    fresh: list[Asked] = []
    for asked in reading.asked:
        if asked.kind == "wanted":
            fresh.append(asked)
        elif asked.kind == "unwanted":
            constraints = _without(constraints, asked.value.attribute, asked.value.value)
            wish = Wish(attribute=asked.value.attribute, values=(asked.value.value,))
            constraints = constraints.model_copy(update={"unwanted": (*constraints.unwanted, wish)})
        else:
            constraints = _without(constraints, asked.value.attribute, asked.value.value)
    constraints = _want(constraints, fresh)
    for name in reading.relaxed:
        constraints = _relaxed(constraints, name)
    for found in _spanned(reading.ranges):
        constraints = _with_range(constraints, found)
    if constraints != before:
        draft.change(f"wishes: {_change(before, constraints)}", constraints=constraints)
    return bool(reading.asked or reading.ranges or reading.relaxed)


def compare(index: CatalogueIndex, draft: Draft, reading: Reading, others: Sequence[int]) -> bool:
    """ "older", "cheaper" against what stands behind "than", else against the items `others`.

    All comparisons and ranges of a message hold together. False where the catalogue cannot tell.
    """
    said = {found.span.attribute for found in reading.ranges}
    for one in reading.comparisons:
        groups: list[Sequence[int]] = [
            rows for place in one.than if (rows := _rows_at(index, draft, reading, place))
        ] or [others]
        spans = [span for rows in groups if (span := _beyond(index, one, rows)) is not None]
        if not spans:
            draft.notes.append(f"cannot:{one.word}")
            continue
        span = _within(spans)
        constraints = draft.state.constraints
        now = [other for other in constraints.spans if other.attribute == one.attribute and one.attribute in said]
        both = _within([*now, span])
        constraints = _with_span(constraints, both if one.than or _is_range(both) else span)
        draft.change(f"{'not ' if one.refused else ''}{one.word}: {span_words(span)}", constraints=constraints)
        said.add(one.attribute)
    return any(one.attribute in said for one in reading.comparisons)


def _rows_at(index: CatalogueIndex, draft: Draft, reading: Reading, place: Place) -> list[int]:
    """Rows that the piece at a place of the message means."""
    for title in reading.titles:
        if title.place.start == place.start:
            return list(title.rows)
    found = [pointer for pointer in reading.pointers if pointer.place.start == place.start]
    return point_at(index, draft, found[0]) if found else []


def _beyond(index: CatalogueIndex, comparison: Comparison, rows: Sequence[int]) -> Span | None:
    """What a comparison with items leaves: of several, "older" means older than most of them."""
    numbers = index.numbers.get(comparison.attribute)
    values = [] if numbers is None else [float(numbers[row]) for row in rows if not np.isnan(numbers[row])]
    if not values:
        return None
    middle, step = float(np.median(values)), 0.01
    down, up = middle, middle
    if comparison.attribute == "year":
        down, up, step = math.floor(middle), math.ceil(middle), 1
    if comparison.word in {"older", "cheaper"}:
        low, high = (up, None) if comparison.refused else (None, up - step)
    else:
        low, high = (None, down) if comparison.refused else (down + step, None)
    return Span(attribute=comparison.attribute, low=low, high=high)


def _within(spans: Sequence[Span]) -> Span:
    """The range inside all ranges of one number; its ends are crossed where there is none."""
    lows, highs = zip(*map(_ends, spans), strict=True)
    low, high = max(lows), min(highs)
    return Span(
        attribute=spans[0].attribute, low=None if low == -np.inf else low, high=None if high == np.inf else high
    )


def _is_range(span: Span) -> bool:
    low, high = _ends(span)
    return low <= high


def _want(constraints: Constraints, fresh: Sequence[Asked]) -> Constraints:
    """A newly wanted value replaces earlier ones of its attribute, unless it comes on top of them."""
    if not fresh:
        return constraints
    for asked in fresh:
        constraints = _without(constraints, asked.value.attribute, asked.value.value)
    on_top = any(asked.joined == "also" for asked in fresh)
    replaced = set() if on_top else {asked.value.attribute for asked in fresh}
    wanted = [wish for wish in constraints.wanted if wish.attribute not in replaced]
    for asked in fresh:
        attribute, value = asked.value.attribute, asked.value.value
        if asked.joined == "or" and wanted and wanted[-1].attribute == attribute:
            wanted[-1] = Wish(attribute=attribute, values=tuple(dict.fromkeys((*wanted[-1].values, value))))
        else:
            wanted.append(Wish(attribute=attribute, values=(value,)))
    return constraints.model_copy(update={"wanted": tuple(dict.fromkeys(wanted))})


def _without(constraints: Constraints, attribute: str, value: str) -> Constraints:
    def rest(wishes: tuple[Wish, ...]) -> tuple[Wish, ...]:
        kept = []
        for wish in wishes:
            values = tuple(one for one in wish.values if (wish.attribute, one) != (attribute, value))
            if values:
                kept.append(Wish(attribute=wish.attribute, values=values))
        return tuple(kept)

    return constraints.model_copy(update={"wanted": rest(constraints.wanted), "unwanted": rest(constraints.unwanted)})


def _relaxed(constraints: Constraints, name: str) -> Constraints:
    if name == "*":
        return Constraints()
    return Constraints(
        wanted=tuple(wish for wish in constraints.wanted if wish.attribute != name),
        unwanted=tuple(wish for wish in constraints.unwanted if wish.attribute != name),
        spans=tuple(span for span in constraints.spans if span.attribute != name),
        outside=tuple(span for span in constraints.outside if span.attribute != name),
    )


def _spanned(ranges: Sequence[Range]) -> list[Range]:
    """Ranges in which the wanted ones of one number that have both ends are as wide as all of them together."""

    def closed(one: Range) -> bool:
        return one.kind == "wanted" and None not in (one.span.low, one.span.high)

    def wide(one: Range) -> Range:
        same = [other.span for other in ranges if closed(other) and other.span.attribute == one.span.attribute]
        return replace(one, span=around(same))

    return [wide(one) if closed(one) else one for one in ranges]


def _with_range(constraints: Constraints, found: Range) -> Constraints:
    """A wanted range takes back what refused all of it, a refused one what it refuses; a relaxed one both."""
    span, kept = found.span, constraints
    if found.kind == "wanted":
        outside = tuple(one for one in kept.outside if not _covers(one, span))
        return _with_span(kept.model_copy(update={"outside": outside}), span)
    if found.kind == "unwanted":
        spans = tuple(one for one in kept.spans if not _covers(span, one))
        return kept.model_copy(update={"spans": spans, "outside": tuple(dict.fromkeys((*kept.outside, span)))})
    spans, outside = (tuple(one for one in group if not _meet(one, span)) for group in (kept.spans, kept.outside))
    if (spans, outside) == (kept.spans, kept.outside):  # "the 90s are fine", of which nothing was said
        return _with_span(kept, span)
    return kept.model_copy(update={"spans": spans, "outside": outside})


def _ends(span: Span) -> tuple[float, float]:
    return -np.inf if span.low is None else span.low, np.inf if span.high is None else span.high


def _covers(outer: Span, inner: Span) -> bool:
    (low, high), (inner_low, inner_high) = _ends(outer), _ends(inner)
    return outer.attribute == inner.attribute and low <= inner_low and inner_high <= high


def _meet(one: Span, other: Span) -> bool:
    (low, high), (other_low, other_high) = _ends(one), _ends(other)
    return one.attribute == other.attribute and low <= other_high and other_low <= high


def _with_span(constraints: Constraints, span: Span) -> Constraints:
    """A new range replaces the earlier one; an open end that still fits the earlier one narrows it."""
    earlier = next((one for one in constraints.spans if one.attribute == span.attribute), None)
    if earlier is not None and (span.low is None or span.high is None):
        low = span.low if span.low is not None else earlier.low
        high = span.high if span.high is not None else earlier.high
        if low is None or high is None or low <= high:
            span = Span(attribute=span.attribute, low=low, high=high)
    others = tuple(one for one in constraints.spans if one.attribute != span.attribute)
    return constraints.model_copy(update={"spans": (*others, span)})


def _change(before: Constraints, now: Constraints) -> str:
    old, new = constraint_words(before), constraint_words(now)
    parts = [f"+ {word}" for word in new if word not in old] + [f"− {word}" for word in old if word not in new]
    return ", ".join(parts)
