"""One person, one item ─► what speaks for the item, each piece a fact that the check can look up again.

Nothing here is text: a piece of evidence names items, values and counts. What to say first is decided here, too:
a tag of the person's that is a value of the item, then what the items share, what others did, what is close in content,
and last words of the person's that the item's texts hold as well, where these are rare enough to tell something.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from genrec.explanation.facts import Facts, folded
from genrec.explanation.quoting import sentences, unstopped
from genrec.explanation.rarity import text_words

MIN_PEOPLE = 2  # "1 person who chose X also chose Y" is a fact about one person
_MAX_SHARE = 0.5  # an attribute of more of the items says nothing about one of them
_NEARLY_ALL = 0.9  # an attribute of more of the items does not even say what one of them is
_MAX_VALUES = 3
_MAX_LIKED = 2  # items of the history that one sentence names
_MAX_QUOTED_WORDS = 15
_MIN_SHARED_WORDS = 2  # of a review's sentence and the item's texts: one word may be anybody's
_MIN_WEIGHT = math.log(1000)  # of these words: rarer together than in one of a thousand texts
_MIN_LETTERS = 4  # of such a word


@dataclass(frozen=True)
class Subject:
    """Whom and what a text is about: a history (item indices, oldest first), an item (None: the person's taste)."""

    history: tuple[int, ...]
    item: int | None
    user_id: str | None = None


@dataclass(frozen=True)
class SharedAttribute:
    """All of `items` (of the history, by index) and the item have all of `values` in `column`."""

    kind: ClassVar[str] = "attribute"
    column: str
    values: tuple[str, ...]
    items: tuple[int, ...]


@dataclass(frozen=True)
class Behaviour:
    """Of `num_users` people of the training split who chose `items[0]`, `num_both` chose the item as well."""

    kind: ClassVar[str] = "behaviour"
    items: tuple[int, ...]
    num_both: int
    num_users: int


@dataclass(frozen=True)
class CloseContent:
    """`items` of the history are among the items whose content is closest to the item's, with their cosines."""

    kind: ClassVar[str] = "similar"
    items: tuple[int, ...]
    cosines: tuple[float, ...]


@dataclass(frozen=True)
class OwnWords:
    """`text` is what the person wrote about `items[0]`: a tag, or words of a review, as they were written."""

    kind: ClassVar[str] = "own"
    items: tuple[int, ...]
    source: str
    text: str


@dataclass(frozen=True)
class RecordFact:
    """The item has `values` in `column`: what a headline is made of."""

    kind: ClassVar[str] = "record"
    column: str
    values: tuple[str, ...]
    items: tuple[int, ...] = ()


@dataclass(frozen=True)
class TasteCount:
    """`num_items` of the `num_history` items of the history have `value` in `column`; `items` are the newest."""

    kind: ClassVar[str] = "taste"
    column: str
    value: str
    num_items: int
    num_history: int
    items: tuple[int, ...]


Evidence = SharedAttribute | Behaviour | CloseContent | OwnWords | RecordFact | TasteCount


def as_record(evidence: Evidence, facts: Facts) -> dict[str, Any]:
    """A piece of evidence as JSON, with item ids in place of indices."""
    ids = facts.catalog.item_ids
    return {"kind": evidence.kind} | asdict(evidence) | {"items": [ids[item] for item in evidence.items]}


def reasons(facts: Facts, subject: Subject) -> list[Evidence]:
    """What speaks for the item, best first; empty where nothing does. The item itself is no evidence."""
    assert subject.item is not None
    liked = _newest_first(subject)
    tag = _tagged_value(facts, subject, liked)
    found: list[Evidence | None] = [tag, *_shared_attributes(facts, liked, subject.item)]
    found += [_behaviour(facts, liked, subject.item), _close_content(facts, liked, subject.item)]
    found += [_quotation(facts, subject, liked)] if tag is None else []
    return [evidence for evidence in found if evidence is not None]


def record_facts(facts: Facts, subject: Subject) -> list[Evidence]:
    """What the item is, what the history has most often first; without what nearly every item is."""
    assert subject.item is not None
    most = max(2, _NEARLY_ALL * len(facts.catalog))
    counts: dict[tuple[str, str], int] = {}
    for item in subject.history:
        for attribute in facts.attributes(item):
            counts[attribute] = counts.get(attribute, 0) + 1
    by_column: dict[str, list[str]] = {}
    telling = [one for one in facts.attributes(subject.item) if facts.num_items_with[one] <= most]
    for column, value in sorted(telling, key=lambda one: (-counts.get(one, 0), facts.num_items_with[one])):
        by_column.setdefault(column, []).append(value)
    return [RecordFact(column, tuple(values[:_MAX_VALUES])) for column, values in by_column.items()]


def taste(facts: Facts, subject: Subject) -> list[Evidence]:
    """What the items of the history have in common, the most telling first, at most two values a column.

    A value counts where at least two items, and a larger share of the history than of the catalogue, have it.
    """
    liked = _newest_first(subject)
    owners: dict[tuple[str, str], list[int]] = {}
    for item in liked:
        for attribute in facts.attributes(item):
            owners.setdefault(attribute, []).append(item)
    telling = []
    for (column, value), items in owners.items():
        lift = math.log(len(items) / len(liked) * len(facts.catalog) / facts.num_items_with[column, value])
        if len(items) >= 2 and lift > 0:
            telling.append((len(items) * lift, column, value, items))
    found: list[Evidence] = []
    columns: dict[str, int] = {}
    for _, column, value, items in sorted(telling, key=lambda one: (-one[0], one[1], one[2])):
        columns[column] = columns.get(column, 0) + 1
        if columns[column] <= 2:
            found.append(TasteCount(column, value, len(items), len(liked), tuple(items[:_MAX_LIKED])))
    return found


def _newest_first(subject: Subject) -> list[int]:
    """The history without repeats and without the item."""
    return [item for item in dict.fromkeys(reversed(subject.history)) if item != subject.item]


def _shared_attributes(facts: Facts, liked: Sequence[int], item: int) -> list[Evidence]:
    """One per column, the rarest values first; a second item where it has all the values of the first."""
    found: list[tuple[float, SharedAttribute]] = []
    own = _telling_attributes(facts, item)
    for column in dict.fromkeys(column for column, _ in own):
        values = {one for one in own if one[0] == column}
        shared = {other: values & set(facts.attributes(other)) for other in liked}
        # fsum: the sum of a set does not depend on its order, and so not on the process.
        weights = {other: math.fsum(_rarity(facts, one) for one in common) for other, common in shared.items()}
        best = max(liked, key=lambda other: weights[other], default=None)
        if best is None or not shared[best]:
            continue
        kept = sorted(shared[best], key=lambda one: (-_rarity(facts, one), one))[:_MAX_VALUES]
        others = [other for other in liked if set(kept) <= shared[other] and other != best]
        weight = math.fsum(_rarity(facts, one) for one in kept)
        items = (best, *others[: _MAX_LIKED - 1])
        found.append((weight, SharedAttribute(column, tuple(value for _, value in kept), items)))
    return [evidence for _, evidence in sorted(found, key=lambda one: -one[0])]


def _telling_attributes(facts: Facts, item: int) -> list[tuple[str, str]]:
    """(column, value) of an item, but for those that most items have."""
    most = max(2, _MAX_SHARE * len(facts.catalog))
    return [one for one in facts.attributes(item) if facts.num_items_with[one] <= most]


def _rarity(facts: Facts, attribute: tuple[str, str]) -> float:
    return math.log(1 + len(facts.catalog) / facts.num_items_with[attribute])


def _behaviour(facts: Facts, liked: Sequence[int], item: int) -> Behaviour | None:
    """The item of the history whose people overlap most with the item's (cosine of the two sets)."""
    best, most = None, 0.0
    for other in liked:
        both, users = facts.num_both(other, item), len(facts.users(other))
        if both < MIN_PEOPLE:
            continue
        overlap = both / math.sqrt(users * len(facts.users(item)))
        if overlap > most:
            best, most = Behaviour((other,), both, users), overlap
    return best


def _close_content(facts: Facts, liked: Sequence[int], item: int) -> CloseContent | None:
    close = facts.close_items(item)
    found = sorted((other for other in liked if other in close), key=lambda other: -close[other])[:_MAX_LIKED]
    return CloseContent(tuple(found), tuple(round(close[other], 4) for other in found)) if found else None


def _tagged_value(facts: Facts, subject: Subject, liked: Sequence[int]) -> OwnWords | None:
    """The newest tag that is a value of the item."""
    assert subject.item is not None
    values = {folded(value) for _, value in _telling_attributes(facts, subject.item)}
    tags = ((other, text) for other, text in _written(facts, subject, liked, "tag") if folded(text) in values)
    return next((OwnWords((other,), "tag", text) for other, text in tags), None)


def _quotation(facts: Facts, subject: Subject, liked: Sequence[int]) -> OwnWords | None:
    """A tag that stands in the item's texts; else the sentence of a review that shares the rarest words with them."""
    assert subject.item is not None
    about = facts.all_text(subject.item)
    for other, tag in _written(facts, subject, liked, "tag"):
        as_it_is = re.search(rf"(?<!\w){re.escape(folded(tag))}(?!\w)", about) is not None
        if as_it_is and any(facts.rarity.weight(word) for word in text_words(tag)):
            return OwnWords((other,), "tag", tag)
    known = {word for word in text_words(about) if len(word) >= _MIN_LETTERS}
    best, most = None, 0.0
    for other, review in _written(facts, subject, liked, "review"):
        for sentence in sentences(review):
            weight = _weight(facts, sentence, known)
            if weight > most:
                best, most = OwnWords((other,), "review", unstopped(sentence)), weight
    return best


def _written(facts: Facts, subject: Subject, liked: Sequence[int], kind: str) -> list[tuple[int, str]]:
    """What the person wrote about items of the history, the newest item first: (item_index, text)."""
    texts = ((other, written) for other in liked for written in facts.texts_of(subject.user_id, other))
    return [(other, written.text) for other, written in texts if written.kind == kind]


def _weight(facts: Facts, sentence: str, about: set[str]) -> float:
    """How much the words tell that a sentence shares with the item's texts; 0 where it is too long or too little."""
    if len(sentence.split()) > _MAX_QUOTED_WORDS:
        return 0.0
    # fsum: see _shared_attributes.
    weights = [weight for word in about & text_words(sentence) if (weight := facts.rarity.weight(word))]
    total = math.fsum(weights)
    return total if len(weights) >= _MIN_SHARED_WORDS and total >= _MIN_WEIGHT else 0.0
