"""One turn of a conversation: a state and a message in; an act, items, words and the next state out. No I/O.

`Dialogue.plan` understands the message and says what to decode, `Dialogue.finish` turns the decoded items into the
reply. Where the model was taught to, it proposes what the message says before the one and words before the other.
`Dialogue.steps` is all of it, and says what it needs of the engine, so that many users' turns can be made together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, get_args

from genrec.chat import replies
from genrec.chat.answers import answer_question, correct
from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.guard import guarded
from genrec.chat.pieces import Feeling, Pointer, Reading, Title
from genrec.chat.plan import Act, Draft, Plan, recommend_plan, reply_plan
from genrec.chat.reading import read_message
from genrec.chat.replies import Segment, spoken
from genrec.chat.speaker import Speaker, load_speaker
from genrec.chat.state import ChatState, Question, Told
from genrec.chat.steps import Need, Pause, ProposalsName, Rank, ResultT, Steps, Write
from genrec.chat.updates import apply_wishes, compare, judge, left_out, point_at
from genrec.chat.wording import opening_of, plan_words
from genrec.chat.words import joined, tokens_of
from genrec.decoding.engine import Generation, RankedItem
from genrec.explanation.explainer import ExplainRequest
from genrec.recommender import Recommender
from genrec.tasks.turn_text import MAX_MESSAGE_LETTERS, MAX_MESSAGE_WORDS, marked_message, state_text

_FEELINGS: tuple[Feeling, ...] = get_args(Feeling)
_OPPOSITES: dict[Feeling, Feeling] = {"liked": "disliked", "disliked": "liked"}
MAX_MESSAGE = 4000  # characters; what is longer is refused by whoever reads it


@dataclass(frozen=True)
class ChatTurn:
    """One reply. Titles stand in item segments only, so `text` names nothing that was not decoded or asked about."""

    act: Act
    segments: tuple[Segment, ...]
    item_ids: tuple[str, ...]  # recommended in this turn, in their order
    state: ChatState
    trace: tuple[str, ...]  # what was understood and decided, one sentence each
    catalog_version: str

    @property
    def text(self) -> str:
        """The reply as plain text."""
        return spoken(self.segments)


@dataclass(frozen=True, eq=False)
class Dialogue:
    """A recommender that can be talked to. Make one with `over`; `number` items per list.

    `speaker` asks the model what a message says and for words; None: deterministic reading and templates alone.
    """

    recommender: Recommender
    index: CatalogueIndex
    number: int = 5
    speaker: Speaker | None = None

    @classmethod
    def over(cls, recommender: Recommender, *, number: int = 5, proposals: ProposalsName = "auto") -> Dialogue:
        """Index the catalogue of a recommender as it is now.

        `proposals` says whether the model proposes: `off`, `on`, or `auto`: where it was taught to. Raises ConfigError
        for `on` where it was not.
        """
        here = recommender.pinned()
        return cls(here, CatalogueIndex.build(here.catalog), number, load_speaker(here.run, proposals))

    def following(self, recommender: Recommender) -> Dialogue:
        """This dialogue over a recommender that may have been refreshed; the same index where it still fits."""
        here = recommender.pinned()
        if here.catalog is self.index.catalog:
            return replace(self, recommender=here)
        return replace(self, recommender=here, index=CatalogueIndex.build(here.catalog))

    def turn(self, state: ChatState, message: str) -> ChatTurn:
        """Understand, decode, reply."""
        return self.alone(self.steps(state, message))

    def alone(self, steps: Steps[ResultT]) -> ResultT:
        """Drive steps to their end and give them what they need, one need at a time."""
        given = None
        while True:
            try:
                need = steps.send(given)
            except StopIteration as done:
                result: ResultT = done.value
                return result
            given = self.given(need)

    def given(self, need: Need) -> list[RankedItem] | Generation | None:
        """What steps need: ranked items, a text, or nothing."""
        if isinstance(need, Pause):
            return None
        if isinstance(need, Rank):
            return self.recommender.rank([need.request], need.k)[0]
        return self.written([need])[0]

    def written(self, wanted: Sequence[Write]) -> list[Generation]:
        """Texts of the model, all together. Needs a speaker, as whatever asks for a text does."""
        assert self.speaker is not None
        return self.speaker.written(self.recommender.engine, wanted)

    def steps(self, state: ChatState, message: str) -> Steps[ChatTurn]:
        """A turn, step by step."""
        plan = yield from self.planned(state, message)
        ranked = (yield Rank(plan.request, plan.k)) if plan.request is not None else []
        words = plan_words(self.index, plan, self._listed(plan, ranked)) if self.speaker is not None else None
        question = self.speaker.about_list(words) if self.speaker is not None and words is not None else None
        said = (yield question) if question is not None else None
        return self.finish(plan, ranked, said)

    def planned(self, state: ChatState, message: str) -> Steps[Plan]:
        """The plan of a turn, after what the model proposes, where it is asked."""
        question = self.question(state, message)
        return self.plan(state, message, (yield question) if question is not None else None)

    def plan(self, state: ChatState, message: str, proposed: Generation | None = None) -> Plan:
        """What the message asks for; `proposed` is what the model wrote about it, which is guarded here.

        The plan's state already knows what the message said.
        """
        reading, notes = self._read(state, message), []
        if proposed is not None and self.speaker is not None:
            checked = guarded(self.index, self.speaker.phrases, state, message, reading, proposed)
            reading, notes = checked.reading, checked.trace
        return self._planned(state, reading, notes)

    def _read(self, state: ChatState, message: str) -> Reading:
        return read_message(self.index, message, has_slate=bool(state.slate or state.focus))

    def question(self, state: ChatState, message: str) -> Write | None:
        """What to ask the model about a message; None where it is not asked: nobody asks, or the message is long."""
        if self.speaker is None or len(message) > MAX_MESSAGE_LETTERS:
            return None
        tokens = tokens_of(message)
        if not 0 < len(tokens) <= MAX_MESSAGE_WORDS:
            return None
        places = [title.place for title in self._read(state, message).titles]
        spans = [(tokens[place.start].start, tokens[place.end - 1].end) for place in places]
        known, titles = self.index.catalog.index, self.index.catalog.titles
        told = any((state.history, state.liked, state.seeds, state.seen, state.disliked, state.shown))
        before = state_text(
            asked=state.asked[-1] if state.asked else "",
            told=told or not state.constraints.empty,
            shown=[titles[known[one]] for one in state.slate if one in known],
        )
        return self.speaker.about_message(before, marked_message(message, spans))

    def _planned(self, state: ChatState, reading: Reading, notes: Sequence[str]) -> Plan:
        """The plan for a message that was read, in a state."""
        draft = Draft(state.model_copy(update={"turns": state.turns + 1}), list(notes))
        reading = correct(self.index, draft, answer_question(self.index, draft, reading))
        if "reset" in reading.intents:
            draft.change("starting over", **_fresh(state))
            return reply_plan(draft, "ask", "reset")
        asked = "facts" in reading.intents  # of what is only not seen it does not matter which one
        doubtful = {
            title.rows: title.feeling
            for title in reading.titles
            if len(title.rows) > 1 and (asked or title.feeling != "unseen")
        }
        rows = _told_items(self.index, draft, reading)
        wishes = apply_wishes(self.index, draft, reading)
        if doubtful:
            return self._ask_which(draft, doubtful, reading)
        return self._decide(draft, reading, rows, wishes)

    def finish(self, plan: Plan, ranked: Sequence[RankedItem], said: Generation | None = None) -> ChatTurn:
        """The reply to a plan, given what was decoded for its request and what the model `said` about the list."""
        if plan.act == "explain" and self.recommender.run is not None:
            plan = replace(plan, explained=self._explanations(plan))
        rows = self._listed(plan, ranked)
        opening, notes = self._opening(plan, rows, said)
        segments = replies.write(self.index, plan, rows, opening=opening)
        ids = tuple(self.index.catalog.item_ids[row] for row in rows)
        if plan.act == "recommend":
            notes.insert(0, f"decoded {len(ids)} of {self.number}" if ids else "no item is left under these wishes")
        trace = (*plan.trace, *notes)
        return ChatTurn(plan.act, segments, ids, self.after(plan, ids), trace, self.recommender.trie.version)

    def after(self, plan: Plan, ids: Sequence[str]) -> ChatState:
        """The state after the reply to a plan that recommended the items `ids`."""
        state = plan.state
        if plan.act == "recommend":
            focus = ids[0] if ids else state.focus
            shown = tuple(dict.fromkeys((*state.shown, *ids)))
            state = state.model_copy(update={"shown": shown, "slate": tuple(ids) or state.slate, "focus": focus})
        elif plan.topic in {"which", "facts", "why"} and plan.rows:
            update: dict[str, object] = {"focus": self.index.catalog.item_ids[plan.rows[0]]}
            if plan.topic == "which":
                update["slate"] = tuple(self.index.catalog.item_ids[row] for row in plan.rows)
            state = state.model_copy(update=update)
        if plan.act == "ask":
            state = state.model_copy(update={"asked": (*state.asked, plan.topic)})
        return state

    def _listed(self, plan: Plan, ranked: Sequence[RankedItem]) -> list[int]:
        """Rows of the list that goes out."""
        rows = [item.item_index for item in ranked]
        if plan.topic == "surprise":
            rows = replies.least_expected(self.index, plan.state, rows, self.number)
        return rows[: self.number]

    def _opening(
        self, plan: Plan, rows: Sequence[int], said: Generation | None
    ) -> tuple[replies.Segments | None, list[str]]:
        """The model's words, where they may be said, and what the trace says of them."""
        if said is None or self.speaker is None:
            return None, []
        found = opening_of(
            self.index,
            plan,
            rows,
            said,
            words=self.speaker.phrases.words_of_replies,
            explainer=self.recommender.explainer if self.recommender.run is not None else None,
        )
        if isinstance(found, str):
            return None, [f"the model's words for the list are not taken: {found}"]
        return found, ["the words for the list are the model's"]

    def _explanations(self, plan: Plan) -> tuple[str, ...]:
        """Checked explanations of a plan's items, from what its last list was ranked after."""
        known = self.index.catalog.index
        basis = tuple(known[item] for item in plan.state.basis if item in known)
        requests = [ExplainRequest(tuple(told for told in basis if told != row), row) for row in plan.rows]
        return tuple(one.text for one in self.recommender.explainer().explain(requests))

    def _decide(self, draft: Draft, reading: Reading, rows: dict[str, list[int]], wishes: bool) -> Plan:
        """Which act: facts and reasons where they are asked for, a question where nothing is known, else a list."""
        intents, every = reading.intents, [row for group in rows.values() for row in group]
        draft.notes += [f"unknown:{name}" for name in reading.unknown]
        draft.notes += [f"unjudged:{word}" for word in reading.unjudged]
        if "why" in intents:
            return self._explain(draft, every)
        if "profile" in intents:
            return reply_plan(draft, "answer", "profile")
        about, told = [*rows["named"], *rows["unseen"]], [row for row in every if row not in rows["unseen"]]
        if "facts" in intents and about and not wishes:
            return reply_plan(draft, "answer", "facts", rows=about)
        compared = self._compare(draft, reading, rows)
        asks = compared or wishes or bool(told) or bool({"request", "more", "surprise", "dunno"} & intents)
        if not asks:
            return self._small_talk(draft, reading)
        if reading.unknown and not every and not wishes:
            return reply_plan(draft, "ask", "unknown", unknown=reading.unknown)
        if self._knows_nothing(draft, reading):
            return reply_plan(draft, "ask", "opener")
        if "surprise" in intents:
            draft.change("a surprise: no longer like one item", seeds=())
            return recommend_plan(draft, self.recommender, self.index, number=self.number, topic="surprise")
        topic = "more" if "more" in intents and not (wishes or compared or told) else "list"
        return recommend_plan(draft, self.recommender, self.index, number=self.number, topic=topic)

    def _compare(self, draft: Draft, reading: Reading, rows: dict[str, list[int]]) -> bool:
        if not reading.comparisons:
            return False
        known = self.index.catalog.index
        against = [*rows["seed"], *rows["named"]] or [known[item] for item in draft.state.slate if item in known]
        return compare(self.index, draft, reading, against)

    def _explain(self, draft: Draft, rows: Sequence[int]) -> Plan:
        known = self.index.catalog.index
        about = list(rows) or [known[item] for item in draft.state.slate if item in known]
        if not about:
            return reply_plan(draft, "chat", "nothing-to-explain")
        draft.trace.append(f"why: {joined([self.index.catalog.titles[row] for row in about])}")
        return reply_plan(draft, "explain", "why", rows=about)

    def _small_talk(self, draft: Draft, reading: Reading) -> Plan:
        for intent in ("help", "thanks", "bye"):
            if intent in reading.intents:
                return reply_plan(draft, "chat", intent)
        if reading.unknown:
            return reply_plan(draft, "ask", "unknown", unknown=reading.unknown)
        if "greeting" in reading.intents:
            return reply_plan(draft, "ask", "opener")
        if reading.relaxed:
            return recommend_plan(draft, self.recommender, self.index, number=self.number)
        unseen = "unseen" in {title.feeling for title in reading.titles} | {one.feeling for one in reading.pointers}
        if unseen and self._knows_nothing(draft, reading):
            return reply_plan(draft, "ask", "opener")
        if draft.notes or unseen or "dismiss" in reading.intents:
            return reply_plan(draft, "chat", "noted")
        draft.trace.append("nothing in the message is a title, a value or a wish that the catalogue knows")
        return reply_plan(draft, "ask", "not-understood")

    def _knows_nothing(self, draft: Draft, reading: Reading) -> bool:
        """Whether to ask before recommending: nobody said anything yet, and asking was not refused."""
        state = draft.state
        told = (
            any((state.history, state.liked, state.seeds, state.seen, state.disliked, state.shown))
            or not state.constraints.empty
        )
        insists = {"dunno", "surprise"} & reading.intents or "opener" in state.asked
        return not told and not insists

    def _ask_which(self, draft: Draft, doubtful: Mapping[tuple[int, ...], Feeling], reading: Reading) -> Plan:
        """Ask about the first of several titles, given as rows and what was said; the others wait."""
        ids = self.index.catalog.item_ids
        first, *waiting = (
            Question(item_ids=tuple(ids[row] for row in rows), feeling=feeling) for rows, feeling in doubtful.items()
        )
        question = first.model_copy(
            update={"waiting": tuple(waiting), "intent": _asked(reading), "repeated": draft.repeated}
        )
        draft.change(f"{len(first.item_ids)} items have that title: asking which", question=question)
        return reply_plan(draft, "ask", "which", rows=next(iter(doubtful)))


