"""What a turn needs of the engine while it is made: items ranked, texts written. So many turns can be made together.

A turn is a generator: it yields a `Need`, is sent what was needed, and returns when it is done. `Dialogue.alone` drives
one; the server drives all that wait, and gives the engine their needs of one kind at once.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from genrec.recommender import RankRequest

ResultT = TypeVar("ResultT")
ProposalsName = Literal["auto", "off", "on"]
"""Whether the model proposes what messages say and words for lists; `auto`: where it was taught to."""


@dataclass(frozen=True, eq=False)
class Rank:
    """Items for a request, at most `k`: a list of `RankedItem` is sent back."""

    request: RankRequest
    k: int


@dataclass(frozen=True)
class Write:
    """A greedy text after a prompt (token ids): a `Generation` is sent back."""

    prompt: tuple[int, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Pause:
    """Nothing: who drives the steps may leave them here. None is sent back."""


Need: TypeAlias = Rank | Write | Pause
Steps: TypeAlias = Generator[Need, Any, ResultT]
