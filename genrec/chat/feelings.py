"""What a clause says about the items in it: liked, disliked, seen or not, or "something like it".

The clause is read as a line of words in which every item stands as `_`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from genrec.chat.pieces import Feeling

_GOOD = "like|liked|love|loved|enjoy|enjoyed"
_NEGATED = (
    r"(not|dont|didnt|doesnt|never|wasnt|isnt|werent|arent|hardly|rarely|seldom)"
    r"( really| much| even| so| that| all that| ever| been| usually| normally| generally| particularly| especially)*"
)
_DISLIKED = re.compile(
    rf"\b(hate[ds]?|disliked?s?|detest(ed)?|loathed?s?|{_NEGATED} ({_GOOD}|care for|good|great|into|for me"
    rf"|my thing|my cup of tea|funny)"
    rf"|{_NEGATED} (interested|a (big |huge |great )?fan)|no fan|cant stand|cannot stand"
    r"|boring|bored|bad|terrible|awful|horrible|worst"
    r"|overrated|disappoint(ing|ed)|sick of|tired of|dont want|do not want|not that|not this"
    r"|meh|dull|fell asleep|waste of"
    r"|(was|is|were|are|felt) ((way|far|much|just|a bit) )*too (?!good|great|funny)\w+)\b"
)
# A refusal that is refused: "not bad", "never boring", "I don't hate"; "can't get enough of".
_NOT = (
    r"(?:not|never|isnt|wasnt|arent|werent|dont|didnt|doesnt|cant|cannot)"
    r"(?: (?:at all|really|even|ever|so|too|that|all that|half))*"
)
_NOT_BAD = rf"{_NOT} (?:bad|boring|bored|terrible|awful|horrible|overrated|disappointing|disappointed)"
_NO_HATE = rf"{_NOT} (?:hated?|disliked?|detest(?:ed)?|loathed?|scared of|afraid of)"
_FOND = rf"{_NOT} get (?:enough|tired|bored|sick)"
_LITOTES = re.compile(rf"\b(?:{_NOT_BAD}|{_NO_HATE}|{_FOND})\b")
# "would I like it?" is no opinion, and "why not a comedy?" no refusal.
_WONDERED = re.compile(
    r"\b(would|will|might|could|should|do you think) (i|we) ((really|even|also) )?(like|love|enjoy|hate)\b"
)
_WHY_NOT = re.compile(r"\bwhy not\b")
_CLEARED = re.compile(r"(?<!\bcant )(?<!\bdont )(?<!\bnot )(?<!\bnever )\b(forget|never mind|nevermind)\b")
_LIKED = re.compile(
    r"(\b(liked|loved?|loves|enjoy(ed)?|adored?|favou?rites?|great|amazing|fantastic|excellent|brilliant|wonderful"
    r"|masterpiece|perfect|awesome|fan of|big fan|was good|is good|were good|are good|thumbs up)\b"
    r"|\b(i|we|really|also|do|did|always|actually|both|still|quite|that|too) like\b|\b_ i like\b)"
)
_SEEN = re.compile(r"\b(seen|saw|watched|knew|i know|already know|finished|own)\b")
_UNSEEN = re.compile(
    r"\b(?:(?:havent|hasnt|hadnt|not|never|didnt|dont|doesnt)(?: (?:yet|actually|even|ever|really))*"
    r" (?:seen|see|saw|watch|watched|finished|finish|know|knew|heard of|hear of|own)|yet to (?:see|watch))\b"
)
_AGAIN = re.compile(r"\b(?:in|for) (?:years|ages|decades|a (?:long )?(?:while|time))\b|\b(?:again|since)\b")
# "I loved _ and hated _": each verb has its own items.
_VERBS = (
    r"(?:i |also |really |have |ive |havent |not |never |didnt )*"
    r"(?:hated?|loved?|likes?|liked|disliked?|enjoy(?:ed)?|saw|seen|watched|cant stand)"
)
_NEXT_VERB = re.compile(rf"(?<=_) and (?={_VERBS}\b)|\band (?=i {_VERBS}\b)")
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
    r"|less|stop|too|neither|hold the|skip|no more|isnt|arent|dont feel like|enough|(shouldnt|mustnt|cant|cannot) be"
    r"|(dont|do not) (want|show|give|recommend|suggest|need)|spare (me|us)|leave out"
    r"|(cant|cannot|dont|do not|never|hardly ever|rarely|seldom) ((usually|normally|really|ever) )?"
    r"(watch|stomach|handle)"
    r"|(stay|keep) away from|done with|no patience for|(scared|afraid|terrified) of)\b(?! only)"
)
# "nothing with vampires", "nothing too scary"; not "nothing but comedies".
_NOTHING = re.compile(
    r"\bnothing( (too|very|so|with|about|featuring|involving|for|in|from|by|of|made|thats?|is|has|a|an|the|any|like"
    r"|f_|_|and|or))*$"
)
# "not older", "nothing much newer", "I don't want anything that is older"; words further away refuse something else.
_NOT_MORE = re.compile(
    r"\b(?:no|not|nor|never|nothing|none|isnt|arent|wasnt|werent|without|avoid|anything but|everything but"
    r"|(?:shouldnt|mustnt|cant|cannot) be|(?:dont|do not) (?:want|need|like|show|give|recommend|suggest))"
    r"(?: (?:me|us|any|anything|something|films?|movies?|ones?|f_|thats?|is|are|be|being|get|to|much|too|far|a|bit|lot"
    r"|significantly))*$"
)
# Behind this, what was refused before is over: "no horror and something funny".
_NEW_WISH = re.compile(r"\b(?:and|so|then) (?=(?:something|i|we|want|need|give|show|only|rather)\b)")
# What is turned down before a range may be something else: "not a f_ from the 90s", "something not too long from …".
_PIECE_BEFORE = re.compile(r"(?<!\S)f?_(?: (?:films?|movies?|ones?|made))*$")
_QUALITY = re.compile(
    r"\b(?:(?:(?:not|nothing|isnt|never) )?(?:too|so|very|overly|less)"
    r"|(?:something|anything|films?|movies?|is|thats) not)"
    r" (?!(?:from|made|in|of|an?|any|films?|movies?|ones?)$)\S+(?: (?:or|and) \S+)*$"
    r"|\bwithout (?:any |much |too much |an? )?\S+$"
)
_FINE = re.compile(
    r"\b(fine|ok|okay|alright|all right|welcome|allowed|acceptable|after all|again|good now|not that bad)\b"
)
_FORGET = re.compile(
    r"\b(forget|drop|remove|lift|ignore|never mind|nevermind|clear|cancel|scrap|doesnt matter|dont care"
    r"|(doesnt|does not|dont|do not) (have|need) to be|neednt be)\b"
)
# Not a place to start from: "nothing like _", "unlike _"; and the loser of "I liked _ more than _".
_UNLIKE = re.compile(
    r"\b(?:unlike|(?:nothing|(?:dont|do not) (?:want|show|give|recommend|suggest|need) (?:me )?"
    r"(?:anything|something|films?|movies?|more)) (?:(?:else|too|at all|remotely) )?(?:like|similar to|close to))"
    r"(?: (?:_|and|or|the))*$"
)
_LOSES = re.compile(r"(?<!something )(?<!anything )\b(?:better|more|rather) than(?: (?:_|and|or|the))*$")
_LOSES_TO = re.compile(r"\b(?:prefer(?:red)? _ (?:to|over)|rather \w+ _ than)(?: the)?$")
_LOSES_BEHIND = re.compile(r"(?:(?:is|was|are|were|much|far|even|a lot) )*(?:worse|less \w+|less) than _")
# A clause that is only this says it of what the next ones name: "Hated: _, _".
_HEADING = re.compile(
    r"(?:(?:films?|movies?|ones|titles|things|what|all|my|i|we|ive|have|really|also|already|and) )*"
    r"(?:(?P<liked>likes?|liked|loves?|loved|enjoyed|favou?rites?)|(?P<disliked>hates?|hated|dislikes?|disliked)"
    r"|(?P<seen>seen|watched))(?: (?:films?|movies?|ones|both|all|so far))*"
)


def feeling_of(before: str, behind: str, *, previous: Feeling = "named") -> Feeling:
    """What is said about the item between two halves of a clause; a bare list goes on with `previous`."""
    before, behind = _WHY_NOT.sub("", _NEXT_VERB.split(before)[-1]).strip(), _OWN_ITEM.split(behind)[0]
    clause = f"{before} _ {behind}".strip()
    if _WONDERED.search(before):
        return "named"
    if _SEED_BEHIND.search(behind):
        return "seed"
    if _SEED.search(before) and not _VERB.search(before):
        return "seed"
    if _CLEARED.search(before):
        return "cleared"
    if _REFUSED.search(before):
        return "disliked"
    if _LITOTES.search(clause):
        return "liked"
    if _DISLIKED.search(clause):
        return "disliked"
    if _LIKED.search(clause) or _VERB.search(before):
        return "liked"
    if _UNSEEN.search(clause) and not _AGAIN.search(behind):  # "not seen in years" was seen
        return "unseen"
    if _SEEN.search(clause):
        return "seen"
    return previous if _FILLING.match(clause) else "named"


def turned_down(before: str) -> bool:
    """Whether the words right before an item turn it down, whatever else is said of it: "not the first one"."""
    return bool(_REFUSED.search(_WHY_NOT.sub("", before).strip()))


def set_apart(before: str, behind: str) -> str:
    """Whether an item is only what something is not to be like ("unlike"), or what another one beats ("beaten")."""
    if _UNLIKE.search(before):
        return "unlike"
    than = _LOSES.search(before)
    loses = than is not None and "_" in before[: than.start()].split()
    return "beaten" if loses or _LOSES_TO.search(before) or _LOSES_BEHIND.match(behind) else ""


def heading(clause: str) -> Feeling | None:
    """The feeling that a clause carries to the next ones, where it is nothing but a word for one."""
    match = _HEADING.fullmatch(clause)
    return match.lastgroup if match else None  # type: ignore[return-value]


def unwanted(before: str) -> bool:
    """Whether the words before a value turn it down: "no", "not a", "I hate", "instead of"."""
    before = _LITOTES.sub(" ", _WHY_NOT.sub(" ", _NEW_WISH.split(before)[-1]))
    return bool(_NO_VALUE.search(before) or _NOTHING.search(before.strip()) or _DISLIKED.search(before + " "))


def refused_comparison(before: str) -> bool:
    """Whether the words right before a comparison turn it round: "not older", "nothing newer"."""
    return bool(_NOT_MORE.search(_WHY_NOT.sub(" ", before).strip()))


def before_range(before: str) -> str:
    """The words before a range without those that can only turn down something else."""
    return "" if _PIECE_BEFORE.search(before) else _QUALITY.sub("", before).strip()


def unwanted_behind(behind: str) -> bool:
    """Whether the words behind a value turn it down: "comedies are boring", "80s films are boring"."""
    judged = re.match(r"^(_|f_|and|or| )*(is|are|was|were|bores?)?( so| too| just| really)*(?= |$)", behind)
    judged = judged or re.match(r"^(isnt|arent|wasnt|werent)\b", behind)
    judged = judged or re.match(r"^(films?|movies?|ones?) (is|are|was|were|isnt|arent|wasnt|werent)\b", behind)
    return bool(judged) and bool(_DISLIKED.search(_LITOTES.sub(" ", behind)))


def permitted(before: str, behind: str) -> bool:
    """Whether a clause takes a refusal back: "comedies are fine after all", "I do like horror", "I don't hate it"."""
    return bool(
        _FINE.search(behind)
        or re.search(_NOT_BAD, behind)
        or re.search(rf"\b(do like|actually like|dont mind|{_NO_HATE})\b", before)
    )


def forgotten(before: str) -> bool:
    """Whether a clause drops a wish: "forget the comedy"."""
    return bool(_FORGET.search(before))


def goes_on(clause: str) -> bool:
    """Whether a clause only continues a list."""
    return bool(_FILLING.match(clause))


def any_of(words: Sequence[str], line: str) -> bool:
    """Whether one of the phrases stands in a line as whole words."""
    return any(re.search(rf"(?<!\S){phrase}(?!\S)", line) for phrase in words)
