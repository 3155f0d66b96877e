"""Words that a model wrote for a list ─► a reply's opening, or why the template speaks in its place.

The model saw the plan, and wrote a sentence or two in which items are slots. A sentence with a slot of the list is a
statement about that item: the check of explanations has to find it supported. Any other sentence may hold the wishes,
the slots of what the list starts from, and words of a short list. So nothing that is said can be a title, a name or a
number of the model's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.facts import fact_line
from genrec.chat.filters import constraint_words
from genrec.chat.plan import Plan
from genrec.chat.replies import LEADS, Segment, Segments, item
from genrec.decoding.engine import Generation
from genrec.explanation.checking import Checker
from genrec.explanation.evidence import Subject
from genrec.explanation.explainer import Explainer
from genrec.tasks.turn_text import SEED_MARKS, plain_line, plan_text

MAX_LETTERS, MAX_SENTENCES = 300, 3
_SLOT = re.compile(r"\[(\w+)\]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_PLAIN = re.compile(r"[\w\s.,;:!?'’()\-–]*")  # no markup, no addresses, nothing that opens a tag


def plan_words(index: CatalogueIndex, plan: Plan, rows: Sequence[int]) -> str | None:
    """The plan of a list in lines for a model; None where the template alone speaks.

    That is where there is no list, and where nothing is known of the user: there the template says so.
    """
    seeds = _seeds(index, plan)
    alone = plan.topic == "list" and plan.request is not None and not len(plan.request.history)
    if plan.topic not in LEADS or not rows or alone or len(seeds) > len(SEED_MARKS):
        return None
    facts = [fact_line(index, row) for row in rows]
    return plan_text(topic=plan.topic, wishes=constraint_words(plan.state.constraints), seeds=len(seeds), facts=facts)


def opening_of(
    index: CatalogueIndex,
    plan: Plan,
    rows: Sequence[int],
    written: Generation,
    *,
    words: frozenset[str],
    explainer: Callable[[], Explainer] | None,
) -> Segments | str:
    """The opening that a model wrote, with its slots filled; or, as a text, why it is not taken.

    `rows` are the decoded items, `words` those that sentences may be made of, `explainer` has the facts (None: a
    sentence about an item cannot be checked, and is not taken).
    """
    text, seeds = written.text.strip(), _seeds(index, plan)
    slots = {str(number): row for number, row in enumerate(rows, start=1)} | dict(zip(SEED_MARKS, seeds, strict=False))
    wishes = [plain_line(wish) for wish in constraint_words(plan.state.constraints)]
    problem = _form_problem(text, written, slots.keys(), wishes)
    if problem:
        return problem
    if missing := [wish for wish in wishes if wish.casefold() not in text.casefold()]:
        return f"they leave out {missing[0]!r}"
    if missing := [mark for mark in SEED_MARKS[: len(seeds)] if f"[{mark}]" not in text]:
        return f"they leave out [{missing[0]}]"
    if LEADS[plan.topic].casefold() not in text.casefold():
        return f"they do not say {LEADS[plan.topic]!r}"
    for sentence in _SENTENCE.split(text):
        marks = _SLOT.findall(sentence)
        if listed := [mark for mark in marks if mark.isdigit()]:
            problem = _fact_problem(sentence, slots, listed, explainer)
        else:
            problem = _plan_problem(sentence, wishes, words)
        if problem:
            return problem
    return _filled(index, text, slots)


def _form_problem(text: str, written: Generation, known: Collection[str], wishes: Sequence[str]) -> str:
    if written.finish_reason != "stop" or not text.endswith((".", ":", "!", "?")):
        return "they do not come to an end"
    if len(text) > MAX_LETTERS or len(_SENTENCE.split(text)) > MAX_SENTENCES:
        return "they are too long"
    if strange := [mark for mark in _SLOT.findall(text) if mark not in known]:
        return f"there is no [{strange[0]}]"
    if not _PLAIN.fullmatch(_without(_SLOT.sub("", text), wishes)):
        return "they hold markup"
    return ""


def _plan_problem(sentence: str, wishes: Sequence[str], words: frozenset[str]) -> str:
    """What a sentence about the plan says beyond the plan; "" where nothing."""
    rest = _without(_SLOT.sub(" ", sentence), wishes)
    strange = [word for word in re.findall(r"\w+", rest.casefold()) if word not in words]
    return f"{strange[0]!r} is not in the plan" if strange else ""


def _fact_problem(
    sentence: str,
    slots: dict[str, int],
    listed: Sequence[str],
    explainer: Callable[[], Explainer] | None,
) -> str:
    """Why a sentence about an item of the list is not supported; "" where it is."""
    if len(set(listed)) > 1:
        return "a sentence speaks of two items of the list"
    if explainer is None:
        return "there are no facts to check a statement with"
    told = explainer()
    seeds = tuple(slots[mark] for mark in _SLOT.findall(sentence) if not mark.isdigit())
    checker = Checker(told.language("en"), told.facts, Subject(seeds, slots[listed[0]]))
    quoted = _SLOT.sub(lambda match: f"“{told.facts.title(slots[match[1]])}”", sentence)
    found = checker.check(quoted)
    return next((f"{one.reason}" for one in found if one.verdict == "unsupported"), "")


def _filled(index: CatalogueIndex, text: str, slots: dict[str, int]) -> Segments:
    """The text with the items of its slots."""
    parts = _SLOT.split(text)  # words, mark, words, mark, …, words
    said = [item(index, slots[part]) if place % 2 else Segment(part) for place, part in enumerate(parts)]
    return [segment for segment in said if segment.text]


def _seeds(index: CatalogueIndex, plan: Plan) -> list[int]:
    known = index.catalog.index
    return [known[one] for one in plan.state.seeds if one in known] if plan.topic != "surprise" else []


def _without(text: str, wishes: Sequence[str]) -> str:
    for wish in sorted(wishes, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(wish)}(?!\w)", " ", text, flags=re.IGNORECASE)
    return text
