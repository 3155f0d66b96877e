"""What is known about a user's next item beside the model, as mass under the prefixes of a trie.

Any score over items (transition counts, similarity of texts, a retriever) becomes a distribution over items. The
trie's items are sorted, so the items under a prefix stand side by side and the prefix's mass is a difference of two
prefix sums: evidence joins the model on every level of a search, exactly, and the model's engine never sees it.

    mixture   P(prefix) = (1 − w)·P_model(prefix) + w·P_evidence(prefix)
    product   log P(prefix) = log P_model(prefix) + w·log P_evidence(prefix), not normalised

Both are absolute values of a prefix and not products over levels, so at a leaf the mixture is that of the two
distributions over items, and the product telescopes to the item's own score (a product of experts, Hinton 2002,
decoded level by level). A filter takes the mass of forbidden items away. It changes no score of the others, except in
score mode `renormalised`, where model and evidence are both renormalised over what is allowed.

Shapes: U users, I items of the trie, C candidates (nodes or positions) of all users together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genrec.errors import ConfigError, TrieError
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter

Join = Literal["mixture", "product"]
# Of a user's whole mass. Beyond this the sums of float64 lose an item anyway, and a model may still want it.
_FLOOR = 1e-13


@dataclass(frozen=True, eq=False)
class Evidence:
    """A user's distribution over the items of a trie, and how it joins the model. 8 bytes per item.

    `weight` is w above: within [0, 1] for a mixture, ≥ 0 for a product. At 0 the model is alone.
    """

    trie: ItemTrie
    mass: NDArray[np.float64]  # (I,) by position in the trie, not by item_index; sums to 1 unless drawn or all 0
    weight: float
    join: Join = "product"
    noise: NDArray[np.float64] | None = None  # (I,) of a draw, added to the score that model and evidence make together

    @classmethod
    def from_mass(cls, trie: ItemTrie, mass: ArrayLike, *, weight: float, join: Join = "product") -> Evidence:
        """Evidence from non-negative mass per row of the catalogue, (R,), of any sum; rows outside the trie have none.

        An item without mass scores −inf in a product. Raises ConfigError for mass that is misshapen, negative or not
        finite, and for a weight outside its range.
        """
        given = np.asarray(mass, dtype=np.float64)
        if given.shape != (trie.num_rows,) or not np.isfinite(given).all() or (given < 0).any():
            raise ConfigError(
                f"evidence of shape {given.shape} was given; expected ({trie.num_rows},) finite numbers of at least 0.",
                "Give one number per row of the catalogue.",
            )
        if not (0 <= weight <= 1 if join == "mixture" else 0 <= weight < np.inf):
            expected = "0 to 1 for a mixture" if join == "mixture" else "a finite number of at least 0"
            raise ConfigError(f"the weight of evidence is {weight}; expected {expected}.")
        by_position = given[trie.items]
        with np.errstate(over="ignore"):
            total = by_position.sum()
        if not np.isfinite(total):  # finite numbers whose sum is beyond float64
            by_position = by_position / by_position.max()
            total = by_position.sum()
        return cls(trie, by_position / total if total > 0 else by_position, float(weight), join)

    @classmethod
    def from_scores(cls, trie: ItemTrie, scores: ArrayLike, *, weight: float, join: Join = "product") -> Evidence:
        """Evidence exp(score) / Σ exp(score) from scores per row of the catalogue, (R,); −inf is no mass at all.

        Finite scores keep at least 1e-13 of all mass, so that the model can still ask for the item.
        Errors are those of `from_mass`.
        """
        given = np.asarray(scores, dtype=np.float64)
        if given.shape != (trie.num_rows,) or np.isnan(given).any() or (given == np.inf).any():
            raise ConfigError(
                f"scores of shape {given.shape} were given; expected ({trie.num_rows},) numbers or −inf.",
                "Give one score per row of the catalogue.",
            )
        best = given[trie.items].max()
        mass = np.exp(np.minimum(given - best, 0)) if np.isfinite(best) else np.zeros(len(given))
        mass = np.where(np.isfinite(given), np.maximum(mass, _FLOOR * mass[trie.items].sum()), 0.0)
        return cls.from_mass(trie, mass, weight=weight, join=join)

    @classmethod
    def drawing(
        cls, trie: ItemTrie, rng: np.random.Generator, *, beside: Evidence | None = None, temperature: float = 1.0
    ) -> Evidence:
        """Evidence under which the k best items are k draws without replacement, from what the search scores.

        Gumbel noise on every item's score (Kool et al. 2019, "Stochastic Beams and Where to Find Them", sec. 3): the
        items come in the order in which they would be drawn one after the other with P(item) ∝ exp(score /
        temperature). Exact for a beam as wide as the catalogue; a narrower one draws from what it keeps. The score is
        that of the model and of `beside`, however they join. Raises ConfigError for `beside` of weight 0 (leave it
        out), and for a temperature that is not above 0.
        """
        if not 0 < temperature < np.inf or (beside is not None and not beside.weight):
            raise ConfigError(
                f"items cannot be drawn at temperature {temperature} beside evidence of weight"
                f" {1.0 if beside is None else beside.weight}.",
                "Give a temperature above 0, and evidence of a weight above 0 or none.",
            )
        gumbel = rng.gumbel(size=trie.num_items)
        one = cls(trie, np.ones(trie.num_items), temperature) if beside is None else beside
        return replace(one, noise=temperature * (gumbel - gumbel.max()))

    def alone(self) -> Evidence:
        """The same distribution, beside which the model has no say."""
        return replace(self, weight=1.0, join="mixture")

    def within(self, allowed: ItemFilter) -> NDArray[np.float64]:
        """The mass of allowed items, 0 for the others: (I,)."""
        return np.where(allowed.admits(np.arange(len(self.mass))), self.mass, 0.0)

    def drawn_terms(self, allowed: ItemFilter | None, *, renormalise: bool) -> NDArray[np.float64]:
        """Logs (I,) whose summed exponentials a draw adds to a node's score: of the noise, in a product of all of it.

        There they count `weight` times. What is forbidden draws no beam towards it.
        """
        assert self.noise is not None, "only what is drawn has noise"
        found = self.noise
        if self.join == "product":
            with np.errstate(divide="ignore"):
                found = found / self.weight + np.log(self.mass)
        if allowed is not None:
            found = np.where(allowed.admits(np.arange(len(found))), found, -np.inf)
        if renormalise and self.join == "product" and np.isfinite(total := np.logaddexp.reduce(found)):
            found = found - total
        return found


@dataclass(frozen=True, eq=False)
class EvidenceTerms:
    """The evidence of all users of one search, with their filters applied: what the beam loop asks.

    8·U·(2·I + 1) bytes beside 8·U·I of the evidence itself: 18 MB together for 64 users and 12,000 items. Where items
    are drawn, 16·U·I more.
    """

    mass: NDArray[np.float64]  # (U, I)
    sums: NDArray[np.float64]  # (U, I + 1): mass of the first positions
    weight: NDArray[np.float64]  # (U,)
    mixed: NDArray[np.bool_]  # (U,) whether the join is a mixture
    # (U, I) of draws, see `Evidence.drawn_terms`; NaN for users for whom nothing is drawn. Beside a small weight noise
    # spans more than float64 can add, and prefix sums would lose what stands behind the largest item.
    drawn: NDArray[np.float64] | None = None

    @classmethod
    def compile(
        cls,
        evidence: Sequence[Evidence | None],
        filters: Sequence[ItemFilter | None],
        *,
        renormalise: bool,
        num_items: int,
    ) -> EvidenceTerms | None:
        """The terms of U users, None where nobody has evidence.

        A user without evidence has weight 0, and so has a product whose evidence knows none of the allowed items:
        a draw beside it is one from the model alone.
        """
        if all(one is None for one in evidence):
            return None
        mass = np.zeros((len(evidence), num_items))
        given = list(evidence)
        for user, (one, allowed) in enumerate(zip(evidence, filters, strict=True)):
            if one is not None:
                mass[user] = one.mass if allowed is None else one.within(allowed)
                if one.join == "product" and not mass[user].any():
                    nothing = np.ones(num_items)
                    given[user] = None if one.noise is None else replace(one, mass=nothing, weight=1.0)
        weight = np.array([0.0 if one is None else one.weight for one in given])
        mixed = np.array([one is not None and one.join == "mixture" for one in given])
        terms = cls._summed(mass, weight, mixed, renormalise)
        if all(one is None or one.noise is None for one in given):
            return terms
        drawn = np.full((len(given), num_items), np.nan)
        for user, (one, allowed) in enumerate(zip(given, filters, strict=True)):
            if one is not None and one.noise is not None:
                drawn[user] = one.drawn_terms(allowed, renormalise=renormalise)
        return replace(terms, drawn=drawn)

    @classmethod
    def of_model(
        cls,
        mass: NDArray[np.float64],
        filters: Sequence[ItemFilter | None],
        *,
        share: NDArray[np.float64],
        renormalise: bool,
    ) -> EvidenceTerms:
        """What a model says of whole items, mass (U, I) by position, to mix with weight `share` (U,) with the rest."""
        for user, allowed in enumerate(filters):
            if allowed is not None:
                mass[user] = np.where(allowed.admits(np.arange(mass.shape[1])), mass[user], 0.0)
        return cls._summed(mass, share, np.ones(len(mass), np.bool_), renormalise)

    @classmethod
    def _summed(
        cls, mass: NDArray[np.float64], weight: NDArray[np.float64], mixed: NDArray[np.bool_], renormalise: bool
    ) -> EvidenceTerms:
        if renormalise:
            total = mass.sum(axis=1, keepdims=True)
            mass = mass / np.where(total > 0, total, 1.0)
            # What knows none of the allowed items takes no share of the one that all of them make.
            weight = np.where(mixed & (total[:, 0] == 0), 0.0, weight)
        sums = np.zeros((len(mass), mass.shape[1] + 1))
        np.cumsum(mass, axis=1, out=sums[:, 1:])
        return cls(mass, sums, weight, mixed)

    def join_nodes(
        self, user: NDArray[np.int64], lo: NDArray[np.int64], hi: NDArray[np.int64], model: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Scores of nodes [lo, hi) of users in ascending order, whose model scores are `model`; all (C,)."""
        joined = self._join(user, self.sums[user, hi] - self.sums[user, lo], model)
        if self.drawn is None:
            return joined
        sums = np.full(len(user), np.nan)
        starts = np.flatnonzero(np.diff(user, prepend=-1))
        for start, end in pairwise([*starts.tolist(), len(user)]):
            terms = self.drawn[user[start]]
            if not np.isnan(terms[0]):
                sums[start:end] = _log_sums(terms, lo[start:end], hi[start:end])
        return self._draw(user, sums, joined, model)

    def join_items(
        self, user: NDArray[np.int64], position: NDArray[np.int64], model: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Scores of single items, (C,); `model` is the score of the item's leaf. From the mass itself, not its sums."""
        joined = self._join(user, self.mass[user, position], model)
        return joined if self.drawn is None else self._draw(user, self.drawn[user, position], joined, model)

    def _draw(
        self,
        user: NDArray[np.int64],
        sums: NDArray[np.float64],
        joined: NDArray[np.float32],
        model: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """`joined` with what `drawn` sums to, which is NaN where nothing is drawn; all (C,)."""
        drawn = np.where(self.mixed[user], joined + sums, model + self.weight[user] * sums)
        return np.where(np.isnan(sums), joined, drawn).astype(np.float32)

    def _join(
        self, user: NDArray[np.int64], mass: NDArray[np.float64], model: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        weight, mixed = self.weight[user], self.mixed[user]
        with np.errstate(divide="ignore", invalid="ignore"):
            log_mass = np.log(np.maximum(mass, 0.0))  # a difference of sums may round below 0
            mixture = np.logaddexp(np.log1p(-weight) + model, np.log(weight) + log_mass)
            product = model + weight * log_mass
        joined = np.where(mixed, mixture, product)
        return np.asarray(np.where(weight > 0, joined, model), dtype=np.float32)  # 0·log 0 is 0 here


def _log_sums(terms: NDArray[np.float64], lo: NDArray[np.int64], hi: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log of the summed exponentials of terms (I,) in each range [lo, hi), none of them empty: (C,)."""
    sizes = hi - lo
    starts = np.cumsum(sizes) - sizes
    return np.logaddexp.reduceat(terms[np.arange(sizes.sum()) + np.repeat(lo - starts, sizes)], starts)


def check_evidence(
    evidence: Sequence[Evidence | None] | None, *, trie: ItemTrie, num_users: int
) -> list[Evidence | None]:
    """One evidence (or None) per user. Raises ConfigError for another number, TrieError for another trie."""
    given: list[Evidence | None] = [None] * num_users if evidence is None else list(evidence)
    if len(given) != num_users:
        raise ConfigError(f"evidence for {len(given)} users was given for {num_users} prompts; expected one each.")
    if any(one is not None and one.trie is not trie for one in given):
        raise TrieError("evidence was made for another trie.", "Make evidence again after a trie is loaded.")
    return given
