"""What an evaluation found, and how people read it: lines for a terminal, Markdown and one HTML page.

The report says in words which baselines the model beats and which it does not; a figure without its interval
and its competitors is not shown. Plots are drawn in `report_plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jinja2

from genrec.report_plots import bar_chart, group_chart, recall_curves

MODEL = "model"
_GROUP_WORDS = {
    "head": "most popular items, 20 % of training",
    "mid": "next 60 %",
    "tail": "last 20 %",
    "cold": "never in training",
}


_COLD_PROTOCOL = (
    " Held-out items are no targets of these users and in no history; in the tables of cold items every interaction "
    "with one is a target, after everything earlier of its user. Intervals there resample the held-out items; "
    "`random` is the exact expectation."
)


@dataclass(frozen=True)
class Estimate:
    """A mean over cases with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{figure(self.value)} [{figure(self.low)}, {figure(self.high)}]"


@dataclass(frozen=True)
class MethodResult:
    """One row of the table. `metrics` has `recall@5`, `ndcg@10`, …; the rest is at the headline cutoff."""

    name: str
    metrics: dict[str, Estimate]
    coverage: float
    gini: float | None  # None where nothing was recommended
    tail_share: float | None
    group_recall: dict[str, tuple[float | None, int]]  # group of the target → recall and number of cases
    recall_curve: list[float]  # recall@k for k = 1, 2, …
    seconds: float  # training (of a baseline) and ranking


@dataclass(frozen=True)
class Comparison:
    """NDCG of the model minus that of a baseline, on the same cases, with a paired interval."""

    baseline: str
    difference: Estimate

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        size, low, high = self.difference.value, self.difference.low, self.difference.high
        interval = f"95 % interval of the difference {figure(low, sign=True)} to {figure(high, sign=True)}"
        if low > 0:
            return f"NDCG: the model is above {self.baseline} by {figure(size)} ({interval})."
        if high < 0:
            return f"NDCG: the model is below {self.baseline} by {figure(-size)} ({interval})."
        return f"NDCG: the model and {self.baseline} cannot be told apart on these users ({interval})."


@dataclass(frozen=True)
class ColdMethod:
    """One row of the table of held-out items: `recall@10`, `recall@50`, `ndcg@10` over two sets of items."""

    name: str
    among_all: dict[str, Estimate]
    among_cold: dict[str, Estimate]
    seconds: float


@dataclass(frozen=True)
class ColdResult:
    """What was found with held-out items as targets (see `cold_evaluation`)."""

    num_items: int  # held out
    num_all_items: int
    num_cases: int
    methods: list[ColdMethod]


@dataclass(frozen=True)
class EvaluationResult:
    """Everything that one evaluation found; `as_json` is `evaluation/<split>.json`."""

    split: str
    num_cases: int
    num_items: int
    num_repeats: int  # targets that are in their history: unreachable, as history items are left out
    headline: int  # the cutoff that is talked about
    cutoffs: tuple[int, ...]
    seed: int
    bootstrap_samples: int
    methods: list[MethodResult]
    comparisons: list[Comparison] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # baseline → why it could not run
    tuned: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # baseline → settings chosen on validation
    cold: ColdResult | None = None  # where ingest held items out
    num_removed_targets: int = 0  # cases that are left out: their target was removed from the catalogue
    new_share: float = 0.0  # of the places of the model's lists, kept for items that no training interaction has

    @property
    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "cutoffs": list(self.cutoffs)}

    @property
    def facts(self) -> dict[str, Any]:
        """The headline figures, for the manifest."""
        shown = [f"{metric}@{self.headline}" for metric in ("recall", "ndcg", "mrr")]
        cold = {} if self.cold is None else {"cold": asdict(self.cold)}
        return {
            "split": self.split,
            "num_cases": self.num_cases,
            "methods": {
                method.name: {name: round(method.metrics[name].value, 6) for name in shown} for method in self.methods
            },
            "comparisons": {entry.baseline: asdict(entry.difference) for entry in self.comparisons},
            "skipped": self.skipped,
            **({"new_share": self.new_share} if self.new_share else {}),
            **cold,
        }


