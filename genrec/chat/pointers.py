"""References into the last list: "the second one", "it", "all of them", "the western", "the one from 1994"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from genrec.chat.feelings import feeling_of
from genrec.chat.pieces import Asked, Place, Pointer, Range

_ORDINALS = {
    name: number
    for number, names in enumerate(
        (
            ("first", "1st"),
            ("second", "2nd"),
            ("third", "3rd"),
            ("fourth", "4th"),
            ("fifth", "5th"),
            ("sixth", "6th"),
            ("seventh", "7th"),
            ("eighth", "8th"),
            ("ninth", "9th"),
            ("tenth", "10th"),
        )
    )
    for name in names
} | {"former": 0, "last": -1, "latter": -1}
_THING = r"(?: (?:one|film|movie|item|title|book|product|recommendation|suggestion))"
_ORDINAL = re.compile(rf"(?<!\S)(the |number |your )?({'|'.join(_ORDINALS)})({_THING})?(?!\S)")
_FIRST_FEW = re.compile(
    rf"(?<!\S)the (first|last) (two|three|four|[2-4])(?:{_THING}s?| of (?:them|these|those))?(?!\S)"
)
_FEW = {"two": 2, "three": 3, "four": 4}
_NUMBER = re.compile(r"(?<!\S)(?:number|no|nr|item|#) (\d{1,2})(?!\S)|^(\d{1,2})$")
_DIGIT = re.compile(r"(?<!\S)([1-9]|10)(?!\S)")
# What may stand behind a place in the list: "the first and …", "the third was …"; not "the first world war".
_ON = frozenset({"and", "or", "but", "not", "is", "was", "sounds", "looks"})
_ON_PLURAL = frozenset({"are", "were", "sound", "look", "seem"})
_ALL = re.compile(
    r"(?<!\S)(?<!none of )(?<!neither of )(?:(?:all|any|both|each|either) of (?:them|these|those)|all (?:these|those))"
    r"(?!\S)"
)
# Plural words are a reference only where a verb that judges governs them ("I hated those", "they were boring").
_PLURAL = re.compile(r"(?<!\S)(?<!none of )(?<!neither of )(both|these|those|them|they)(?!\S)")
_JUDGING = frozenset({"like", "liked", "love", "loved", "enjoy", "enjoyed", "hate", "hated", "dislike", "disliked"})
_SEEING = frozenset({"seen", "saw", "watched", "finished", "know", "knew", "own"})
_GOVERNING = (
    _JUDGING | _SEEING | frozenset({"about", "than", "why", "explain", "not", "forget", "skip", "remove", "drop"})
)
_LIKENING = {("similar", "to"), ("close", "to"), ("based", "on")}
_WONDERING = frozenset({"will", "would", "might", "could", "should", "to", "id", "ill", "youll", "theyd", "theyll"})
_OVER = frozenset(
    {"already", "all", "both", "too", "either", "before", "yet", "again", "and", "or", "but", "so", "please"}
)  # behind an object
_BEING = frozenset({"are", "were", "arent", "werent"})
_SEEMING = re.compile(
    r"(?:all |both )?(?:look|sound|seem)(?:ed)? (?:\w+ )?(?:good|great|nice|fun|fine|interesting|promising)"
)
# "that" alone is a reference only behind words that want one: "I hate that", not "the film that won"; no more is it
# in "not that bad".
_BEHIND = ("like", "about", "hate", "seen", "saw", "watched", "love", "loved", "liked", "than", "why")
_IT = re.compile(
    r"(?<!\S)(?:it|that one|this one|(?:that|this)(?: film| movie| item| book| product)"
    + "".join(rf"|(?<={word} )(?:that|this)" for word in _BEHIND)
    + r"|(?<=not )(?:that|this)(?! (?:bad|good|great|funny|scary|boring|old|new|recent|long|much|keen|fond|into)(?!\S))"
    + r")(?!\S)(?! (?:is|was) (?:not )?(?:ok|okay|fine|all)| when| if)"
)
# "It" may also be what is asked for: "make it newer", "it should be from the 90s", "can it be shorter".
_SHOULD = r"(?:should|shall|must|has to|have to|needs? to|ought to|can|could|may|might|better)"
_WISHED = re.compile(
    r"(?:also |really |just |still )*"
    rf"(?:{_SHOULD}(?: (?:not|also|really|just|still|at least))* be(?! (?:that|because)\b)"
    r"|(?:shouldnt|mustnt|cant|cannot|neednt|(?:doesnt|does not) (?:have|need) to) be"
    r"|(?:doesnt|does not|wouldnt) (?:really )?matter|depends|(?:would|might) be \w+ (?:if|to))\b"
)
_ASKING = frozenset({"can", "could", "may", "should", "must", "might"})  # "can it be"
_SHAPING = frozenset({"make", "keep", "let", "have"})
_WANTING = frozenset({"want", "need", "prefer", "like", "love"})  # the last two behind "would"
_SHAPED = re.compile(
    r"to be\b|(?:(?:a )?(?:bit|little) |much |even )?(?:more |less |not |\w{2,}er\b"
    r"|from (?:the )?\d|from before\b)"
)
_OTHERS = frozenset({"they", "he", "she", "who", "people"})  # "they make it" is nobody's wish
_TELLING = frozenset({"me", "know", "wonder", "wondering", "sure", "ask", "asking"})  # "tell me if it was good"
_AS_LONG = {("long", "as"), ("make", "sure"), ("sure", "that")}
_ONE = re.compile(r"(?<!\S)the (older|oldest|earliest|newer|newest|latest) (?:one|film|movie)(?!\S)")

_ALL_BUT = re.compile(
    r"(?<!\S)(?:(?P<none>(?:none|nothing|neither)(?: of (?:them|these|those|the films|the movies))?)"
    r"|(?P<head>_|all(?: (?:the )?(?:others?|rest|films|movies|ones))?|everything|each(?: one)?"
    r"|every (?:single )?(?:one|film|movie))(?: all)?)"
    r" (?:(?:except|but|besides|excluding|bar|save)(?: for)?|(?:apart|aside) from|other than|with the exception of)"
    r"(?P<items>(?: (?:and|or|the))* _(?:(?: (?:and|or|nor|the))* _)*)(?!\S)"
)
_VERB_BEHIND = re.compile(r" (?:is|was|are|were|isnt|wasnt|arent|werent|sounds?|looks?|seems?|bored)(?!\S)")

_MOST = 40  # references of a message; each costs a look at the words around it, and more of them say nothing more


def find_pointers(
    marks: Sequence[str], clauses: Sequence[int], values: Sequence[Asked], ranges: Sequence[Range]
) -> Iterator[Pointer]:
    """References in a message, given as words in which titles stand as `_`, and their clauses; in order."""
    found = [*_by_content(marks, values, ranges)]
    used = [False] * len(marks)
    for pointer in found:
        used[pointer.place.start : pointer.place.end] = [True] * (pointer.place.end - pointer.place.start)
    words = [" " if taken or not mark else mark for mark, taken in zip(marks, used, strict=True)]
    # One character per token that is spoken for keeps the count of spaces equal to the count of tokens.
    line = " ".join("~" if word == " " else word for word in words)
    kinds: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Place], list[Pointer]]], ...] = (
        (_FIRST_FEW, _few),
        (_ORDINAL, lambda m, place: [Pointer(place, "number", _ORDINALS[m[2]])]),
        (_NUMBER, lambda m, place: [Pointer(place, "number", int(m[1] or m[2]) - 1)]),
        (_DIGIT, lambda m, place: [Pointer(place, "number", int(m[1]) - 1)]),
        (_ALL, lambda m, place: [Pointer(place, "all")]),
        (_PLURAL, lambda m, place: [Pointer(place, "all")]),
        (_ONE, lambda m, place: [Pointer(place, "oldest" if m[1] in {"older", "oldest", "earliest"} else "newest")]),
        (_IT, lambda m, place: [Pointer(place, "it")]),
    )
    checks = {_ORDINAL: _is_place, _FIRST_FEW: _are_places, _DIGIT: _is_number, _PLURAL: _is_plural, _IT: _is_item}
    for pattern, make in kinds:
        last = Place(-1, -1)
        for match in pattern.finditer(line):
            first = line.count(" ", 0, match.start())
            place = Place(first, first + match.group().count(" ") + 1)
            meant = pattern not in checks or checks[pattern](match, _Around.of(marks, clauses, place, last))
            if meant and not any(used[place.start : place.end]):
                found += make(match, place)
                used[place.start : place.end] = [True] * (place.end - place.start)
                last = place
    yield from sorted(found, key=lambda pointer: pointer.place.start)[:_MOST]


def find_exceptions(
    marks: Sequence[str], clauses: Sequence[int], pointers: Sequence[Pointer]
) -> Iterator[tuple[Place, Place, str]]:
    """Where "all of them except the last one" stands, in it what is left out, and what it begins with.

    That is "all" (of the list), "everything" (of the list, where what is left out is of it) or "none". Items are `_`.
    """
    kept = [number for number, mark in enumerate(marks) if mark]
    line = " ".join(marks[number] for number in kept)
    lists = {pointer.place.start for pointer in pointers if pointer.kind == "all"}
    for match in _ALL_BUT.finditer(line):
        first, items = (line.count(" ", 0, at) for at in (match.start(), match.start("items") + 1))
        last = line.count(" ", 0, match.end())
        start, end = kept[first], kept[last] + 1
        while end < len(marks) and not marks[end]:
            end += 1
        if match["head"] == "_" and start not in lists:
            continue
        opens = first == 0 or clauses[kept[first - 1]] != clauses[start]
        if not opens and _VERB_BEHIND.match(line, match.end()):  # "I liked all of them but the last was dull"
            continue
        kind = "none" if match["none"] else "all" if match["head"] == "_" else "everything"
        yield Place(start, end), Place(kept[items], end), kind


@dataclass(frozen=True)
class _Around:
    """The words of the clause around what may be a reference."""

    before: tuple[str, str]  # the two words before it; empty where there are none
    behind: tuple[str, ...]
    beyond: tuple[str, ...]  # the next words of the message, in whatever clause
    listed: bool  # another reference of its kind stands right before it: "the second and third"

    @classmethod
    def of(cls, marks: Sequence[str], clauses: Sequence[int], place: Place, last: Place) -> _Around:
        here = clauses[place.start]
        before = [marks[at] for at in range(max(0, place.start - 2), place.start) if clauses[at] == here]
        behind = [marks[at] for at in range(place.end, len(marks)) if clauses[at] == here]
        between = list(marks[last.end : place.start])
        listed = last.end > 0 and between in ([], ["and"], ["or"])
        first, second = ["", "", *before][-2:]
        return cls((first, second), tuple(filter(None, behind)), tuple(marks[place.end : place.end + 2]), listed)

    @property
    def next(self) -> str:
        """The word behind it; empty at the end of the clause."""
        return self.behind[0] if self.behind else ""


def _few(match: re.Match[str], place: Place) -> list[Pointer]:
    number = _FEW.get(match[2]) or int(match[2])
    start = 0 if match[1] == "first" else -number
    return [Pointer(place, "number", start + at) for at in range(number)]


def _is_place(match: re.Match[str], around: _Around) -> bool:
    """ "the second one", "the first, …", "second and third"; not "first, I want", "the first world war"."""
    told = bool(match[1]) or around.listed
    at_end = not around.behind and (told or not around.beyond)
    return bool(match[3]) or at_end or around.next in _ON or (told and around.next in _ON_PLURAL)


def _are_places(match: re.Match[str], around: _Around) -> bool:
    return not around.behind or around.next in _ON | _ON_PLURAL


def _is_number(match: re.Match[str], around: _Around) -> bool:
    """ "I loved 2", "seen 1 and 3"; "seen 3" may count."""
    ends = around.next in {"", "and", "but"}
    more = [word for word in around.beyond if word != "and"][:1]
    several = bool(more) and bool(_DIGIT.fullmatch(more[0]))
    verb = around.before[1]
    return ends and (around.listed or verb in _JUDGING or (verb in _SEEING and several))


def _is_item(match: re.Match[str], around: _Around) -> bool:
    """Whether "it" is an item, and not what is asked for: "make it newer", "it should be from the 90s"."""
    if match.group() != "it":
        return True
    behind, (first, verb) = " ".join(around.behind), around.before
    if _WISHED.match(behind) or around.before in _AS_LONG or (verb in _ASKING and around.next == "be"):
        return False
    if verb == "if" and first not in _TELLING and around.next in {"was", "were", "had", "could"}:  # "great if it was …"
        return False
    if verb in _SHAPING:
        return not behind or first in _OTHERS or around.next in _OVER
    wanting = verb in _WANTING and (verb not in {"like", "love"} or first in {"would", "id", "wed"})
    return not (wanting and _SHAPED.match(behind))


def _is_plural(match: re.Match[str], around: _Around) -> bool:
    """Whether "both", "they", "those" is what a verb judges: behind it ("hated those") or before ("they were bad")."""
    word, verb = match[1], around.before[1]
    rest = " ".join(around.behind).split(" and ")[0]
    judged = rest.removeprefix("all ").removeprefix("both ")
    if word != "them" and _SEEMING.match(judged):
        return True
    if word != "them" and judged.split(" ")[0] in _BEING and not {"i", "we"} & set(judged.split()):
        return feeling_of("", judged) in {"liked", "disliked"}
    if word == "they":
        return verb in _BEING
    alone = verb == "" and word != "them" and rest in {"", "please"}
    governed = (verb in _GOVERNING and around.before[0] not in _WONDERING) or around.before in _LIKENING
    return alone or (governed and (not rest or around.next in _OVER))


def _by_content(marks: Sequence[str], values: Sequence[Asked], ranges: Sequence[Range]) -> Iterator[Pointer]:
    """ "the horror one", "the western", "the one from 1994"."""
    things = {"one", "film", "movie", "item", "book", "product"}
    for asked in values:
        lo, hi = asked.place.start, asked.place.end
        if lo > 0 and marks[lo - 1] == "the" and hi < len(marks) and marks[hi] in things:
            yield Pointer(Place(lo - 1, hi + 1), "value", value=asked.value)
        elif lo > 2 and list(marks[lo - 3 : lo - 1]) == ["the", "one"]:
            yield Pointer(Place(lo - 3, hi), "value", value=asked.value)
    for found in ranges:
        lo, hi = found.place.start, found.place.end
        if lo > 1 and list(marks[lo - 2 : lo]) == ["the", "one"]:
            yield Pointer(Place(lo - 2, hi), "span", span=found.span)
        elif hi < len(marks) and marks[hi] == "one" and lo > 0 and (marks[lo - 1] == "the" or marks[lo] == "the"):
            start = lo if marks[lo] == "the" else lo - 1
            yield Pointer(Place(start, hi + 1), "span", span=found.span)