def _told_items(index: CatalogueIndex, draft: Draft, reading: Reading) -> dict[str, list[int]]:
    """Rows by what was said about them; opinions and seeds go into the state on the way."""
    rows: dict[str, list[int]] = {name: [] for name in _FEELINGS}
    told: list[tuple[Feeling, list[int]]] = []  # in the order of the message, as the newest opinion counts
    pieces: list[Title | Pointer] = [*reading.titles, *reading.pointers]
    for piece in sorted(pieces, key=lambda one: one.place.start):
        if isinstance(piece, Title):
            found = list(piece.rows) if len(piece.rows) == 1 else []
            if piece.guessed and found:
                draft.trace.append(f"read {piece.text!r} as {index.catalog.titles[found[0]]}")
        else:
            found = point_at(index, draft, piece)
            gone = left_out(index, draft, piece)
            if gone and not found and piece.feeling in _OPPOSITES:  # "I like everything except Heat", of no list
                told.append((_OPPOSITES[piece.feeling], gone))
                rows[_OPPOSITES[piece.feeling]] += gone
            elif not found and not gone and piece.kind != "it":
                draft.notes.append("no-such")
        rows[piece.feeling] += found
        told.append((piece.feeling, found))
    seedless = not any(rows[name] for name in rows if name not in ("named", "unseen"))
    if rows["named"] and seedless and not ({"facts", "why"} & reading.intents):
        answering = "opener" in draft.state.asked[-1:] or "unknown" in draft.state.asked[-1:]
        meant: Feeling = "liked" if answering else "seed"
        told = [(meant if feeling == "named" else feeling, found) for feeling, found in told]
        rows[meant], rows["named"] = rows["named"], []
    last: Told | None = None
    for feeling, group in groupby(told, key=lambda one: one[0]):
        judged = [row for _, found in group for row in found]
        judge(index, draft, judged, feeling)
        if judged:
            ids = tuple(index.catalog.item_ids[row] for row in judged)
            slate = draft.slate or draft.state.slate
            last = Told(item_ids=ids, feeling=feeling, slate=slate, intent=_asked(reading))
    draft.state = draft.state.model_copy(update={"told": last})
    if rows["seed"]:
        ids = tuple(index.catalog.item_ids[row] for row in rows["seed"])
        draft.change(f"starting from {joined([index.catalog.titles[row] for row in rows['seed']])}", seeds=ids)
    return rows


def _asked(reading: Reading) -> Literal["", "facts", "why"]:
    """What a message asks about the items that it names."""
    return "why" if "why" in reading.intents else "facts" if "facts" in reading.intents else ""


def _fresh(state: ChatState) -> dict[str, object]:
    """What starting over forgets: everything but the history and how many turns there were."""
    blank = ChatState().model_dump(exclude={"history", "turns"})
    return {name: getattr(ChatState(), name) for name in blank}
