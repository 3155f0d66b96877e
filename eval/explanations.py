"""Score explanations against references, beside constant, shuffled and template texts; prints a Markdown table.

    python eval/explanations.py xrec FOLDER [--sets amazon,google]  a published system's outputs
    python eval/explanations.py run OUTPUT.jsonl                    statement support of what `genrec explain` wrote
    python eval/explanations.py pairs FILE.jsonl --constant "…"     lines {"pred", "ref", "template"?, "feature"?}

`--bert-model FOLDER` adds BERTScore; `--judge ADDRESS --judge-model NAME` asks an OpenAI-compatible server about the
first `--judge-rows` rows. Without them neither is run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.errors import DataError, GenrecError
from genrec.explanation_judge import ask_address, judge
from genrec.text_metrics import (
    RowMetric,
    bert_score,
    bleu,
    derangement,
    feature_coverage,
    feature_diversity,
    feature_match,
    feature_recall,
    frequent_features,
    rare_word_precision,
    rare_word_recall,
    rouge_l,
    shuffle_gap,
    unique_sentence_ratio,
)

# One sentence for everybody: what a system has to beat before its scores mean anything.
CONSTANTS = {
    "google": "The user would enjoy the business because of the great food, friendly service, and welcoming "
    "atmosphere, making it a great place to visit.",
    "amazon": "The user would buy the book because they enjoy the story, the characters, and the writing style of the "
    "author.",
}


@dataclass(frozen=True)
class Rows:
    """Texts and references, row by row; `templates` are texts that only facts of the item fill.

    `features` are all features; `named` is the one that each row is about.
    """

    texts: list[str]
    references: list[str]
    templates: list[str] | None  # None: the lines have none
    constant: str
    features: tuple[str, ...]
    named: list[str] | None = None  # None: the lines name none, and `features` are words of the references

    @property
    def match(self) -> RowMetric:
        """How well the texts name what their rows are about."""
        return feature_recall(self.features) if self.named is None else feature_match(self.named)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """JSON lines, also `.gz`. Raises DataError for a file that cannot be read."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Give JSON lines.") from error


def xrec_rows(folder: Path, name: str) -> Rows:
    """A published system's texts, with the title and summary of each row's item for the template."""
    pairs = list(read_lines(folder / f"{name}_xrec_pred_vs_ref.jsonl.gz"))
    items = {row["explanation"].strip(): row for row in read_lines(folder / f"{name}_test.jsonl.gz")}
    frame = CONSTANTS[name].split(" because")[0]
    templates = []
    for pair in pairs:
        item = items[pair["ref"].strip()]
        summary = str(item["item_summary"]).split(". ")[0].rstrip(".")
        templates.append(f"{frame} because of “{item['title']}”: {summary}.")
    references = [pair["ref"] for pair in pairs]
    texts = [pair["pred"] for pair in pairs]
    return Rows(texts, references, templates, CONSTANTS[name], frequent_features(references))


def pair_rows(path: Path, constant: str) -> Rows:
    """Lines of any system. Features are those of the lines, if every line names one, or else words of some references
    and not of most."""
    pairs = list(read_lines(path))
    if lacking := [number for number, pair in enumerate(pairs, 1) if not {"pred", "ref"} <= pair.keys()]:
        raise DataError(f"{path}, line {lacking[0]} lacks pred or ref.", "Give both in every line.")
    texts, references = ([str(pair[name]) for pair in pairs] for name in ("pred", "ref"))
    templates, named = (_of_all(pairs, name, path) for name in ("template", "feature"))
    features = frequent_features(references) if named is None else tuple(sorted({one.casefold() for one in named}))
    return Rows(texts, references, templates, constant, features, named)


def _of_all(pairs: Sequence[dict[str, Any]], name: str, path: Path) -> list[str] | None:
    """A field of every line; None, which is said, where a line lacks it or has it empty."""
    found = [str(pair.get(name) or "") for pair in pairs]
    if not all(found):
        print(f"{path}: {found.count('')} of {len(found)} lines have no {name}; it is not used.", file=sys.stderr)
        return None
    return found


