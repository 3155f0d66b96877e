"""Plain intents in a message: asking why, for more, for a surprise, to start over, for a fact, saying hello."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.feelings import goes_on, refused_comparison
from genrec.chat.numbers import MEASURE
from genrec.chat.pieces import Comparison, Place

_INTENTS = {
    "why": r"^(and |but |so )?why\b(?! not (a|an|some|something)\b)"
    r"|\bwhy (this|that|it|did|the|do|_|them|these)\b|\bhow come\b|\bexplain\b"
    r"|\bwhat makes\b|\bthe reason\b",
    "more": r"\b(more(?! (like|recent|about|than))|another|other ones?|others|something else|anything else"
    r"|what else|next|different ones?"
    r"|not (these|those|them)|none of|keep going|continue)\b",
    "surprise": r"\bsurpris(e|ing)\b|\bsomething (completely |totally |very )?(different|unexpected|random"
    r"|unusual)\b|\bat random\b|\bwild ?card\b",
    "reset": r"\b(start (over|again|afresh)|reset|forget (everything|it all|all of it|what i said)|from scratch"
    r"|begin again|new conversation"
    r"|clear everything)\b",
    "request": r"\b(recommend\w*|suggest\w*|show me|find( me)?|give me|looking for|i want|we want|id like"
    r"|would like|what should|what can (i|we)"
    r"|what to|something|anything|any|watch|in the mood|need|what about|how about|got any|more|do you have|please)\b",
    "dunno": r"\b((i )?(dont|do not) (know|care|mind)|no idea|not sure|whatever|anything( is fine| goes"
    r"| at all)?$|you (choose|decide|pick)"
    r"|up to you|just pick)\b",
    "facts": r"^(and )?(when|who|where|which year|which genres?|what (year|genres?|kind|sort|is|was|are|about"
    r"|does|do the)|whats|tell me|describe"
    r"|how (long|old|much|many|\w+ (is|was|are|were|did|does|would|will))"
    r"|(is|isnt|was|wasnt) (it|_)|(are|were) (they|_)"
    r"|(would|will|might) (i|we) (like|love|enjoy) (it|_))\b|\btell me (more )?about\b|\bwhat is _"
    r"|\bmore about\b",
    "profile": r"\bwhat (do|did) (you|i) (know|remember|like|tell|say|said)\b|\bwhat (have you|you) (learn"
    r"|remember|got)|\bmy (taste|profile|filters|likes)\b"
    r"|\bwhat are the filters\b",
    "dismiss": r"^((oh|no|ok|okay|just|nah|well|sorry|actually|hm+) )*"
    r"(never ?mind|(forget|skip|drop) (it|_|that|about it)|neither|none|no|nope|(it )?doesnt matter|nothing|nobody"
    r"|not important)( one)?( of (them|these|those|the (two|three)))?( please| thanks| thank you| then)?$",
    "help": r"\bwhat can you do\b|^help\b|\bhow (does|do) (this|you) work\b|\bwho are you\b|\bare you (a"
    r"|an) \w+\b|\bwhat are you\b",
    "greeting": r"^(hi|hello|hey|hiya|good (morning|evening|day|afternoon)|greetings|howdy)\b",
    "thanks": r"\b(thanks?|thank you|cheers)\b",
    "bye": r"\b(bye|goodbye|see you|good night|thats all)\b",
}
_COMPILED = {name: re.compile(pattern) for name, pattern in _INTENTS.items()}
_COMPARISON = re.compile(
    r"(?<!\S)(?:(?P<older>older|earlier|less recent|not (?:so|as) (?:new|recent))"
    r"|(?P<newer>newer|more recent|later|more modern|not (?:so|as) old|less old)"
    r"|(?P<cheaper>cheaper|less expensive|not (?:so|as) expensive)|(?P<dearer>more expensive|pricier))(?!\S)"
)
_POINTED = re.compile(r"(?<!\S)the$")  # "the older one" is a reference
_THAN = re.compile(r"(?: (?:films?|movies?|ones?|f_))* (?:than|as)(?P<items>(?: (?:_|and|or|nor|the|both|either))+)")
_THAN_MEASURE = re.compile(rf" than {MEASURE}(?!\S)")  # of an item's age nothing is known
_KNOWN = {
    "older",
    "newer",
    "earlier",
    "later",
    "cheaper",
    "other",
    "rather",
    "another",
    "recent",
    "expensive",
    "modern",
}
_UNJUDGED = re.compile(
    r"\b(?:something|anything|bit|much|but|little|more|less|one)? ?(\w{3,}(?:er|ier)) than\b|\b(?:but|bit"
    r"|something|much|little|slightly) (\w{2,}er)\b|\b(?:more|less) (\w+(?:ing|ed|ent|al|ful|ive|ous|ry|ic))\b"
    r"|\b(?:(?:make|keep|want|prefer|need) it|it (?:to )?be"
    r"|(?:should|could|must|can|may|might|has to|needs to) be) (\w{3,}er)\b"
)


def find_intents(line: str) -> frozenset[str]:
    """Intents of a message, given as words in which items stand as `_` and wishes as `f_`."""
    return frozenset(name for name, pattern in _COMPILED.items() if pattern.search(line))


def find_comparisons(marks: Sequence[str], clauses: Sequence[int]) -> Iterator[Comparison]:
    """Comparisons that a message asks for, given as marks of its tokens (`_` an item, `f_` a wish), and clauses."""
    kept = [number for number, mark in enumerate(marks) if mark]
    line = " ".join(marks[number] for number in kept)

    def clause(number: int) -> str:
        return " ".join(marks[other] for other in kept if clauses[other] == clauses[number])

    for match in _COMPARISON.finditer(line):
        first = line.count(" ", 0, match.start())
        here = clauses[kept[first]]
        before = " ".join(marks[number] for number in kept[:first] if clauses[number] == here)
        behind = line[match.end() :]
        if _POINTED.search(before) and re.match(r" (?:one|film|movie)(?!\S)", behind):
            continue
        if _THAN_MEASURE.match(behind):
            continue
        than: list[Place] = []
        if items := _THAN.match(behind):
            at = line.count(" ", 0, match.end() + items.start("items"))
            for offset, word in enumerate(items["items"].split(), start=at + 1):
                if clauses[kept[offset]] != here and not goes_on(clause(kept[offset])):
                    break
                than += [Place(kept[offset], kept[offset] + 1)] if word == "_" else []
        yield Comparison(str(match.lastgroup), refused_comparison(before), tuple(than))


def find_relaxed(line: str, index: CatalogueIndex) -> tuple[str, ...]:
    """Attributes of which any value will do: "any year", "forget the genre", "all genres"."""
    found = []
    for name in (*index.numbers, *index.columns):
        words = re.escape(name.removesuffix("s").replace("_", " ")) + "s?"
        if name == "year":
            words = "(years?|decades?|age|period|era|when)"
        pattern = (
            rf"\b(any|all|every|whatever|no matter the|forget (about )?(the )?|drop (the )?|remove (the )?"
            rf"|ignore (the )?|clear (the )?) ?{words}\b"
            rf"|\b{words} (doesnt|dont|does not|do not) matter\b|\b(dont|doesnt) (care|mind) (about )?(the "
            rf"|which |what )?{words}\b"
        )
        if re.search(pattern, line):
            found.append(name)
    everything = re.search(
        r"\b(forget|drop|remove|clear|lift) (all )?(the |my |these )?(filters?|constraints|conditions|wishes)\b"
        r"|\bno filters?\b",
        line,
    )
    return ("*",) if everything else tuple(found)


def find_unjudged(line: str) -> tuple[str, ...]:
    """Comparatives that no attribute answers: "slower", "more violent"."""
    line = re.sub(
        r"\b_ (?:is|was|are|were) (?:(?:much|far|way|even) )?(?:better|worse) than _", "_", line
    )  # an opinion
    found = [next(filter(None, match.groups())) for match in _UNJUDGED.finditer(line)]
    found = [word for word in found if word not in _KNOWN and word.isalpha()]
    for match in _COMPARISON.finditer(line):
        if measure := _THAN_MEASURE.match(line[match.end() :]):
            found.append(match.group() + measure.group())
    return tuple(dict.fromkeys(found))
