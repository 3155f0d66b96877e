"""What a model reads and writes about one turn of a conversation: plain lines, which a person can read too.

About a message it reads the state in a few lines and the message, and writes a proposal:

    asked: opener                           act: recommend
    told: nothing                           want: Comedy; Romance
    shown: 1. Heat; 2. Fargo                years: 1990-1999
    message: I adored [a], a comedy …       liked: [a]

About a reply it reads the plan and writes a sentence or two. Titles of a message stand as `[a]`, `[b]`, …; decoded
items as `[1]`, `[2]`, …; items that a list starts from as `[x]`, `[y]`, `[z]`. So no title is ever copied, and brackets
in anybody's text become round ones, so that nobody can forge a mark or a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

ACTS = ("ask", "recommend", "explain", "answer", "chat")
ALSO = ("more", "surprise")
TITLE_MARKS, SEED_MARKS = "abcdefgh", "xyz"
MAX_SHOWN = 5  # titles of the last list
MAX_MESSAGE_WORDS, MAX_MESSAGE_LETTERS = 50, 300  # of a message that a model is asked about
_LIST = {"want", "avoid", "liked", "disliked", "seen", "like", "about"}
_NEUTRAL = str.maketrans("[]", "()")


@dataclass(frozen=True)
class Proposal:
    """What a message is taken to say. Values are names of attribute values; items are marks, places or titles.

    `years` is "1990-1999", "1990-" or "-1979", `also` "more" or "surprise", `about` what a question is about.
    """

    act: str = "ask"
    want: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    years: str = ""
    liked: tuple[str, ...] = ()
    disliked: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    like: tuple[str, ...] = ()  # "something like it"
    about: tuple[str, ...] = ()
    also: str = ""

    def text(self) -> str:
        """The proposal in lines; what it does not speak of has none."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        told = ((name, value if isinstance(value, str) else "; ".join(value)) for name, value in values)
        return "\n".join(f"{name}: {value}" for name, value in told if value)


def parse_proposal(text: str) -> Proposal | None:
    """A model's lines as a proposal; None where a line is none of those that are known or the act is unknown."""
    found: dict[str, str | tuple[str, ...]] = {}
    names = {one.name for one in fields(Proposal)}
    for line in text.strip().splitlines():
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or name not in names or name in found or not value:
            return None
        values = tuple(dict.fromkeys(part.strip() for part in value.split(";") if part.strip()))
        found[name] = values if name in _LIST else value
    if found.get("act") not in ACTS or found.get("also", "more") not in ALSO:
        return None
    return Proposal(**found)  # type: ignore[arg-type]  # every name has the kind of its field


def plain_line(text: str) -> str:
    """Anybody's text as one line without square brackets."""
    return " ".join(text.translate(_NEUTRAL).split())


def state_text(*, asked: str, told: bool, shown: Sequence[str]) -> str:
    """What a proposal is made after: what was asked last, whether anything is known, the last list's titles."""
    listed = "; ".join(f"{number}. {plain_line(title)}" for number, title in enumerate(shown[:MAX_SHOWN], start=1))
    lines = [f"asked: {asked}" if asked else "", "" if told else "told: nothing", f"shown: {listed}" if shown else ""]
    return "\n".join(line for line in lines if line) or "shown: nothing"


def marked_message(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A message on one line, its titles, which stand at `spans` (offsets, in order), as `[a]`, `[b]`, …"""
    done, parts = 0, []
    for mark, (start, end) in zip(TITLE_MARKS, spans, strict=False):
        parts += [text[done:start].translate(_NEUTRAL), f"[{mark}]"]
        done = end
    return " ".join("".join([*parts, text[done:].translate(_NEUTRAL)]).split())


def plan_text(*, topic: str, wishes: Sequence[str], seeds: int, facts: Sequence[str]) -> str:
    """What words are written for: the topic, the wishes, how many items the list starts from, facts of its items."""
    lines = [f"topic: {topic}", f"wishes: {'; '.join(map(plain_line, wishes))}" if wishes else ""]
    lines.append(f"from: {' '.join(f'[{mark}]' for mark in SEED_MARKS[:seeds])}" if seeds else "")
    lines += [f"[{number}] {plain_line(fact)}" for number, fact in enumerate(facts, start=1)]
    return "\n".join(line for line in lines if line)


def format_lines() -> list[str]:
    """The words of the lines above, for a text tokenizer made here."""
    return [
        *(f"{one.name}: 1; 2; [a]; [b]" for one in fields(Proposal)),
        *(f"act: {act}" for act in ACTS),
        *(f"also: {also}" for also in ALSO),
        "years: 1990-1999",
        "asked: opener",
        "told: nothing",
        "shown: nothing",
        "shown: 1. ; 2. ; 3. ; 4. ; 5. ",
        "message: ",
        plan_text(topic="list", wishes=("no ", "from 1990 to 1999"), seeds=2, facts=("", "", "", "", "")),
    ]
