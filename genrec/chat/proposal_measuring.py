"""How well messages are understood: by the model alone, by the deterministic reading alone, and by the two together.

A case is a lesson (`tasks/messages.py`) said in a conversation: its marks are titles, its last list is the state's.
What somebody understood is a set of parts such as ("want", "Comedy"); right is only what is right in every part.

C cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.guard import Guarded, guarded, read_act
from genrec.chat.pieces import Reading
from genrec.chat.plan import Draft
from genrec.chat.reading import read_message
from genrec.chat.state import ChatState
from genrec.chat.titles import COMMON
from genrec.chat.turn import ChatTurn, Dialogue
from genrec.chat.updates import point_at
from genrec.decoding.engine import Generation
from genrec.tasks.messages import Lesson, Messages
from genrec.tasks.turn_text import TITLE_MARKS, Proposal, parse_proposal

Part = tuple[str, str]
_ITEM_SLOTS = ("liked", "disliked", "seen", "like", "about")
_SLOT_OF = {"liked": "liked", "disliked": "disliked", "seen": "seen", "seed": "like", "cleared": "cleared"}


@dataclass(frozen=True)
class Case:
    """A message as a user types it, the state before it, and what it means; `titles` are rows of the marks."""

    message: str
    state: ChatState
    meaning: Proposal
    titles: tuple[int, ...]


@dataclass(frozen=True)
class Understood:
    """What was understood of a case: by the model alone, without it, and together; `judged` is the guard's work."""

    wanted: frozenset[Part]
    model: frozenset[Part]
    reading: frozenset[Part]
    together: frozenset[Part]
    judged: Guarded


def make_cases(index: CatalogueIndex, messages: Messages, *, count: int, seed: int) -> list[Case]:
    """`count` lessons of a source as messages of conversations; the titles in them are those of single items."""
    rng = np.random.default_rng(seed)
    single = {words: rows[0] for words, rows in index.names.items() if len(rows) == 1}
    plain = [row for words, row in single.items() if _is_plain(words)]
    alone = plain if len(plain) > 2 * len(TITLE_MARKS) else list(single.values())
    keys = rng.integers(len(messages), size=count)
    return [_case(index, messages.lesson(int(key), rng), alone, rng) for key in keys]


def understand(dialogue: Dialogue, cases: Sequence[Case]) -> list[Understood]:
    """Ask the dialogue's model about every case, all together. Needs a dialogue whose model proposes."""
    assert dialogue.speaker is not None
    questions = [dialogue.question(case.state, case.message) for case in cases]
    asked = [question for question in questions if question is not None]
    texts = iter(dialogue.written(asked))
    nothing = Generation("", (), "stop")  # of a case that is too long to ask about
    written = [nothing if question is None else next(texts) for question in questions]
    return [_understood(dialogue, case, text) for case, text in zip(cases, written, strict=True)]


def count_proposals(found: Sequence[Understood]) -> Counter[str]:
    """How many proposals were accepted, accepted in part, left out or unreadable; and added parts, right and wrong."""
    counts: Counter[str] = Counter()
    for one in found:
        verdicts = {decision.verdict for decision in one.judged.decisions}
        if one.judged.proposal is None:
            counts["unreadable"] += 1
        elif "left out" not in verdicts:
            counts["accepted"] += 1
        else:
            counts["in part" if len(verdicts) > 1 else "left out"] += 1
        added = one.together - one.reading
        counts["parts added, right"] += len(added & one.wanted)
        counts["parts added, wrong"] += len(added - one.wanted)
        counts["read alone right, together wrong"] += one.reading == one.wanted != one.together
    return counts


def faults(dialogue: Dialogue, turn: ChatTurn) -> Counter[str]:
    """Items that do not exist, slots with another title, and long titles outside of slots, in one reply."""
    catalog = dialogue.index.catalog
    slots = [part for part in turn.segments if part.item_id is not None]
    words = " ".join(part.text for part in turn.segments if part.item_id is None)
    wrong = sum(part.text != catalog.titles[catalog.index[str(part.item_id)]] for part in slots)
    outside = sum(len(title) > 14 and title in words for title in catalog.titles)
    return Counter(
        {
            "invalid items": sum(item not in catalog.index for item in turn.item_ids),
            "ungrounded titles": wrong + outside,
        }
    )


def _is_plain(words: Sequence[str]) -> bool:
    """Whether a title is one that nobody takes for other words."""
    return len(words) > 1 and sum(word not in COMMON and len(word) > 3 for word in words) > 1


