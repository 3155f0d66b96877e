"""How good codes are: collisions, use of every level, reconstruction, prefix lift; in numbers and in words.

I items, L levels, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.data.sequences import Sequences
from genrec.tokenizers.codes import colliding_items

# Below this share of the codebook a level's perplexity counts as collapsed.
_COLLAPSED = 0.1
_LITTLE_LEFT = 0.02  # of the variance


@dataclass(frozen=True)
class LevelHealth:
    """One level of the final codes."""

    size: int  # K
    used: int  # codes that at least one item has
    perplexity: float  # exp of the entropy in nats: K when all codes are equally common, 1 when one is
    counts: list[int]  # items per code, (K,)


@dataclass(frozen=True)
class Health:
    """The report of one tokenizer on one catalogue. Shares are of the items; None = not measured."""

    num_items: int
    levels: list[LevelHealth]
    colliding_before: float  # items that share all codes with another, before the collision policy
    colliding_after: float
    moved_items: int  # items whose last code the policy changed
    missing_items: dict[str, int]  # items without a vector, by modality
    # By modality, over the items that have it: error of the first 1 … L codes as a share of the variance, before
    # the policy; and of the codes that the policy left, without an extra level.
    reconstruction: dict[str, list[float]]
    reconstruction_after: dict[str, float] | None
    prefix_lift: list[float] | None
    # The same over steps from a user's last training item to the validation item: codes that were made from what people
    # used one after the other know the others.
    prefix_lift_unseen: list[float] | None = None

    @property
    def num_own_levels(self) -> int:
        """L, without an extra level."""
        return len(next(iter(self.reconstruction.values())))

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def warnings(self) -> list[str]:
        """What is wrong, in words; empty where nothing is."""
        found = [
            f"Level {number} has collapsed: its perplexity is {level.perplexity:.1f} of {level.size} codes. "
            + self._cause(number)
            for number, level in enumerate(self.levels, start=1)
            if level.size > 1 and level.perplexity < _COLLAPSED * level.size and not self._is_extra(number)
        ]
        if self.levels[0].size * 2 > self.num_items:
            found.append(
                f"{self.num_items:,} items on {self.levels[0].size} codes: items hardly share first codes, so "
                "there is little to learn from them. Use a smaller codebook."
            )
        if self.prefix_lift and self.prefix_lift[0] < 1.1:
            found.append(
                f"Consecutive items share their first code only {self.prefix_lift[0]:.1f} times as often as "
                "chance: the codes say little about what people use together."
            )
        return found

    def words(self) -> list[str]:
        """The report as lines for people, warnings last."""
        lines = [
            f"Collisions: {self.colliding_before:.1%} of {self.num_items:,} items shared all codes with another, "
            f"{self.colliding_after:.1%} do now ({self.moved_items:,} moved)."
        ]
        for number, level in enumerate(self.levels, start=1):
            extra = " (extra level)" if self._is_extra(number) else ""
            lines.append(
                f"Level {number}{extra}: {level.used} of {level.size} codes used, perplexity {level.perplexity:.1f}."
            )
        for name, by_length in self.reconstruction.items():
            errors = " → ".join(f"{error:.3f}" for error in by_length)
            after = f"; {self.reconstruction_after[name]:.3f} after the policy" if self.reconstruction_after else ""
            lines.append(f"Error of {name}, as a share of its variance, with 1, 2, … codes: {errors}{after}.")
        if self.prefix_lift:
            lifts = ", ".join(f"{lift:.1f}×" for lift in self.prefix_lift)
            unseen = ", ".join(f"{lift:.1f}×" for lift in self.prefix_lift_unseen or ())
            lines.append(
                f"Consecutive items share a prefix of 1, 2, … codes this often against chance: {lifts}"
                + (f"; where training saw nothing of the step: {unseen}." if unseen else ".")
            )
        for name, missing in self.missing_items.items():
            if missing:
                lines.append(f"{missing:,} items have no {name} vector; it is guessed from their other modalities.")
        return lines + [f"Warning: {warning}" for warning in self.warnings()]

    def _cause(self, number: int) -> str:
        """Why a level can have collapsed, in words, with what to do."""
        if number == 1:
            return (
                "Most vectors are nearly the same, or a few outliers are far from all others: look at the "
                "modalities, and lower the weight of one that is constant for most items."
            )
        left = [errors[number - 2] for errors in self.reconstruction.values()]
        if max(left) < _LITTLE_LEFT:
            return "The levels before left nearly nothing to say: use fewer levels or a smaller codebook."
        if self.num_items < 2 * self.levels[number - 1].size:
            return "There are too few items for so many codes: use a smaller codebook."
        return "What the levels before left over lies in few places: use a smaller codebook, or other vectors."

    def _is_extra(self, number: int) -> bool:
        return number > self.num_own_levels


def level_health(codes: NDArray[np.uint16], sizes: Sequence[int]) -> list[LevelHealth]:
    """Use of every level of codes (I, L) with codebooks of `sizes` (L,)."""
    return [_one_level(codes[:, level], size) for level, size in enumerate(sizes)]


def _one_level(column: NDArray[np.uint16], size: int) -> LevelHealth:
    counts = np.bincount(column, minlength=size)
    shares = counts[counts > 0] / counts.sum()
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return LevelHealth(size, int(np.count_nonzero(counts)), perplexity, counts.tolist())


def collision_share(codes: NDArray[np.uint16]) -> float:
    """Share of the items that share all their codes (I, L) with another."""
    return float(colliding_items(codes).mean())


def relative_error(vectors: NDArray[np.float32], reconstructed: NDArray[np.float32]) -> float:
    """Squared error as a share of the variance of vectors (I, D); zero variance counts as no error."""
    variance = float(np.square(vectors - vectors.mean(axis=0), dtype=np.float64).sum())
    error = float(np.square(vectors - reconstructed, dtype=np.float64).sum())
    return error / variance if variance > 0.0 else 0.0


def prefix_lift(codes: NDArray[np.uint16], sequences: Sequences) -> list[float] | None:
    """How much likelier than chance two consecutive items of a user share their first 1, 2, … codes, (≤ L,).

    Chance: both items drawn independently, each as often as it stands first or second in such a pair. An item
    that follows itself is left out of the pairs, and of the chance; so are prefixes that only one item of the
    pairs has, so unique codes give L - 1 figures or fewer. None where there are no pairs.
    """
    first, second = consecutive_pairs(sequences)
    if not len(first):
        return None
    first_share = np.bincount(first, minlength=len(codes)) / len(first)
    second_share = np.bincount(second, minlength=len(codes)) / len(second)
    same_item = float(first_share @ second_share)
    lifts = []
    for length in range(1, codes.shape[1] + 1):
        _, groups = np.unique(codes[:, :length], axis=0, return_inverse=True)
        groups = groups.reshape(-1)
        observed = float((groups[first] == groups[second]).mean())
        together = np.bincount(groups, first_share) @ np.bincount(groups, second_share)
        chance = (float(together) - same_item) / (1.0 - same_item) if same_item < 1.0 else 0.0
        if chance < 1e-12:
            break
        lifts.append(observed / chance)
    return lifts


def consecutive_pairs(sequences: Sequences) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of different consecutive items of one user: first (P,) and second (P,)."""
    users = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    first, second = sequences.items[:-1], sequences.items[1:]
    kept = (users[:-1] == users[1:]) & (first != second)
    return first[kept], second[kept]