def figure(value: float | None, *, sign: bool = False) -> str:
    """A share to four places; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:+.4f}" if sign else f"{value:.4f}"


def words(settings: Mapping[str, Any]) -> str:
    """Settings on one line; none are the defaults."""
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "the defaults"


def verdicts(result: EvaluationResult) -> list[str]:
    """What the table means, in sentences: first the comparisons, then what is missing or limits them."""
    lines = [entry.words for entry in sorted(result.comparisons, key=lambda entry: entry.difference.value)]
    if not any(method.name == MODEL for method in result.methods):
        lines.append("No model was evaluated: these are the baselines alone.")
    lines += [f"{name} was left out: {reason}" for name, reason in result.skipped.items()]
    lines += [f"{name} was tuned on validation: {words(found)}." for name, found in result.tuned.items()]
    if fitted := [method.name for method in result.methods if method.name in ("evidence", "model alone")]:
        rows = "model and evidence" if "evidence" in fitted else "model"
        where = " These are such users, so here the figures of {} say little." if result.split == "validation" else ""
        lines.append(f"The weights of evidence were fitted on validation users.{where.format(rows)}")
    if result.new_share:
        lines.append(
            f"The model's lists keep a share of their places for items that no training interaction has "
            f"(--new-share {result.new_share:g}); those of the baselines do not."
        )
    if result.num_removed_targets:
        lines.append(f"{result.num_removed_targets:,} users are left out: what they took was removed since.")
    if result.num_repeats:
        lines.append(
            f"{result.num_repeats:,} of {result.num_cases:,} targets are already in the history; history "
            "items are never recommended, so no method can find these."
        )
    return lines


def terminal_lines(result: EvaluationResult) -> list[str]:
    """A compact plain table, best NDCG first, then the verdicts."""
    k = result.headline
    head = f"{'method':<14}{f'Recall@{k}':>11}{f'NDCG@{k}':>10}  {'95 % interval':<17}{'coverage':>9}{'seconds':>9}"
    lines = [f"{result.split}: {result.num_cases:,} users, all {result.num_items:,} items ranked", head]
    for method in _best_first(result):
        ndcg = method.metrics[f"ndcg@{k}"]
        lines.append(
            f"{method.name:<14}{figure(method.metrics[f'recall@{k}'].value):>11}{figure(ndcg.value):>10}  "
            f"{f'{figure(ndcg.low)}–{figure(ndcg.high)}':<17}{method.coverage:>9.1%}{method.seconds:>9.1f}"
        )
    if result.cold is not None:
        lines += _cold_lines(result.cold)
    return lines + verdicts(result)


def _cold_lines(cold: ColdResult) -> list[str]:
    head = f"{'method':<14}{'Recall@10':>11}{'Recall@50':>11}{'NDCG@10':>10}   {'Recall@50, 95 % interval':<24}"
    lines = []
    for words, figures in _cold_views(cold).items():
        lines += ["", words, head]
        for name, row in figures.items():
            values = f"{row['recall@10'].value:>11.4f}{row['recall@50'].value:>11.4f}{row['ndcg@10'].value:>10.4f}"
            lines.append(f"{name:<14}{values}   {figure(row['recall@50'].low)}–{figure(row['recall@50'].high)}")
    return [*lines, ""]


def _cold_views(cold: ColdResult) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Words → method → figures, best first: held-out targets among all items, and among each other."""
    what = f"Cold: {cold.num_cases:,} interactions with {cold.num_items:,} held-out items"
    views = {
        f"{what}, all {cold.num_all_items:,} items ranked": {m.name: m.among_all for m in cold.methods},
        f"{what}, only held-out items ranked": {m.name: m.among_cold for m in cold.methods},
    }
    return {
        words: dict(sorted(view.items(), key=lambda entry: -entry[1]["recall@50"].value))
        for words, view in views.items()
    }


def markdown_report(result: EvaluationResult, *, title: str) -> str:
    """The report as Markdown."""
    tables = "\n\n".join(f"## {heading}\n\n{_markdown_table(rows)}" for heading, rows in _tables(result).items())
    sentences = "\n".join(f"- {line}" for line in verdicts(result))
    return f"# {_escape_markdown(title)}\n\n{_protocol(result)}\n\n{sentences}\n\n{tables}\n"


