"""`genrec inspect`: what a run holds, what an item looks like to the model, and what the model is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from genrec.config import TrainConfig, build_config
from genrec.data.catalog import Catalog
from genrec.examples import Example
from genrec.explanation.lessons import lesson_sources
from genrec.prompting import default_prompts
from genrec.run import Run, StageReport
from genrec.tasks.loading import SOURCES, load_mixture
from genrec.tokenizers.codes import SemanticIds
from genrec.vocabulary import SidVocabulary, sid_token

_NEIGHBOURS = 5
_NUM_EXAMPLES = 10
TRAINED_ON = "⟦", "⟧"  # around trained-on words, where there is no colour


def inspect_run(run: Run) -> StageReport:
    """Which stages are finished, with the figures that each reported."""
    stages = run.stages
    facts = {
        name: {"config": record.config, "seconds": record.seconds, "report": record.report}
        for name, record in stages.items()
    }
    words = [f"{run.path}: {len(stages)} finished stage(s)"]
    for name, record in stages.items():
        plain = {key: value for key, value in record.report.items() if isinstance(value, str | int | float)}
        figures = ", ".join(f"{key} {_figure(value)}" for key, value in list(plain.items())[:6])
        words.append(f"  {name:16} {record.seconds:8.1f} s  {figures}")
        if name == "evidence":
            shares = ", ".join(f"{part} {share:.0%}" for part, share in record.report["shares"].items())
            words.append(f"  {'':16} {'':10}  of the answers speaks: {shares}")
    words += [f"  {entry['when']}  {entry['change']}: {_counts(entry['facts'])}" for entry in run.amendments]
    return StageReport("inspect", facts, words)


def inspect_item(run: Run, item_id: str) -> StageReport:
    """An item's record, its codes, and the items that share each prefix of its semantic ID.

    Raises UnknownItemError where the catalogue does not have it.
    """
    catalog = Catalog.load(run)
    row = int(catalog.indices([item_id])[0])
    semantic_ids = SemanticIds.load(run, catalog=catalog)
    codes = semantic_ids.codes
    own = codes[row]
    record = {key: value for key, value in catalog.table.row(row, named=True).items() if value not in (None, [])}
    tokens = [sid_token(level, int(code)) for level, code in enumerate(own)]
    words = [f"{catalog.titles[row]}  ({item_id})"]
    words += [f"  {name}: {_plain(value)}" for name, value in record.items() if name not in {"item_id", "title"}]
    words.append(f"  semantic ID: {' '.join(tokens)}")
    prefixes: list[dict[str, Any]] = []
    for length in range(len(own), 0, -1):
        same = np.flatnonzero((codes[:, :length] == own[:length]).all(axis=1))
        others = [int(item) for item in same if item != row]
        titles = [catalog.titles[item] for item in others[:_NEIGHBOURS]]
        prefixes.append(
            {
                "prefix": tokens[:length],
                "num_items": len(same),
                "neighbours": [catalog.item_ids[item] for item in others[:_NEIGHBOURS]],
            }
        )
        shown = "; ".join(titles) if titles else "nobody else"
        more = f"; … {len(others) - len(titles)} more" if len(others) > len(titles) else ""
        words.append(f"  {' '.join(tokens[:length])}: {shown}{more}")
    facts = {"item_id": item_id, "record": record, "codes": own.tolist(), "prefixes": prefixes}
    return StageReport("inspect", facts, words)


def inspect_examples(run: Run, config: TrainConfig | None = None, *, seed: int = 0) -> StageReport:
    """Ten examples that the run's model is trained on, every task in turn.

    `config` shows its tasks and prompts instead of those of the training; the tokenizer is the trained model's. Raises
    RunError where the run is not trained, ConfigError and DataError as training does.
    """
    from transformers import AutoTokenizer

    record = run.require("train")
    chosen = build_config(TrainConfig, record.config, source="the manifest, stage train") if config is None else config
    folder = run.path / "model"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    catalog = Catalog.load(run)
    vocabulary = SidVocabulary.load(folder).of_catalogue(catalog.item_ids)
    folders = [run.path / "prompts"] if config is None else [default_prompts(), *filter(None, [config.prompts])]
    mixture = load_mixture(
        run,
        chosen,
        folders=folders,
        tokenizer=tokenizer,
        item_tokens=vocabulary.token_ids(SemanticIds.load(run, catalog=catalog).codes),
        own_tokens=vocabulary.own_tokens(len(catalog)),
        sources={**SOURCES, **lesson_sources(run, folders)},
    )
    examples = [_shown(example, tokenizer) for example in mixture.some(_NUM_EXAMPLES, seed=seed)]
    words = [line for example in examples for line in example_lines(example, marks=TRAINED_ON)]
    return StageReport("inspect", {"examples": examples}, words)


def example_lines(example: dict[str, Any], *, marks: tuple[str, str]) -> list[str]:
    """An example of `inspect_examples` as lines of text, what is trained on between two marks."""
    opening, closing = marks
    # A mark in somebody's text must not pass for one of ours.
    spans = [
        (span["text"].replace(opening, "[").replace(closing, "]"), span["trained_on"]) for span in example["spans"]
    ]
    text = "".join(f"{opening}{words}{closing}" if trained_on else words for words, trained_on in spans)
    return [f"{example['task']}, {len(example['token_ids'])} tokens", *(f"  {line}" for line in text.split("\n")), ""]


def _shown(example: Example, tokenizer: Any) -> dict[str, Any]:
    """The example as plain values; `spans` are its pieces of text, trained on or not."""
    cuts = np.flatnonzero(np.diff(example.targets)) + 1
    pieces = zip(np.split(example.tokens, cuts), np.split(example.targets, cuts), strict=True)
    return {
        "task": example.task,
        "token_ids": example.tokens.tolist(),
        "trained_on": example.targets.tolist(),
        "spans": [
            {
                "text": tokenizer.decode(tokens.tolist(), clean_up_tokenization_spaces=False),
                "trained_on": bool(targets[0]),
            }
            for tokens, targets in pieces
        ],
    }


def _counts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items() if isinstance(value, int | str))


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
