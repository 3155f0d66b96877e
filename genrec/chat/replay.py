"""A conversation that was kept elsewhere, back to a state: messages in, the state after them out.

Clients of OpenAI's API send the whole conversation with every request. What the user said is understood again;
what was shown is read from the numbered lines of our own replies, and only titles of the catalogue count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genrec.chat.state import ChatState
from genrec.chat.steps import Pause
from genrec.chat.words import words_of

if TYPE_CHECKING:
    from genrec.chat.catalogue_index import CatalogueIndex
    from genrec.chat.replies import Segment
    from genrec.chat.steps import Steps
    from genrec.chat.turn import Dialogue

MAX_ASKED = 16  # messages of the past that the model is asked about, one after the other
_LINE = re.compile(r"^\d{1,2}\. (?P<item>.+)$", re.MULTILINE)  # "Title — facts", or the title alone
_DASH = " — "
_SPECIAL = re.compile(r"([\\`*_\[\]<>])")
_ESCAPED = re.compile(r"\\([\\`*_\[\]<>])")


@dataclass(frozen=True)
class Said:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


def replay(dialogue: Dialogue, state: ChatState, messages: Sequence[Said]) -> Steps[ChatState]:
    """The state after messages of the past, in steps. Nothing is ranked: what was shown stands in the replies.

    Where the model proposes, it is asked about the last messages again, and answers what it answered then.
    """
    users = [number for number, message in enumerate(messages) if message.role == "user"]
    for number in users:
        message = messages[number]
        if number in users[-MAX_ASKED:]:
            plan = yield from dialogue.planned(state, message.text)
        else:
            plan = dialogue.plan(state, message.text)
        state = dialogue.after(plan, ())
        yield Pause()  # long conversations of people who are gone are not read to their end
        answer = messages[number + 1] if number + 1 < len(messages) else None
        if plan.act == "recommend" and answer is not None and answer.role == "assistant":
            shown = [dialogue.index.catalog.item_ids[row] for row in listed(dialogue.index, answer.text)]
            if shown:
                every = tuple(dict.fromkeys((*state.shown, *shown)))
                state = state.model_copy(update={"shown": every, "slate": tuple(shown), "focus": shown[0]})
    return state


def listed(index: CatalogueIndex, text: str) -> list[int]:
    """Rows of the items in the numbered lines of a reply; the year behind a title tells apart what is called alike."""
    found: list[int] = []
    for match in _LINE.finditer(plain(text)):
        parts = match["item"].split(_DASH)
        for length in range(len(parts), 0, -1):  # a title may have a dash of its own
            if rows := index.names.get(words_of(_DASH.join(parts[:length])), ()):
                year = re.search(r"\b\d{4}\b", _DASH.join(parts[length:]))
                dated = [row for row in rows if year is not None and index.year(row) == int(year.group())]
                found += (dated or list(rows))[:1]
                break
    return found


def markdown(segments: Sequence[Segment]) -> str:
    """A reply as Markdown in which nothing that a catalogue or a user wrote can become a link, an image or HTML."""
    return "".join(_SPECIAL.sub(r"\\\1", segment.text) for segment in segments)


def plain(text: str) -> str:
    """Markdown of ours as plain text."""
    return _ESCAPED.sub(r"\1", text)
