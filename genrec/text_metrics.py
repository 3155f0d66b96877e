"""Metrics of explanations: what a text shares with its reference beyond what any text of its kind would share.

Scores of whole texts are fooled by their frame: one constant sentence reaches the ROUGE-L of a published system. So
the headline is a *shuffle gap*: the mean score of a metric over rows minus that of the same texts given to other rows.
A text without anything of its own has a gap of zero, whatever its frame scores. R rows, F features, S samples.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.errors import DataError, MissingDependencyError

Floats = NDArray[np.float64]
RowMetric = Callable[[Sequence[str], Sequence[str]], Floats]
"""(texts, references) → one score per row, (R,), in 0 … 1."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SPOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")  # of features, such as "4k"


def words(text: str) -> set[str]:
    """The distinct words of a text, lower case."""
    return set(_WORD.findall(text.casefold()))


def document_shares(references: Sequence[str]) -> dict[str, float]:
    """Word → the share of the references that hold it."""
    counts = Counter(word for reference in references for word in words(reference))
    return {word: count / len(references) for word, count in counts.items()}


@dataclass(frozen=True)
class WordOverlap:
    """Precision or recall of the words that few references hold.

    A word is looked at where its share of the references is in `least` … `most`. A row without such words in its
    text (for precision; in its reference for recall) scores 0: it says nothing that could be right.
    """

    shares: dict[str, float]
    least: float
    most: float
    of_text: bool  # precision: the denominator is the text's words; else recall

    def __call__(self, texts: Sequence[str], references: Sequence[str]) -> Floats:
        """One score per row, (R,)."""
        scores = np.zeros(len(texts))
        for row, (text, reference) in enumerate(zip(texts, references, strict=True)):
            said, meant = self._telling(text), self._telling(reference)
            base = said if self.of_text else meant
            scores[row] = len(said & meant) / len(base) if base else 0.0
        return scores

    def _telling(self, text: str) -> set[str]:
        return {word for word in words(text) if self.least <= self.shares.get(word, 0.0) <= self.most}


def rare_word_precision(references: Sequence[str], *, most: float = 0.01) -> WordOverlap:
    """Of the rare words that a text says (in at most `most` of the references, also in none), those that its reference
    says too."""
    return WordOverlap(document_shares(references), 0.0, most, of_text=True)


def rare_word_recall(references: Sequence[str], *, most: float = 0.01) -> WordOverlap:
    """Of the rare words of a reference, those that its text says."""
    return WordOverlap(document_shares(references), 0.0, most, of_text=False)


def frequent_features(references: Sequence[str], *, least: float = 0.005, most: float = 0.1) -> tuple[str, ...]:
    """Words that some references hold and most do not: features where a data set names none. Sorted."""
    shares = document_shares(references)
    return tuple(sorted(word for word, share in shares.items() if least <= share <= most and len(word) > 2))


def features_of(texts: Sequence[str], features: Sequence[str]) -> list[set[str]]:
    """The features that each text says, (R,): single words, or several in a row ("battery life", "wi-fi", "4K")."""
    by_words: dict[str, list[str]] = {}
    for feature in features:
        by_words.setdefault(_spoken(feature), []).append(feature)
    rows = [said for said in by_words if " " in said]
    found = []
    for text in texts:
        line = f" {_spoken(text)} "
        said = (set(line.split()) | words(text)) & by_words.keys()  # `frequent_features` are of the latter
        said |= {row for row in rows if f" {row} " in line}
        found.append({feature for one in said for feature in by_words[one]})
    return found


def _spoken(text: str) -> str:
    """The words and numbers of a text, lower case, with one space between them."""
    return " ".join(_SPOKEN.findall(text.casefold()))


def feature_match(features: Sequence[str]) -> RowMetric:
    """FMR of Li et al. 2020 (NETE, sec. 5.1) and 2021 (PETER, sec. 5.2): `features` are one per row, what the row is
    about; a row scores 1 where its text says its feature, else 0. References do not count."""

    def scores(texts: Sequence[str], references: Sequence[str]) -> Floats:
        rows = zip(texts, features, strict=True)
        return np.array([float(bool(features_of([text], [feature])[0])) for text, feature in rows])

    return scores