def table(rows: Rows, *, seed: int, bert_model: Path | None = None) -> list[str]:
    """The four texts under every metric, as lines of Markdown; figures in percent unless a ratio."""
    order = derangement(len(rows.texts), np.random.default_rng(seed))
    shuffled = [rows.texts[row] for row in order]
    constant = [rows.constant] * len(rows.texts)
    templates = {} if rows.templates is None else {"template": rows.templates}
    systems = {"system": rows.texts, "shuffled": shuffled, **templates, "constant": constant}
    precision, recall = rare_word_precision(rows.references), rare_word_recall(rows.references)
    match = rows.match
    names = ["ROUGE-L", "BLEU", "rare-word P", "rare-word R", "FMR", "FCR", "DIV", "USR"]
    names[4] = "feature recall" if rows.named is None else "FMR"
    lines = [f"| | {' | '.join([*names, *(['BERTScore'] if bert_model else [])])} |", f"|---{'|---' * len(names)}|"]
    lines[1] += "---|" if bert_model else ""
    for name, texts in systems.items():
        scores = [
            100 * float(rouge_l(texts, rows.references).mean()),
            100 * bleu(texts, rows.references),
            100 * float(precision(texts, rows.references).mean()),
            100 * float(recall(texts, rows.references).mean()),
            100 * float(match(texts, rows.references).mean()),
            100 * feature_coverage(texts, rows.features),
            feature_diversity(texts, rows.features),
            unique_sentence_ratio(texts),
        ]
        if bert_model is not None:
            scores.append(100 * float(bert_score(texts, rows.references, model=bert_model).mean()))
        lines.append(f"| {name} | {' | '.join(f'{score:.2f}' for score in scores)} |")
    return lines


def gaps(rows: Rows, *, seed: int) -> list[str]:
    """Shuffle gaps of the system's and the template's content, with intervals, in percent."""
    metrics: dict[str, RowMetric] = {
        "rare-word precision": rare_word_precision(rows.references),
        "rare-word recall": rare_word_recall(rows.references),
        "feature recall" if rows.named is None else "FMR": rows.match,
    }
    systems = {"system": rows.texts} | ({} if rows.templates is None else {"template": rows.templates})
    lines = [f"| shuffle gap | {' | '.join(systems)} |", "|---" * (1 + len(systems)) + "|"]
    for name, metric in metrics.items():
        cells = []
        for texts in systems.values():
            gap = shuffle_gap(metric, texts, rows.references, seed=seed)
            cells.append(f"{100 * gap.gap:.2f} [{100 * gap.low:.2f}, {100 * gap.high:.2f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def support(path: Path) -> list[str]:
    """What `genrec explain` wrote: sources, fallbacks, verdicts."""
    answers = list(read_lines(path))
    told = [answer for answer in answers if "error" not in answer]
    sources = Counter(answer["source"] for answer in told)
    verdicts = Counter(statement["verdict"] for answer in told for statement in answer["statements"])
    claims = verdicts["supported"] + verdicts["unsupported"]
    texts = [answer["text"] for answer in told if answer["text"]]
    attempts, refused = (sum(answer[name] for answer in told) for name in ("attempts", "num_unsupported"))
    return [
        f"{len(answers):,} lines, {len(answers) - len(told):,} with an error; written by "
        + ", ".join(f"{name} {count:,}" for name, count in sorted(sources.items())),
        f"fallbacks {sum(answer['fallback'] for answer in told):,}; unsupported statements that a model wrote: "
        f"{refused:,} in {attempts:,} texts",
        f"statements {sum(verdicts.values()):,}: supported {verdicts['supported']:,}, no claim "
        f"{verdicts['no-claim']:,}, unsupported {verdicts['unsupported']:,} "
        f"({100 * verdicts['supported'] / max(1, claims):.2f} % of the claims supported)",
        f"unique texts {100 * unique_sentence_ratio(texts):.1f} %",
    ]


def judged(rows: Rows, given: argparse.Namespace) -> list[str]:
    """What the judge says of the first rows; a failed answer is missing, not bad."""
    ask = ask_address(given.judge, given.judge_model, api_key=given.judge_key)
    size = min(given.judge_rows, len(rows.texts))
    found = judge(rows.texts[:size], rows.references[:size], ask)
    return [
        f"judge {given.judge_model}: mean {found.mean:.2f} of 5 over {size - found.num_missing} rows, "
        f"{found.num_missing} of {size} missing"
    ]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Scores of explanations beside baselines that say nothing.")
    parser.add_argument("kind", choices=("xrec", "run", "pairs"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--sets", default="amazon,google")
    parser.add_argument("--constant", help="pairs: one sentence for every row")
    parser.add_argument("--bert-model", type=Path)
    parser.add_argument("--judge", help="address of an OpenAI-compatible server")
    parser.add_argument("--judge-model", default="")
    parser.add_argument("--judge-key", default="")
    parser.add_argument("--judge-rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.kind == "pairs" and not given.constant:
        parser.error("pairs needs --constant: one sentence that says what any text of this kind says")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, score, print."""
    given = parse(arguments)
    try:
        if given.kind == "run":
            print("\n".join(support(given.path)))
            return 0
        names = given.sets.split(",") if given.kind == "xrec" else [given.path.stem]
        for name in names:
            rows = xrec_rows(given.path, name) if given.kind == "xrec" else pair_rows(given.path, given.constant)
            print(f"\n{name}: {len(rows.texts):,} rows, {len(rows.features):,} features\n")
            print(
                "\n".join(
                    [*table(rows, seed=given.seed, bert_model=given.bert_model), "", *gaps(rows, seed=given.seed)]
                )
            )
            if given.judge:
                print("\n".join(judged(rows, given)))
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
