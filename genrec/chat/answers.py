"""A message as the answer to "which one do you mean?", and as a correction of what the message before it said.

Both give what is picked the feeling that was said before, as if it had been named with it now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.filters import span_mask
from genrec.chat.pieces import Feeling, Place, Pointer, Reading, Title
from genrec.chat.plan import Draft
from genrec.chat.state import Question
from genrec.chat.updates import judge, point_at

_NOWHERE = Place(0, 0)  # a title that stands for what an earlier message said


def answer_question(index: CatalogueIndex, draft: Draft, reading: Reading) -> Reading:
    """Take a message as the answer to "which one do you mean?", where that was asked and the message answers it.

    Its title again, a pointer, a year or "not the first" picks of the items in question. What is picked then stands in
    the reading as if it had been named with the feeling that was asked about, and what waited behind the question as if
    named now. A message that says nothing is asked about once more; any other drops the question.
    """
    question = draft.state.question
    if question is None:
        return reading
    if reading.intents & {"facts", "why"} - {question.intent} and (reading.titles or reading.pointers):
        return reading  # "tell me about the first one": the question stays
    draft.state = draft.state.model_copy(update={"question": None})
    if "dismiss" in reading.intents:
        draft.trace.append("the question which one was meant is dropped")
        kept = tuple(one for one in reading.pointers if one.kind != "it")
        return replace(reading, pointers=kept, intents=reading.intents - {"more"})
    known = index.catalog.index
    rows = [known[item] for item in question.item_ids if item in known]
    again = [title for title in reading.titles if title.feeling == "named" and set(title.rows) <= set(rows)]
    others = [title for title in reading.titles if title not in again]
    if any(title.place in reading.corrected for title in others):  # "no, I meant Heat"
        meant = [replace(one, feeling=question.feeling) if one.place in reading.corrected else one for one in others]
        return replace(reading, titles=(*meant, *_waiting(index, question)), corrected=())
    own = tuple(one for one in reading.pointers if not _answers(one, question, reading))
    picked = _picked(index, draft, replace(reading, titles=tuple(others)), question, rows, again)
    if not picked:
        picked = [list(title.rows) for title in again]  # the title alone, which several have
    if not (picked or others or own or _says_something(reading) or question.repeated):
        draft.repeated, picked = True, [rows]
    if not picked:
        return replace(reading, pointers=tuple(one for one in reading.pointers if one.kind != "it"))  # which of them?
    pointed = bool(again) or any(one.kind != "it" for one in reading.pointers)
    answers = [Title(_NOWHERE, tuple(group), "", feeling=_feeling(question, reading)) for group in picked]
    return replace(
        reading,
        titles=(*answers, *others, *_waiting(index, question)),
        pointers=own,
        asked=reading.asked if pointed else (),  # "the romance" was the answer
        ranges=(),
        comparisons=(),
        corrected=(),
        intents=reading.intents | ({question.intent} - {""}),
    )


def correct(index: CatalogueIndex, draft: Draft, reading: Reading) -> Reading:
    """Take a message as the correction of what the one before it said of items: "sorry, I meant the third one".

    That is taken back, and what was meant stands in the reading with its feeling. The list is the one of then.
    """
    told = draft.state.told
    if told is None or not reading.corrected:
        return reading
    known = index.catalog.index
    before = [known[item] for item in told.item_ids if item in known]
    then = Draft(draft.state.model_copy(update={"slate": told.slate, "focus": next(iter(told.item_ids), None)}))
    refused = [one for one in reading.pointers if one.place in reading.refused]
    denied = {row for one in refused for row in point_at(index, then, one)}
    denied |= {row for one in reading.titles if one.place in reading.refused for row in one.rows}
    if denied and not denied & set(before):
        return reading  # "not the first one, the second one", of which nothing was said
    feeling = told.feeling
    titles = [replace(one, feeling=feeling) for one in reading.titles if one.place in reading.corrected]
    for pointer in reading.pointers:
        if pointer.place not in reading.corrected:
            continue
        if pointer.kind == "other":
            left = [row for item in told.slate if (row := known.get(item)) is not None and row not in before]
            titles += [Title(pointer.place, tuple(left), "", feeling=feeling)] if left else []
        else:
            titles += [Title(pointer.place, (row,), "", feeling=feeling) for row in point_at(index, then, pointer)]
    if titles:
        if feeling == "seed":
            gone = set(told.item_ids)
            seeds = tuple(item for item in draft.state.seeds if item not in gone)
            draft.change("the last message meant something else to start from", seeds=seeds)
        elif feeling in ("liked", "disliked", "seen"):
            judge(index, draft, before, "cleared")
        draft.slate = told.slate
    else:
        draft.notes.append("no-such")
    kept = [one for one in reading.titles if one.place not in (*reading.corrected, *reading.refused)]
    pointers = [one for one in reading.pointers if one.place not in (*reading.corrected, *reading.refused)]
    intents = reading.intents | ({told.intent} - {""})
    return replace(reading, titles=(*kept, *titles), pointers=tuple(pointers), intents=intents, corrected=())


def _answers(pointer: Pointer, question: Question, reading: Reading) -> bool:
    """Whether a pointer may pick of the items in question; "I liked the second one" is another opinion than "hated"."""
    return (
        pointer.kind in ("it", "other")
        or pointer.place in reading.refused
        or pointer.feeling in ("named", question.feeling)
    )


def _feeling(question: Question, reading: Reading) -> Feeling:
    """What is said of the picked item: what was asked about, unless an "it" of the answer says otherwise."""
    said = [one.feeling for one in reading.pointers if one.kind == "it" and one.feeling != "named"]
    if said and said[0] != "cleared":
        return said[0]
    return "seed" if question.feeling == "named" and not question.intent else question.feeling


def _says_something(reading: Reading) -> bool:
    """Whether a message has anything to act on; not so "what do you mean?", "the original", "it was boring"."""
    return bool(reading.asked or reading.ranges or reading.comparisons or reading.relaxed or reading.intents)


def _waiting(index: CatalogueIndex, question: Question) -> list[Title]:
    """What waits behind a question, as titles."""
    known, found = index.catalog.index, []
    for one in question.waiting:
        meant = tuple(known[item] for item in one.item_ids if item in known)
        found += [Title(_NOWHERE, meant, "", feeling=one.feeling)] if meant else []
    return found


def _picked(
    index: CatalogueIndex, draft: Draft, reading: Reading, question: Question, rows: list[int], again: Sequence[Title]
) -> list[list[int]]:
    """Which of the items in question, `rows`, a message means: groups of which one is meant, mostly of one item each.

    `again` are titles of theirs that it names, `reading` is without them.
    """
    told = [list(title.rows) for title in again if len(title.rows) == 1]
    gone: set[int] = set()
    for pointer in reading.pointers:
        if not _answers(pointer, question, reading) or pointer.kind in ("it", "other"):
            continue
        found = _fitting(index, draft, pointer, rows)
        if pointer.place in reading.refused:
            gone |= set(found)
        elif pointer.kind in ("value", "span"):  # "the drama", which several may be
            told += [found] if found else []
        else:
            told += [[row] for row in found]
    told = [group for number, group in enumerate(told) if group not in told[:number]]
    left = [row for row in rows if row not in gone]
    if told or gone:
        return told or ([left] if left else [])
    if reading.titles or reading.relaxed:
        return []
    for one in reading.ranges:
        left = [row for row in left if span_mask(index, one.span)[row] == (one.kind == "wanted")]
    for asked in reading.asked:
        has = [row for row in left if asked.value.value in index.columns[asked.value.attribute][row]]
        left = has if asked.kind == "wanted" and not reading.ranges else []
    if reading.ranges or reading.asked:
        return [left] if len(left) == 1 and not (reading.asked and "request" in reading.intents) else []
    words = {one.word for one in reading.comparisons if not one.refused and not one.than}
    if words and words <= {"older", "newer"} and not {"request", "more"} & reading.intents:
        oldest = Pointer(_NOWHERE, "oldest" if "older" in words else "newest")
        return [[row] for row in _fitting(index, draft, oldest, rows)]
    return []


def _fitting(index: CatalogueIndex, draft: Draft, pointer: Pointer, rows: Sequence[int]) -> list[int]:
    """The items in question that a pointer means: all that a value or a year fits."""
    if pointer.kind == "value" and pointer.value is not None:
        cells = index.columns[pointer.value.attribute]
        return [row for row in rows if pointer.value.value in cells[row]]
    if pointer.kind == "span" and pointer.span is not None:
        return [row for row in rows if span_mask(index, pointer.span)[row]]
    return [row for row in point_at(index, draft, pointer) if row in rows]
