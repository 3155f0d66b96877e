"""Do the transformers and the vLLM engine rank the same items? One model, float32, with and without evidence.

    python eval/engine_agreement.py RUN [--users 500] [--beam-width 50] [--evidence-weight 0.3] [--seed 0]

Test users drawn with the seed; evidence is a mixture with transition counts, and that of the run where it has some:
what it serves. An answer agrees where both engines name
the same items in the same order, but for items whose scores differ by less than 1e-4. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from genrec.adapter import adapter_folder
from genrec.baselines.transitions import Transitions
from genrec.data.catalog import Catalog
from genrec.data.splits import evaluation_cases, training_sequences
from genrec.decoding.engine import Engine, RankedItem
from genrec.decoding.opening import ENGINES, open_engine
from genrec.errors import GenrecError
from genrec.evidence import Evidence
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

TIE = 1e-4


def same_but_ties(one: Sequence[RankedItem], other: Sequence[RankedItem]) -> bool:
    """Whether two answers are one ranking but for ties: place by place the scores are equal within TIE, and an item
    that only one of them names scores as their last does."""
    if len(one) != len(other) or any(abs(a.score - b.score) > TIE for a, b in zip(one, other, strict=True)):
        return False
    theirs = {item.item_index: item.score for item in other}
    last = other[-1].score if other else 0.0
    return all(abs(item.score - theirs.get(item.item_index, last)) <= TIE for item in one)


def main() -> int:
    """Read the command line, rank with both engines, print."""
    parser = argparse.ArgumentParser(description="Agreement of the engines, as Markdown.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--beam-width", type=int, default=50)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--evidence-weight", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        print(compare(Run.open(options.run), options))
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


def compare(run: Run, options: argparse.Namespace) -> str:
    """Rank the same prompts with both engines, with and without evidence; a Markdown table."""
    recommender = Recommender.load(run.path)
    cases = evaluation_cases(run, "test").sample(options.users, seed=options.seed)
    prompts = [recommender.prompt_tokens(history) for history in cases.histories]
    item_prompts = [recommender.item_prompt(history) for history in cases.histories]
    filters = [ItemFilter.excluding(recommender.trie, np.unique(history)) for history in cases.histories]
    counts = Transitions()
    counts.fit(training_sequences(run), len(Catalog.load(run)), seed=options.seed)
    evidence = [
        Evidence.from_mass(recommender.trie, row, weight=options.evidence_weight, join="mixture")
        for row in counts.scores(list(cases.histories))
    ]
    asked: list[tuple[str, list[Evidence | None] | None]] = [("without evidence", None), ("with counts", [*evidence])]
    if recommender.evidence is not None:
        own = recommender.evidence.evidence(list(cases.histories), recommender.trie)
        asked.append((f"as served: {recommender.evidence.join} of weight {recommender.evidence.weight:g}", own))
    lines = [
        f"{len(prompts)} test users, {options.beam_width} beams, top {options.k}, float32, seed {options.seed}; "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n",
        "| | same top but ties | same items, same order | largest difference of a score | seconds |",
        "|---|---|---|---|---|",
    ]
    answers: dict[str, list[list[list[RankedItem]]]] = {}
    seconds = {}
    for name in ENGINES:
        folder = run.path / "model"
        vocabulary = SidVocabulary.load(folder)
        engine: Engine = open_engine(name, folder, vocabulary=vocabulary, adapter=adapter_folder(run))
        for label, given in asked:
            start = time.perf_counter()
            found = engine.rank(
                prompts,
                recommender.trie,
                beam_width=options.beam_width,
                k=options.k,
                allowed=filters,
                evidence=given,
                item_prompts=item_prompts,
            )
            seconds[label, name] = time.perf_counter() - start
            answers.setdefault(label, []).append(found)
        engine.close()
    for label, (ours, theirs) in answers.items():
        pairs = list(zip(ours, theirs, strict=True))
        agreeing = sum(same_but_ties(one, other) for one, other in pairs)
        identical = sum([i.item_index for i in one] == [i.item_index for i in other] for one, other in pairs)
        # Answers of different length do not agree; what both have is compared.
        worst = max(abs(a.score - b.score) for one, other in pairs for a, b in zip(one, other, strict=False))
        took = ", ".join(f"{name} {seconds[label, name]:.0f}" for name in ENGINES)
        lines.append(f"| {label} | {agreeing} of {len(pairs)} | {identical} | {worst:.1e} | {took} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
