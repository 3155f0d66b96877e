"""A plan and decoded items to a reply: words of ours, and slots for items.

A title gets into a reply through a slot only, and slots hold rows of the catalogue; everything else a reply says
is a fact of those rows, a wish of the user, or a word of this file. The words before a list may be a model's
(`wording`), the list itself never is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.facts import Reason, fact_line, reasons
from genrec.chat.filters import constraint_words
from genrec.chat.plan import Plan
from genrec.chat.state import ChatState
from genrec.chat.words import joined

LEADS = {"list": "", "more": "More of these", "surprise": "Something off your usual path"}  # what a list must say it is
_QUOTED = re.compile(r"(?<=“)([^“”]+)(?=”)")


@dataclass(frozen=True)
class Segment:
    """A piece of a reply: words, or with `item_id` the title of an item."""

    text: str
    item_id: str | None = None


Segments = list[Segment]


def spoken(segments: Sequence[Segment]) -> str:
    """The reply as plain text."""
    return "".join(segment.text for segment in segments)


def write(
    index: CatalogueIndex, plan: Plan, rows: Sequence[int], *, opening: Segments | None = None
) -> tuple[Segment, ...]:
    """The reply to a plan; `rows` are the decoded items, `opening` a model's words before their list.

    Raises KeyError for a topic that has no words.
    """
    said = _WORDS[plan.topic](index, plan, rows) if opening is None else [*opening, *_numbered(index, rows)]
    return tuple([*_owned_up(plan, rows), *said])


def least_expected(index: CatalogueIndex, state: ChatState, rows: Sequence[int], number: int) -> list[int]:
    """Of ranked items, the ones that have least in common with what was told and shown, best ranked first."""
    known = index.catalog.index
    met = [known[item] for item in (*state.liked, *state.history[-20:], *state.slate) if item in known]
    seen: set[str] = set()
    for row in met:
        seen |= {f"{name}={value}" for name, cells in index.columns.items() for value in cells[row]}
    chosen: list[int] = []
    left = list(rows)
    while left and len(chosen) < number:
        values = {row: {f"{name}={one}" for name, cells in index.columns.items() for one in cells[row]} for row in left}
        # Ties go to the better rank: `left` is in order of rank and min takes the first.
        best = min(left, key=lambda row: len(values[row] & seen) / max(1, len(values[row])))
        chosen.append(best)
        seen |= values[best]
        left.remove(best)
    return chosen


def item(index: CatalogueIndex, row: int) -> Segment:
    """The slot of an item, filled."""
    return Segment(index.catalog.titles[row], index.catalog.item_ids[row])


def _words(text: str) -> Segment:
    return Segment(text)


def _owned_up(plan: Plan, rows: Sequence[int]) -> Segments:
    """What could not be done, said before what is done; of items that are not there nothing is said."""
    said: Segments = []
    for note in plan.notes:
        kind, _, word = note.partition(":")
        if kind == "unknown" and plan.topic != "unknown":
            said.append(_words(f"I do not have “{word}” in this catalogue. "))
        elif kind == "unjudged":
            said.append(_words(f"I cannot judge “{word}” from what the catalogue says, so I left that out. "))
        elif kind == "cannot":
            said.append(_words(f"The catalogue does not tell me what is {word} than that. "))
        elif kind == "no-such":
            said.append(_words("My last list does not have that one. "))
        elif kind == "far" and rows:
            said.append(_words("Nothing left has much in common with it, so these are further away. "))
    return said


def _list(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    wishes = constraint_words(plan.state.constraints)
    if not rows:
        asked = f" that fits ({'; '.join(wishes)})" if wishes else ""
        return [_words(f"I have nothing left to recommend{asked}. Take a wish back, or say “start over”.")]
    known = index.catalog.index
    seeds = [known[item] for item in plan.state.seeds if item in known]
    opening: Segments = [_words(LEADS[plan.topic] or "Here is what I found")]
    if plan.topic == "surprise":
        pass
    elif seeds:
        opening += [_words(" starting from "), *_several(index, seeds)]
    elif plan.topic == "list" and plan.request is not None and not len(plan.request.history):
        opening = [_words("I know nothing about you yet, so this is what the model ranks highest for a new user")]
    if wishes:
        opening.append(_words(f" ({'; '.join(wishes)})"))
    return [*opening, _words(":"), *_numbered(index, rows)]


def _numbered(index: CatalogueIndex, rows: Sequence[int]) -> Segments:
    lines: Segments = []
    for number, row in enumerate(rows, start=1):
        facts = fact_line(index, row)
        lines += [_words(f"\n{number}. "), item(index, row), _words(f" — {facts}" if facts else "")]
    return lines


def _several(index: CatalogueIndex, rows: Sequence[int]) -> Segments:
    said: Segments = []
    for number, row in enumerate(rows):
        said += [_words(", " if 0 < number < len(rows) - 1 else " and ")] if number else []
        said.append(item(index, row))
    return said


def _why(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    known = index.catalog.index
    basis = [known[item] for item in plan.state.basis if item in known]
    wishes = constraint_words(plan.state.constraints)
    said: Segments = []
    for number, row in enumerate(plan.rows):
        said += [_words("\n" if said else ""), item(index, row), _words(": ")]
        if plan.explained and plan.explained[number]:
            said += _slotted(index, plan.explained[number], (*basis, row))
        elif not plan.explained and (found := reasons(index, basis, row)):
            said += _shared(index, found)
        elif index.catalog.item_ids[row] not in plan.state.shown:
            said.append(_words("I have not recommended it."))
        elif basis:
            said.append(_words("the model ranks it high after what you told; no fact ties it to that."))
        else:
            said.append(_words("the model ranks it high for a new user; I know nothing about you yet."))
    if wishes:  # once, however many items there are
        before = " " if len(plan.rows) == 1 else "\n"
        said.append(_words(f"{before}You asked for: {'; '.join(wishes)}."))
    return said


def _slotted(index: CatalogueIndex, text: str, rows: Sequence[int]) -> Segments:
    """An explanation with its quoted titles as slots of the items that it may speak of."""
    titles = {index.catalog.titles[row]: row for row in rows}
    parts = _QUOTED.split(text)  # words, quoted, words, quoted, …
    return [
        item(index, titles[part]) if number % 2 and part in titles else _words(part)
        for number, part in enumerate(parts)
    ]


def _shared(index: CatalogueIndex, found: Sequence[Reason]) -> Segments:
    said: Segments = []
    for reason in found:
        values = {value.casefold(): value for group in reason.shared.values() for value in reversed(group)}
        said += [_words("; " if said else "you told me about "), item(index, reason.row)]
        said.append(_words(f", also {joined([*values.values()][:5])}"))
    return [*said, _words(".")]


def _facts(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    said: Segments = []
    for row in plan.rows:
        facts = fact_line(index, row, everything=True)
        said += [_words("\n" if said else ""), item(index, row)]
        said.append(_words(f": {facts}." if facts else ": the catalogue says nothing more about it."))
    said.append(_words(" That is all the catalogue says."))
    return said


def _which(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    said: Segments = [_words("Several titles fit that. Which one do you mean?")]
    for number, row in enumerate(plan.rows, start=1):
        facts = fact_line(index, row)
        said += [_words(f"\n{number}. "), item(index, row), _words(f" — {facts}" if facts else "")]
    return said


def _examples(index: CatalogueIndex) -> str:
    """A few wishes that this catalogue can answer."""
    names = index.facet_names()
    values = [value for name in names[:1] for value in index.common_values(name, 4)]
    if "year" in index.numbers:
        values.append("the 90s")
    return joined(values, "or")


def _opener(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    examples = _examples(index)
    hint = f", or what you are in the mood for: {examples}" if examples else ""
    return [_words(f"Tell me something you liked{hint}. Or say “surprise me”.")]


def _reset(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    kept = " I still know what you had used before." if plan.state.history else ""
    return [_words(f"All forgotten.{kept} What would you like?")]


def _unknown(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    names = joined([f"“{name}”" for name in plan.unknown])
    return [_words(f"I do not have {names} in this catalogue. Name another title, or say what it should be like.")]


def _not_understood(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    examples = _examples(index)
    return [
        _words(
            "I found no title and no wish in that. I understand titles of this catalogue"
            + (f" and wishes such as {examples}" if examples else "")
            + ", “not …”, “older”, “why?”, “more”."
        )
    ]


def _profile(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> Segments:
    state, known = plan.state, index.catalog.index
    said: Segments = []
    for word, ids in (
        ("You had used", state.history[-5:]),
        ("You liked", state.liked),
        ("You did not like", state.disliked),
        ("You have seen", state.seen),
    ):
        found = [known[one] for one in ids if one in known]
        if found:
            said += [_words(f"{' ' if said else ''}{word} "), *_several(index, found), _words(".")]
    if wishes := constraint_words(state.constraints):
        said.append(_words(f"{' ' if said else ''}You asked for: {'; '.join(wishes)}."))
    return said or [_words("You have told me nothing yet.")]


def _fixed(text: str) -> Callable[[CatalogueIndex, Plan, Sequence[int]], Segments]:
    return lambda index, plan, rows: [_words(text)]


_WORDS: dict[str, Callable[[CatalogueIndex, Plan, Sequence[int]], Segments]] = {
    "list": _list,
    "more": _list,
    "surprise": _list,
    "why": _why,
    "facts": _facts,
    "which": _which,
    "opener": _opener,
    "reset": _reset,
    "unknown": _unknown,
    "not-understood": _not_understood,
    "profile": _profile,
    "help": _fixed(
        "I recommend items of this catalogue and nothing else. Name what you liked, say what you want or do not want"
        " (“not a comedy”, “before 1990”), then “more”, “why?”, “something like the second one but older”."
    ),
    "noted": _fixed("Is there something else I can look for?"),
    "thanks": _fixed("You are welcome."),
    "bye": _fixed("Goodbye."),
    "nothing-to-explain": _fixed("I have not recommended anything yet."),
}