def feature_recall(features: Sequence[str]) -> RowMetric:
    """In FMR's place where a data set names no features: of those of `features` that a reference says, the share that
    the row's text says too. A row whose reference says none scores 0. Not comparable with published FMR."""

    def scores(texts: Sequence[str], references: Sequence[str]) -> Floats:
        pairs = zip(features_of(texts, features), features_of(references, features), strict=True)
        return np.array([len(said & meant) / len(meant) if meant else 0.0 for said, meant in pairs])

    return scores


def feature_coverage(texts: Sequence[str], features: Sequence[str]) -> float:
    """FCR (NETE): the share of all features that some text says.

    All are those given. NETE and PETER count the features of the whole data set, so a figure of a part is higher.
    """
    return len(set[str]().union(*features_of(texts, features))) / max(1, len(features))


def feature_diversity(texts: Sequence[str], features: Sequence[str]) -> float:
    """DIV (NETE): how many features two texts share, mean over all pairs of texts; lower is more diverse.

    Counted by feature: n texts with a feature make n (n − 1) / 2 pairs that share it.
    """
    counts = Counter(feature for said in features_of(texts, features) for feature in said)
    pairs = len(texts) * (len(texts) - 1) / 2
    return sum(count * (count - 1) / 2 for count in counts.values()) / pairs if pairs else 0.0


def unique_sentence_ratio(texts: Sequence[str]) -> float:
    """USR (NETE): distinct texts among all; texts are the same where every letter is. Shuffling does not change it, so
    it says nothing about truth."""
    return len(set(texts)) / max(1, len(texts))


def rouge_l(texts: Sequence[str], references: Sequence[str]) -> Floats:
    """ROUGE-L F1 per row by rouge-score, without stemming (Lin 2004)."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("rouge-score") from error
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(texts, references, strict=True)
    return np.array([scorer.score(reference, text)["rougeL"].fmeasure for text, reference in pairs])


def bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU-4 by sacrebleu, 0 … 1 (Papineni et al. 2002; Post 2018)."""
    try:
        from sacrebleu import corpus_bleu
    except ImportError as error:
        raise _missing("sacrebleu") from error
    return float(corpus_bleu(list(texts), [list(references)]).score) / 100


def bert_score(texts: Sequence[str], references: Sequence[str], *, model: Path) -> Floats:
    """BERTScore F1 per row with the model of a folder, its last layer, no rescaling (Zhang et al. 2020)."""
    try:
        from bert_score import score
    except ImportError as error:
        raise _missing("bert-score") from error
    if not (model / "config.json").is_file():
        raise DataError(f"{model} is not a model folder: it has no config.json.", "Give a Hugging Face folder.")
    from transformers import AutoConfig

    layers = int(AutoConfig.from_pretrained(model).num_hidden_layers)
    _, _, f1 = score(list(texts), list(references), model_type=str(model), num_layers=layers)
    return np.asarray(f1, dtype=np.float64)


@dataclass(frozen=True)
class Gap:
    """A metric's mean over rows, over shuffled rows, and their difference with a 95 % bootstrap interval."""

    real: float
    shuffled: float
    low: float
    high: float

    @property
    def gap(self) -> float:
        """What the texts say of their own row."""
        return self.real - self.shuffled


def derangement(size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """An order in which nobody stays: a random cycle through all rows, (size,). Raises DataError for fewer than two."""
    if size < 2:
        raise DataError(f"{size} row(s) cannot be shuffled.", "Give at least two.")
    order = rng.permutation(size)
    moved = np.empty(size, dtype=np.int64)
    moved[order] = np.roll(order, 1)
    return moved


def shuffle_gap(
    metric: RowMetric,
    texts: Sequence[str],
    references: Sequence[str],
    *,
    seed: int,
    shuffles: int = 3,
    samples: int = 1000,
) -> Gap:
    """The gap of a metric: every row's own score minus its mean score over `shuffles` texts of other rows.

    The interval resamples rows; both scores of a row stay together.
    """
    rng = np.random.default_rng(seed)
    real = metric(texts, references)
    shuffled = np.zeros(len(texts))
    for _ in range(shuffles):
        order = derangement(len(texts), rng)
        shuffled += metric([texts[row] for row in order], references) / shuffles
    drawn = rng.integers(len(texts), size=(samples, len(texts)))
    means = (real - shuffled)[drawn].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Gap(float(real.mean()), float(shuffled.mean()), float(low), float(high))


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError(f"{package} is not installed.", "Install the extra `text-metrics` (docs/install.md).")
