"""Whole clauses whose meaning is plain, as patterns over `Clause.order`: a letter per word (`clauses`).

Words that are all known can be put together to say much that no record says: "nothing is V", "3 of 4 people chose A and
chose T", "had you chosen A". So a claim of a kind that has few plain ways to be said has to be said in one of them. `-`
stands wherever a small word may: in files of before these are all `neutral`.
"""

from __future__ import annotations

import re

from genrec.explanation.clauses import Clause, refuse, require

_LONGEST = 100  # words and mentions of a clause; small words by the thousand would take hours to match
_THE = "[ao-]*h?"  # before a title: "the item “A”"
_ITEMS = rf"{_THE}i(?:[.&-]+{_THE}i)*"
_VALUES = r"v(?:[.&-]+v)*"
_YOU = r"[.&L-]*y[HL-]*"
_CHOICE = rf"(?:c[L.-]*{_ITEMS}|\.*{_ITEMS}[L-]*c[H-]*)"  # "chose A and B", "A und B gewählt haben"
_FOR_THEM = rf"fw\.*[Wr-]?[H-]*{_CHOICE}"
_SOME = r"\.*(?:n(?:o+n)?o*)?e"  # "3 of 4 people"; with "the" they would be all of them
_AND = r"[.&-]+[L-]*"

_CHOSEN = re.compile(rf"{_YOU}(?:{_CHOICE}|c[L-]*nh?|nh?c[H-]*)[L.-]*|[.&L-]*(?:ph?[BL-]*)?{_FOR_THEM}\.*")
_CHOSEN_FOR = re.compile(rf"[.&L-]*(?:[ip]h?[BHL-]*)?[aokb-]*{_VALUES}h?\.*{_FOR_THEM}\.*")
_CHOSEN_COUNTS = re.compile(r"\.*n(?:o+n)?o*h?\.*[rW-]?y[HL-]*c[H-]*\.*[HBL-]*[aohkb-]*(?:A[ao-]*k)?[aorW.-]*v\.*")
# "3 of 4 people, who chose A, …" are 3 of 4 people: where a comma is due, the verb is last.
_WHO_CHOSE = rf"(?:[Wr-][H-]*c{_THE}i|\.*[Wr-]{_THE}ic[H-]*)"
_BEHAVIOUR = re.compile(rf"{_SOME}{_WHO_CHOSE}\.*[HL-]*(?:c[L-]*{_THE}i|{_THE}ic)[HL.-]*")
_BEHAVIOUR_OF_ALL = re.compile(rf"{_SOME}[H-]*(?:c[L-]*i{_AND}(?:[H-]*c[L-]*)?i|i{_AND}ic)[HL.-]*")
_WROTE = re.compile(rf"{_YOU}(?:t\.*[To-]+i\.*q|[To-]+it\.*q|tq[To-]+i)\.*")
_TAGGED = re.compile(rf"{_YOU}(?:ti[.xA-]*q|i[.xA-]*qt)\.*")
_SIMILAR = re.compile(rf"[.&L]*(?:[P-][C-]+\.*[BL-]*)?(?:p|{_ITEMS})[BL.-]*S[MPCA-]*(?:{_ITEMS}|p)?(?:[P-][C-])?\.*")
_DENIED = re.compile(
    r"[.&L]*(?:[aoW]*k[ob]+)?(?:[aoW]*h)?[ip][hk]?"  # the item, or what is its: "the director of “T”"
    r"[BHgL]*N"
    r"H?[aoWr]*k?(?:m?b)?[aoW]*vh?\.*"  # one value, with nothing beside it: "nothing as V" is V
)
_RECORD_UNCLEAR = {
    r"\?": "asks and does not say",
    r"^[.&LW-]*[BHg][oLWa-]*[ipyk]": "asks and does not say",
    r"M": "leaves open whether it is so",
    r"T": "says what it is about",
    r"(?<!sk)A|A(?!h?[ao-]*i)": "compares what cannot be looked up",
    r"B\.*[oWr]+v": "says that there is no other",
    r"P[ao]*v|(?<!m)P[ao]*n|f[ao]*[vn]": "says something else of it than that it is so",
    r"^[^ip]*[vn][^ip]*[BHg](?![aoLW]*[km])": "says something of a value",
    r"n[aoh-]*k": "counts what the record does not",
    r"[C-]o+a*v|p[C-]+[BHg]": "says it of a part",
    r"[HB][aoLW]*i|(?<![ko])o+i|(?<![C-])P[ao]*i": "does not say what it has to do with it",
}


def require_chosen(clause: Clause, *, which: bool) -> None:
    """`You chose A`, `this is for those who chose A`; with a value behind `which`, or for them, or counted.

    `which`: whether the language has words that open what is said of what was named.
    """
    if not clause.values:
        shapes = [_CHOSEN]
    elif clause.numbers:
        shapes = [_CHOSEN_COUNTS]
    else:
        opening = "r" if which else "[r-]?"
        shapes = [_CHOSEN_FOR, re.compile(rf"{_YOU}{_CHOICE}\.*{opening}[HBLmbaok-]*{_VALUES}h?[BH.-]*")]
    _require_one(clause, *shapes)


def require_behaviour(clause: Clause) -> None:
    """`3 of 4 people who chose A also chose T`; of all people also that they chose both."""
    _require_one(clause, _BEHAVIOUR, *([_BEHAVIOUR_OF_ALL] if len(clause.numbers) < 2 else []))


def require_own(clause: Clause) -> None:
    """`You wrote about A: “…”`, `you tagged A “…”`."""
    _require_one(clause, _TAGGED if "tagged" in clause.kinds else _WROTE)


def require_similar(clause: Clause) -> None:
    """`In content, T is close to A`."""
    _require_one(clause, _SIMILAR)


def require_denied(clause: Clause) -> None:
    """`T is not V`: the item, then a denial, then one value. Of anything else the record is not the whole story."""
    _require_one(clause, _DENIED)


def refuse_unclear_record(clause: Clause) -> None:
    """Raise Unsupported where more is said than that the items have the values, or less."""
    for pattern, problem in _RECORD_UNCLEAR.items():
        refuse(re.search(pattern, clause.order), problem)


def _require_one(clause: Clause, *shapes: re.Pattern[str]) -> None:
    require(len(clause.order) <= _LONGEST, "is too long to be plain")
    require(any(shape.fullmatch(clause.order) for shape in shapes), "does not say it in a way that is plain")