def _case(index: CatalogueIndex, lesson: Lesson, alone: Sequence[int], rng: np.random.Generator) -> Case:
    catalog = index.catalog
    drawn = [int(row) for row in rng.choice(alone, size=len(TITLE_MARKS) + 1, replace=False)]
    rows = [row for row in drawn if row not in lesson.shown]
    message = lesson.message
    for mark, row in zip(TITLE_MARKS, rows, strict=False):
        message = message.replace(f"[{mark}]", catalog.titles[row])
    shown = tuple(catalog.item_ids[row] for row in lesson.shown)
    state = ChatState(
        history=(catalog.item_ids[rows[-1]],) if lesson.told else (),
        shown=shown,
        slate=shown,
        focus=shown[0] if shown else None,
        asked=(lesson.asked,) if lesson.asked else (),
    )
    return Case(message, state, lesson.proposal, tuple(rows))


def _understood(dialogue: Dialogue, case: Case, text: Generation) -> Understood:
    assert dialogue.speaker is not None
    index, slate = dialogue.index, [dialogue.index.catalog.index[item] for item in case.state.slate]
    reading = read_message(index, case.message, has_slate=bool(slate))
    judged = guarded(index, dialogue.speaker.phrases, case.state, case.message, reading, text)
    read = [title.rows[0] if len(title.rows) == 1 else -1 for title in reading.titles]
    said = parse_proposal(text.text)
    unproposed = replace(dialogue, speaker=None)
    return Understood(
        parts_of_proposal(case.meaning, titles=case.titles, slate=slate),
        frozenset() if said is None else parts_of_proposal(said, titles=read, slate=slate),
        parts_of_reading(index, case.state, reading, act=unproposed.plan(case.state, case.message).act),
        parts_of_reading(index, case.state, judged.reading, act=dialogue.plan(case.state, case.message, text).act),
        judged,
    )


def parts_of_proposal(said: Proposal, *, titles: Sequence[int], slate: Sequence[int]) -> frozenset[Part]:
    """A proposal as parts; `titles` are the rows of its marks, `slate` those of the last list."""
    found = {("act", said.act), *(("want", name) for name in said.want), *(("avoid", name) for name in said.avoid)}
    found |= {("years", said.years)} if said.years else set()
    for slot in _ITEM_SLOTS:
        found |= {(slot, _row(name, titles, slate)) for name in getattr(said, slot)}
    return _with_also(found, {said.also} - {""})


def parts_of_reading(index: CatalogueIndex, state: ChatState, reading: Reading, *, act: str) -> frozenset[Part]:
    """A reading as parts; between asking and recommending the plan's `act` decides."""
    read = read_act(reading)
    act = act if read in ("", "ask", "recommend") else read
    found: set[Part] = {("act", act)}
    slots = {"wanted": "want", "unwanted": "avoid", "relaxed": "relaxed"}
    found |= {(slots[one.kind], one.value.value) for one in reading.asked}
    for one in reading.ranges:
        low, high = ("" if end is None else f"{end:g}" for end in (one.span.low, one.span.high))
        found.add(("years" if one.kind == "wanted" else f"{one.kind} years", f"{low}-{high}"))
    items = [(title.feeling, title.rows[0] if len(title.rows) == 1 else -1) for title in reading.titles]
    for pointer in reading.pointers:
        items += [(pointer.feeling, row) for row in point_at(index, Draft(state), pointer)]
    judged = any(feeling not in ("named", "unseen") for feeling, _ in items)
    for feeling, row in items:
        if act in ("explain", "answer"):
            found.add(("about", str(row)))
        elif feeling != "unseen" and (feeling != "named" or not judged):  # a bare name is something to start from
            found.add((_SLOT_OF.get(feeling, "like"), str(row)))
    found |= {("unknown", name) for name in reading.unknown}
    return _with_also(found, {"more", "surprise"} & reading.intents if act == "recommend" else set())


def _with_also(found: set[Part], also: set[str]) -> frozenset[Part]:
    """More of the same is only said of a message that says nothing else: elsewhere it changes nothing."""
    alone = len(found) == 1
    return frozenset(found | {("also", one) for one in also if one == "surprise" or alone})


def _row(name: str, titles: Sequence[int], slate: Sequence[int]) -> str:
    """What a mark or a place means, as a row; -1 where it means nothing."""
    mark = name.strip("[]")
    rows = slate if name.isdigit() else titles
    place = int(name) - 1 if name.isdigit() else TITLE_MARKS.find(mark) if len(mark) == 1 else -1
    return str(rows[place]) if 0 <= place < len(rows) else "-1"
