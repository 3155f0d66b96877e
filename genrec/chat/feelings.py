"""What a clause says about the items in it: liked, disliked, seen, or "something like it".

The clause is read as a line of words in which every item stands as `_`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from genrec.chat.pieces import Feeling

_GOOD = "like|liked|love|loved|enjoy|enjoyed"
_NEGATED = r"(not|dont|didnt|doesnt|never|wasnt|isnt|werent)( really| much| even| so| that| all that)*"
_DISLIKED = re.compile(
    rf"\b(hate[ds]?|disliked?s?|detest(ed)?|loathed?s?|{_NEGATED} ({_GOOD}|care for|good|great|into|for me"
    rf"|my thing|funny)"
    rf"|{_NEGATED} (interested|a fan)|no fan|cant stand|cannot stand|boring|bored|bad|terrible|awful|horrible|worst"
    r"|overrated|disappoint(ing|ed)|sick of|tired of|dont want|do not want|not that|not this)\b"
)
_LIKED = re.compile(
    r"(\b(liked|loved?|loves|enjoy(ed)?|adored?|favou?rites?|great|amazing|fantastic|excellent|brilliant|wonderful"
    r"|masterpiece|perfect|awesome|fan of|big fan|was good|is good|were good|are good|thumbs up)\b"
    r"|\b(i|we|really|also|do|did|always|actually|both|still|quite|that|too) like\b|\b_ i like\b)"
)
_SEEN = re.compile(r"\b(seen|saw|watched|knew|i know|already know|finished|own)\b")
_UNSEEN = re.compile(
    r"\b(havent|hasnt|not|never|didnt|did not)( yet| actually| even)? (seen|see|saw|watch"
    r"|watched)\b"
)
# "I loved _ and hated _": each verb has its own items.
_VERBS = r"(?:i |also |really )*(?:hated?|loved?|likes?|liked|disliked?|enjoy(?:ed)?|saw|seen|watched|cant stand)"
_NEXT_VERB = re.compile(rf"(?<=_) and (?={_VERBS}\b)")
_OWN_ITEM = re.compile(rf"\band (?={_VERBS}\b[a-z ]*_)")
_REFUSED = re.compile(
    r"\b(no|not|nor|without|except|anything but|instead of|rather than|skip|remove|drop)( (_|and|or|nor|the"
    r"|more|any))*$"
)
_VERB = re.compile(
    r"\b(i|we|really|also|do|did|dont|didnt|not|always|actually|still|they|never|both|quite) like( (_|and|or"
    r"|the|both))*$"
)
_SEED = re.compile(
    r"(\blike|\bsimilar to|\bclose to|\bakin to|\bin the (vein|style|spirit) of|\breminds me of"
    r"|\breminiscent of|\balong the lines of"
    r"|\bthan|\bsuch as|\bbased on|\bafter)( (_|and|or|the|both|watching|seeing))*$"
)
_SEED_BEHIND = re.compile(r"^(or|and|_| )*(or |and )?(something )?similar\b")
_FILLING = re.compile(
    r"^( |_|and|or|nor|the|also|too|both|as well|even|especially|well|so|much|a|f_|films?|movies?|ones)*$"
)
_NO_VALUE = re.compile(
    r"\b(no|not|non|nor|without|except|excluding|anything but|everything but|other than|instead of|rather than|avoid"
    r"|less|stop|too|neither|hold the|skip|no more|isnt|arent|dont want|dont feel like|enough|spare (me|us)|leave out"
    r"|(stay|keep) away from|done with|no patience for)\b(?! only)"
)
# "nothing with vampires", "nothing too scary"; not "nothing but comedies".
_NOTHING = re.compile(
    r"\bnothing( (too|very|so|with|about|featuring|involving|for|in|thats?|is|has|a|an|the|any|like|f_|_|and|or))*$"
)
_FINE = re.compile(
    r"\b(fine|ok|okay|alright|all right|welcome|allowed|acceptable|after all|again|good now|not that bad)\b"
)
_FORGET = re.compile(
    r"\b(forget|drop|remove|lift|ignore|never mind|nevermind|clear|cancel|scrap|doesnt matter|dont care)\b"
)


def feeling_of(before: str, behind: str, *, previous: Feeling = "named") -> Feeling:
    """What is said about the item between two halves of a clause; a bare list goes on with `previous`."""
    before, behind = _NEXT_VERB.split(before)[-1], _OWN_ITEM.split(behind)[0]
    clause = f"{before} _ {behind}".strip()
    if _SEED_BEHIND.search(behind):
        return "seed"
    if _SEED.search(before) and not _VERB.search(before):
        return "seed"
    if _DISLIKED.search(clause) or _REFUSED.search(before):
        return "disliked"
    if _LIKED.search(clause) or _VERB.search(before):
        return "liked"
    if _UNSEEN.search(clause):
        return "named"
    if _SEEN.search(clause):
        return "seen"
    return previous if _FILLING.match(clause) else "named"


def unwanted(before: str) -> bool:
    """Whether the words before a value turn it down: "no", "not a", "I hate", "instead of"."""
    return bool(_NO_VALUE.search(before) or _NOTHING.search(before.strip()) or _DISLIKED.search(before + " "))


def unwanted_behind(behind: str) -> bool:
    """Whether the words behind a value turn it down: "comedies are boring"."""
    return bool(
        re.match(r"^(_|f_|and|or| )*(is|are|was|were|bores?)?( so| too| just| really)*(?= |$)", behind)
    ) and bool(_DISLIKED.search(behind))


def permitted(before: str, behind: str) -> bool:
    """Whether a clause takes a refusal back: "comedies are fine after all", "I do like horror"."""
    return bool(_FINE.search(behind) or re.search(r"\b(do like|actually like|dont mind)\b", before))


def forgotten(before: str) -> bool:
    """Whether a clause drops a wish: "forget the comedy"."""
    return bool(_FORGET.search(before))


def goes_on(clause: str) -> bool:
    """Whether a clause only continues a list."""
    return bool(_FILLING.match(clause))


def any_of(words: Sequence[str], line: str) -> bool:
    """Whether one of the phrases stands in a line as whole words."""
    return any(re.search(rf"(?<!\S){phrase}(?!\S)", line) for phrase in words)