def html_report(result: EvaluationResult, *, title: str) -> str:
    """The report as one self-contained page that reads in light and dark. Every text is escaped."""
    k = result.headline
    methods = _best_first(result)
    plots = {
        f"NDCG@{k} and Recall@{k} by method": bar_chart(
            [method.name for method in methods],
            {
                f"{label}@{k}": [
                    (estimate.value, estimate.low, estimate.high)
                    for estimate in (method.metrics[f"{label.lower()}@{k}"] for method in methods)
                ]
                for label in ("NDCG", "Recall")
            },
        ),
        f"Recall@{k} by popularity of the target": group_chart(
            {method.name: {g: r for g, (r, _) in method.group_recall.items()} for method in methods}
        ),
        "Recall by length of the list": recall_curves({method.name: method.recall_curve for method in methods}),
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(
        title=title, protocol=_protocol(result), verdicts=verdicts(result), plots=plots, tables=_tables(result)
    )


def _best_first(result: EvaluationResult) -> list[MethodResult]:
    name = f"ndcg@{result.headline}"
    return sorted(result.methods, key=lambda method: -method.metrics[name].value)


def _protocol(result: EvaluationResult) -> str:
    extra = " The test history holds the validation item." if result.split == "test" else ""
    return (
        f"{result.num_cases:,} users of the {result.split} split, one target each, ranked over all "
        f"{result.num_items:,} items without those of the history; hits are counted in items.{extra} "
        f"Intervals: 95 %, {result.bootstrap_samples:,} bootstrap resamples of the users, "
        f"seed {result.seed}. They say nothing about other training seeds."
        + (_COLD_PROTOCOL if result.cold is not None else "")
    )


def _tables(result: EvaluationResult) -> dict[str, list[list[str]]]:
    """Heading → rows, the first of which is the head."""
    k = result.headline
    methods = _best_first(result)
    accuracy = [["method", *(f"{m}@{c}" for c in result.cutoffs for m in ("Recall", "NDCG", "MRR"))]]
    headline = [["method", f"Recall@{k}", f"NDCG@{k}", f"MRR@{k}", "seconds"]]
    spread = [["method", f"coverage@{k}", f"Gini@{k}", f"tail share@{k}"]]
    groups = methods[0].group_recall if methods else {}
    counts = [f"{name}: {_GROUP_WORDS[name]} ({size:,} targets)" for name, (_, size) in groups.items()]
    strata = [["method", *counts]]
    for method in methods:
        at_k = [str(method.metrics[f"{name}@{k}"]) for name in ("recall", "ndcg", "mrr")]
        headline.append([method.name, *at_k, f"{method.seconds:.1f}"])
        accuracy.append([method.name, *(figure(method.metrics[name.lower()].value) for name in accuracy[0][1:])])
        spread.append([method.name, *map(figure, (method.coverage, method.gini, method.tail_share))])
        strata.append([method.name, *(figure(value) for value, _ in method.group_recall.values())])
    return {
        f"Accuracy at {k}, with 95 % intervals": headline,
        "Accuracy at every cutoff": accuracy,
        "Spread of the recommendations": spread,
        f"Recall@{k} by popularity of the target": strata,
        **_cold_tables(result.cold),
    }


def _cold_tables(cold: ColdResult | None) -> dict[str, list[list[str]]]:
    if cold is None:
        return {}
    names = {"Recall@10": "recall@10", "Recall@50": "recall@50", "NDCG@10": "ndcg@10"}
    return {
        words: [["method", *names], *([name, *(str(row[key]) for key in names.values())] for name, row in view.items())]
        for words, view in _cold_views(cold).items()
    }


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[_escape_markdown(cell) for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def _escape_markdown(text: str) -> str:
    replacements: Mapping[str, str] = {"\\": "\\\\", "|": "\\|", "<": "&lt;", "\n": " "}
    return "".join(replacements.get(letter, letter) for letter in text)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
figure { margin: 2rem 0; }
svg { max-width: 100%; height: auto; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ protocol }}</p>
<ul>
{% for line in verdicts %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% for heading, plot in plots.items() %}
<figure role="img" aria-label="{{ heading }}">
<figcaption><h2>{{ heading }}</h2></figcaption>
{{ plot | safe }}
</figure>
{% endfor %}
{% for heading, rows in tables.items() %}
<h2>{{ heading }}</h2>
<div class="wide"><table>
<thead><tr>{% for cell in rows[0] %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows[1:] %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endfor %}
</body>
</html>
"""
