"""What a transfer found, and how people read it: one table over all variants, and what it means in sentences.

Differences are paired: both methods answer the same users. The report says where the source was of no use.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from genrec.report import Estimate, MethodResult, figure
from genrec.report_plots import bar_chart

ZERO_SHOT, FINE_TUNED = "zero-shot", "fine-tuned"
SHARED_IDS, OWN_IDS = "scratch-shared-ids", "scratch-own-ids"
ROW_WORDS = {
    ZERO_SHOT: "the source's tokenizer and model, not trained on the target",
    FINE_TUNED: "the source's tokenizer and model, trained further on the target",
    SHARED_IDS: "the source's tokenizer, a fresh model trained on the target",
    OWN_IDS: "a tokenizer and a model of the target alone",
}
# What is subtracted from what, besides the baselines from every variant.
PAIRS = ((FINE_TUNED, ZERO_SHOT), (FINE_TUNED, SHARED_IDS), (FINE_TUNED, OWN_IDS), (SHARED_IDS, OWN_IDS))


@dataclass(frozen=True)
class TransferRow:
    """One method on the target. The last two are None for a baseline, and for what was not trained here."""

    method: MethodResult
    best_epoch: int | None = None
    training_seconds: float | None = None


@dataclass(frozen=True)
class Difference:
    """NDCG of one method minus that of another, on the same cases, with a paired interval."""

    first: str
    second: str
    ndcg: Estimate

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        size, low, high = self.ndcg.value, self.ndcg.low, self.ndcg.high
        interval = f"95 % interval of the difference {figure(low, sign=True)} to {figure(high, sign=True)}"
        if low > 0:
            return f"NDCG: {self.first} is above {self.second} by {figure(size)} ({interval})."
        if high < 0:
            return f"NDCG: {self.first} is below {self.second} by {figure(-size)} ({interval})."
        return f"NDCG: {self.first} and {self.second} cannot be told apart on these users ({interval})."


@dataclass(frozen=True)
class TransferResult:
    """Everything that one transfer found; `as_json` is `transfer.json`."""

    source: str
    target: str
    split: str
    num_cases: int
    num_items: int
    headline: int  # the cutoff that is talked about
    epochs: int  # of every training on the target, at most
    shared_users: int  # users of the target whose id the source has, too
    num_users: int
    shared_items: int  # items of the target whose id the source has, too
    rows: list[TransferRow]
    differences: list[Difference]
    skipped: dict[str, str] = field(default_factory=dict)  # row → why it is not there

    @property
    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @property
    def facts(self) -> dict[str, Any]:
        """The headline figures."""
        shown = [f"{metric}@{self.headline}" for metric in ("recall", "ndcg")]
        return {
            **{name: value for name, value in self.as_json.items() if name not in {"rows", "differences"}},
            "rows": {
                row.method.name: {
                    **{name: asdict(row.method.metrics[name]) for name in shown},
                    "coverage": row.method.coverage,
                    "tail_share": row.method.tail_share,
                    "best_epoch": row.best_epoch,
                    "training_seconds": row.training_seconds,
                }
                for row in self.rows
            },
            "differences": [asdict(difference) for difference in self.differences],
        }


def verdicts(result: TransferResult) -> list[str]:
    """What the table means, in sentences: zero-shot first, then the differences, then what limits them."""
    lines = [*_zero_shot_words(result), *(difference.words for difference in result.differences)]
    lines += [f"{name} is not in the table: {reason}" for name, reason in result.skipped.items()]
    k = result.headline
    lines.append(
        f"Drawing items at random would find about {figure(min(1.0, k / result.num_items))} at {k}. Every training "
        f"on the target read it {result.epochs} times at most; {FINE_TUNED} had the source's training before that."
    )
    if result.shared_users or result.shared_items:
        lines.append(
            f"{result.shared_users:,} of the target's {result.num_users:,} users and {result.shared_items:,} of its "
            f"{result.num_items:,} items have an id that the source has, too: if it is the same user or item, "
            "the source's model was trained on what they did there."
        )
    return lines


def _zero_shot_words(result: TransferResult) -> list[str]:
    found = [entry for entry in result.differences if (entry.first, entry.second) == (ZERO_SHOT, "popularity")]
    if not found:
        return []
    ndcg = found[0].ndcg
    if ndcg.low > 0:
        return ["Zero-shot is above popularity: what the source's model knows holds on the target, untrained."]
    if ndcg.high < 0:
        return [
            "Zero-shot is below popularity: untrained on the target, it is worse than counting what is popular there."
        ]
    return ["Zero-shot is no better than popularity: counting what is popular on the target does as well."]


def terminal_lines(result: TransferResult) -> list[str]:
    """A compact plain table, best NDCG first, then the verdicts."""
    k = result.headline
    head = f"{'method':<20}{f'Recall@{k}':>11}{f'NDCG@{k}':>10}  {'95 % interval':<17}{'coverage':>9}{'tail':>8}"
    lines = [f"{result.split}: {result.num_cases:,} users of {result.target}, all {result.num_items:,} items", head]
    for row in _best_first(result):
        method, ndcg = row.method, row.method.metrics[f"ndcg@{k}"]
        lines.append(
            f"{method.name:<20}{figure(method.metrics[f'recall@{k}'].value):>11}{figure(ndcg.value):>10}  "
            f"{f'{figure(ndcg.low)}–{figure(ndcg.high)}':<17}{method.coverage:>9.1%}{_share(method.tail_share):>8}"
        )
    return lines + verdicts(result)


def markdown(result: TransferResult, *, plot: str) -> str:
    """The report as Markdown; `plot` is the file name of the picture beside it."""
    k = result.headline
    head = ["method", f"Recall@{k}", f"NDCG@{k}", f"coverage@{k}", f"tail share@{k}", "best epoch", "training s"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in _best_first(result):
        method = row.method
        rows.append(
            [
                method.name,
                str(method.metrics[f"recall@{k}"]),
                str(method.metrics[f"ndcg@{k}"]),
                f"{method.coverage:.1%}",
                _share(method.tail_share),
                "–" if row.best_epoch is None else str(row.best_epoch),
                "–" if row.training_seconds is None else f"{row.training_seconds:.1f}",
            ]
        )
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    names = {row.method.name for row in result.rows}
    legend = "\n".join(f"- `{name}`: {words}." for name, words in ROW_WORDS.items() if name in names)
    sentences = "\n".join(f"- {line}" for line in verdicts(result))
    protocol = (
        f"{result.num_cases:,} users of the {result.split} split of the target, every one of its "
        f"{result.num_items:,} items ranked; hits are counted in items. Intervals: 95 %, bootstrap over users; they "
        "say nothing about other training seeds."
    )
    title = f"# Transfer from `{result.source}` to `{result.target}`"
    return f"{title}\n\n{protocol}\n\n{table}\n\n{legend}\n\n![figures and intervals]({plot})\n\n{sentences}\n"


def plot_svg(result: TransferResult) -> str:
    """Bars of NDCG and Recall with their intervals."""
    rows = [row.method for row in _best_first(result)]
    metrics = {
        f"{label}@{result.headline}": [
            (estimate.value, estimate.low, estimate.high)
            for estimate in (method.metrics[f"{label.lower()}@{result.headline}"] for method in rows)
        ]
        for label in ("NDCG", "Recall")
    }
    return bar_chart([method.name for method in rows], metrics)


def _best_first(result: TransferResult) -> list[TransferRow]:
    name = f"ndcg@{result.headline}"
    return sorted(result.rows, key=lambda row: -row.method.metrics[name].value)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
