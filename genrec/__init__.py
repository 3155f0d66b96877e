"""genrec: recommend, explain and converse with one language model that knows a catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.rank_request import RankRequest
    from genrec.recommender import Recommendation, Recommender

__version__ = "0.1.0"
__all__ = ["RankRequest", "Recommendation", "Recommender", "__version__"]


def __getattr__(name: str) -> Any:
    # Lazy: `import genrec` must not import torch (DESIGN: layout).
    if name in {"RankRequest", "Recommender", "Recommendation"}:
        from genrec import recommender

        return getattr(recommender, name)
    raise AttributeError(f"module 'genrec' has no attribute {name!r}")
