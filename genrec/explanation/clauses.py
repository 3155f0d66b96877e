"""A clause of a marked text ─► what it is made of: word classes, mentions and numbers, and their order.

A mention that may be several things gives a reading for each ("Weezer" is a title and an artist). In every reading
each word has to be known, and the order of the words has to be one whose meaning is plain: who chose stands before
the verb, what a column is of stands behind `of`, who made it stands behind `by`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from genrec.explanation.language import Language
from genrec.explanation.mentions import Marked, Marker, Mention, Role

MAKERS = frozenset({"director", "author", "artist", "brand", "creator", "manufacturer", "publisher", "studio"})
MAX_READINGS = 64  # of a clause whose names belong to several things
_PERSONS = frozenset({"director", "author", "artist", "creator", "actors", "actor"})
_TOKEN = re.compile(r"[\ue000-\uf8ff]|[-–—−]?[.,]?\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\s]")
_SIGNS = "-–—−"
_SIGNED = re.compile(rf"\S.*[{_SIGNS}]\s*$|^[{_SIGNS}]$", re.DOTALL)  # "- 3 of 4" is a line of a list
_PUNCTUATION = set(".,;:!?…()-–—•*&")
_CLASS_LETTERS = {  # of `Clause.order`
    "numbers": "n",
    "choose": "c",
    "pronoun": "p",
    "of": "o",
    "by": "b",
    "you": "y",
    "whoever": "w",
    "people": "e",
    "wrote": "t",
    "tagged": "t",
    "aim": "f",
    "made": "m",
    "same": "s",
    "things": "h",
    "be": "B",
    "modal": "M",
    "which": "r",
    "singular": "g",
    "have": "H",
    "joins": "&",
    "also": "L",
    "article": "a",
    "place": "P",
    "beside": "x",
    "part": "C",
    "topic": "T",
    "like": "A",
    "who": "W",
    "similar": "S",
    "negation": "N",
}
_ROLE_LETTERS: dict[Role, str] = {"item": "i", "value": "v", "quote": "q", "passage": "d", "column": "k"}
_CONTENT = "inpkvyweqd"  # letters of what a claim can be about


class Unsupported(Exception):  # noqa: N818  # no error of a user: it ends one reading of a clause
    """What the text says is in no record, or cannot be understood; the message says what."""


@dataclass(frozen=True)
class Clause:
    """One reading of a clause: which word classes, which mentions and numbers, in order.

    `order` has a letter per word: those of `_CLASS_LETTERS` and `_ROLE_LETTERS`, `.` punctuation but
    for `?`, `-` all else.
    `makers` are the values that are said to have made it.
    """

    kinds: frozenset[str]
    items: tuple[Mention, ...]
    values: tuple[Mention, ...]
    quotes: tuple[Mention, ...]
    passages: int
    numbers: tuple[float, ...]
    columns: frozenset[str]
    order: str
    in_order: bool  # counts stand before the items that they count, a denial before what it denies
    makers: frozenset[int] = frozenset()  # which of `values`
    unclear: tuple[int, ...] = ()  # items of the history that `it` may mean, too: they were named last
    ours: bool = False  # a sentence of the language's own tones

    @property
    def relations(self) -> frozenset[str]:
        """What people, the person or the texts have to do with items here."""
        return self.kinds & {"people", "choose", "similar", "wrote", "tagged"}

    @property
    def counts_choices(self) -> bool:
        """`3 of the 5 that you chose are V`: numbers, then the choice, then one value."""
        return re.fullmatch("n+cv", self.only("ncv")) is not None

    @property
    def num_choices(self) -> int:
        """How often it says that somebody chose."""
        return self.order.count("c")

    def only(self, letters: str) -> str:
        """The order of some kinds of words alone."""
        return "".join(letter for letter in self.order if letter in letters)

    def pairs(self, value: int) -> frozenset[tuple[str, str]]:
        """The (column, value) that one of `values` may be: of a column that is named, or of who made it.

        Without either `is` makes nobody a film: "it is Ridley Scott" is not said of its director.
        """
        found = self.values[value].attributes
        if self.columns:
            found = frozenset(pair for pair in found if pair[0] in self.columns)
        if value in self.makers:
            return frozenset(pair for pair in found if pair[0] in MAKERS)
        if not self.columns and "be" in self.kinds:
            return frozenset(pair for pair in found if pair[0] not in _PERSONS)
        return found


class Parser:
    """Reads the clauses of texts about one subject."""

    def __init__(self, language: Language, marker: Marker) -> None:
        self._language, self._marker = language, marker

    def readings(self, text: str, marked: Marked) -> Iterator[Mapping[str, Role]]:
        """What each letter of a mention may be, at most `MAX_READINGS` times."""
        letters = [letter for letter in dict.fromkeys(text) if letter in marked.mentions]
        roles = itertools.product(*(marked.mentions[letter].roles for letter in letters))
        return (dict(zip(letters, chosen, strict=True)) for chosen in itertools.islice(roles, MAX_READINGS))

    def parse(self, text: str, marked: Marked, roles: Mapping[str, Role]) -> Clause:
        """One reading of a clause. Raises Unsupported for a word that no class and no record knows, and where the
        order of the words does not say plainly what is meant."""
        for letter, role in roles.items():
            if role == "words":
                text = text.replace(letter, marked.mentions[letter].text)
        negated = any(self._kind(token) == "negation" for token in _TOKEN.findall(text))
        if negated:
            text = self._marker.mark_catalogue_values(text, marked)
        words = _Words(self._language, negated=negated)
        for found in _TOKEN.finditer(text):
            mention = marked.mentions.get(found[0])
            if mention is not None:
                words.add_mention(mention, roles.get(found[0], mention.roles[0]))
            else:
                words.add_word(found[0], signed=_SIGNED.search(text[: found.start()]) is not None)
        return _with_makers(words.clause())

    def _kind(self, token: str) -> str | None:
        return self._language.kinds.get(_word(token))


class _Words:
    """The words of one clause so far."""

    def __init__(self, language: Language, *, negated: bool) -> None:
        self._language, self._negated = language, negated
        self.kinds: set[str] = set()
        self.order, self.in_order, self.passages = "", True, 0
        self.found: dict[Role, list[Mention]] = {"item": [], "value": [], "quote": []}
        self.numbers: list[float] = []
        self.columns: frozenset[str] | None = None

    def add_mention(self, mention: Mention, role: Role) -> None:
        if role in self.found:
            self.found[role].append(mention)
        if role == "value":
            self.in_order &= not self._negated or "negation" in self.kinds
        if role == "column":
            self.columns = mention.columns if self.columns is None else self.columns & mention.columns
            require(bool(self.columns), "names several columns")
        self.passages += role == "passage"
        self.order += _ROLE_LETTERS[role]

    def add_word(self, token: str, *, signed: bool) -> None:
        kind = self._language.kinds.get(_word(token))
        if token[-1].isdigit():
            refuse(signed, f"{token!r} has a sign")
            self._count(_number(token, self._language.decimal))
            self.order += "n"
        elif kind is not None:
            refuse(kind in ("refused", "breaks"), f"{token!r} says what cannot be looked up")
            self.in_order &= not (kind == "negation" and kind in self.kinds)  # "not without"
            self.kinds |= {kind, "together"} if kind == "same" else {kind}
            self.order += _CLASS_LETTERS.get(kind, "-")
            if kind == "numbers":
                refuse(signed, f"{token!r} has a sign")
                self._count(float(self._language.words.numbers[_word(token)]))
        else:
            require(token in _PUNCTUATION, f"{token!r} is in no record")
            self.order += "?" if token == "?" else "."

    def _count(self, number: float) -> None:
        self.in_order &= not self.found["item"]
        self.numbers.append(number)

    def clause(self) -> Clause:
        # "Regie von „A“" is "director of A", "2 von 3" is "2 of 3".
        order = re.sub("kb(?=[-o]*[ip])", "ko", re.sub("nb(?=[o]*n)", "no", self.order))
        of = len(self.numbers) < 2 or not self._language.words.of or bool(re.search("no+n", order))
        items, values, quotes = (tuple(self.found[role]) for role in ("item", "value", "quote"))
        return Clause(
            frozenset(self.kinds),
            items,
            values,
            quotes,
            self.passages,
            tuple(self.numbers),
            self.columns or frozenset(),
            order,
            self.in_order and of,
        )


def _with_makers(clause: Clause) -> Clause:
    """The clause with its makers. Raises Unsupported where `made`, `by` or a column is put the wrong way round."""
    order = clause.order
    for found in re.finditer("ko", order):
        following = _next(order, found.end(), _CONTENT + "hcf")
        require(following in set("ipn"), "does not say of what it is that")
    refuse(re.search("v[^i]*k[^oi]*i|[ip]B[-o]?k", order), "says it the wrong way round")
    for found in re.finditer("b", order):
        refuse(_next(order, found.end(), _CONTENT) in set("ipyweqd"), "says that something else made it")
    for found in re.finditer("m", order):
        following = _next(order, found.end(), _CONTENT + "bfo")
        before, behind = order[: found.start()], order[found.end() :]
        made_it = "v" in before and "v" not in behind and not set(before) & set("ip") and following in ("i", "p", "")
        was_made = "v" not in before and following in ("b", "n")
        require(made_it or was_made, "does not say who made what")
        refuse("modal" in clause.kinds or re.search("BP", order), "speaks of what is to come")
    places = [place for place, letter in enumerate(order) if letter == "v"]
    if "m" in order:
        return replace(clause, makers=frozenset(range(len(places))))
    if "b" not in order:
        return clause
    by = order.index("b")
    # "A thriller from V": what stands right before `from` is what the item is; "V is who it is from" is not.
    free = re.search("[ip].*vh*b", order[: by + 1]) is not None and _next(order, by + 1, _CONTENT) != ""
    return replace(clause, makers=frozenset(n for n, place in enumerate(places) if place > by or not free))


def _next(order: str, place: int, letters: str) -> str:
    """The next of some letters, "" where there is none."""
    return next((letter for letter in order[place:] if letter in letters), "")


def refuse_turned_round(clause: Clause, doing: str, *, who: str, chosen_last: bool) -> None:
    """Raise Unsupported unless those who did something stand before the verb, and what it was done to where it belongs.

    `doing` is the letter of the verb and `who` that of its subject. "“A” chose you" and "you were chosen" say
    something else than "you chose A", in the same words.
    """
    order = clause.only(f"{who}{doing}i")
    ways = [f"{who}+({doing}i*)+"] + ([] if chosen_last else [f"{who}+({doing}i*|i+{doing})+"])
    require(any(re.fullmatch(way, order) for way in ways), "does not say plainly who did what")
    refuse(re.search(f"B[^{who}{doing}]*{doing}", clause.order), "says what was done to whom")
    refuse("singular" in clause.kinds, "does not say plainly who did what")


def _word(token: str) -> str:
    return token.casefold().replace("’", "'")


def _number(token: str, decimal: str) -> float:
    """A number as the language writes it. Raises Unsupported for all else with digits ("25.06.1982", "²", "2,0")."""
    thousands = "," if decimal == "." else "."
    sign, digits = (-1, token[1:]) if token[0] in _SIGNS else (1, token)
    pattern = rf"(\d+|\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+)({re.escape(decimal)}\d+)?"
    require(re.fullmatch(pattern, digits) is not None, f"{token!r} is in no record")
    return sign * float(digits.replace(thousands, "").replace(decimal, "."))


def require(condition: bool, problem: str) -> None:
    """Raise Unsupported unless the condition holds."""
    if not condition:
        raise Unsupported(problem)


def refuse(condition: object, problem: str) -> None:
    """Raise Unsupported where the condition holds."""
    if condition:
        raise Unsupported(problem)
