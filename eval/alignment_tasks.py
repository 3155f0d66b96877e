"""Does learning words cost recall, and are the words learned? Next-item alone against a mixture of tasks, per seed.

    python eval/alignment_tasks.py RUN --config train/configs/tasks.yaml --out FOLDER [--seeds 0,1,2] [--text FILE]

Copies the tokenized RUN, trains both on it with equal epochs, and prints a table: Recall@10 and NDCG@10 on the test
split (or `--splits validation test`, where one has few users), and the ratio of the mixture to next-item alone with its
95 % bootstrap interval over cases; title → ID and ID → title on a sample of items, by trained and held-out paraphrases;
the perplexity per word of text that nothing was trained on (`--text FILE[:fields]`, else the descriptions of items that
ingest held out, where G is in the mixture), under the base as well.
Finished work in the output folder is not done again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np

from genrec import metrics, pipeline
from genrec.adapter import adapter_folder
from genrec.config import TrainConfig, dump_config, load_config
from genrec.console import ConsoleProgress, print_lines
from genrec.data.splits import Split, evaluation_cases
from genrec.data.text_source import TextSource
from genrec.errors import GenrecError
from genrec.preparation import base_checksums, resolve_base
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run, read_json, write_json
from genrec.task_evaluation import held_out_texts, text_perplexity, title_accuracy

CUTOFF, BEAM_WIDTH = 10, 20
BOOTSTRAP_SAMPLES = 2000
NEXT_ITEM, MIXTURE = "next-item", "mixture"
_ORIGIN = "made_from.json"
PROGRESS = ConsoleProgress()


def train_and_measure(
    source: Run,
    config: TrainConfig,
    folder: Path,
    *,
    num_items: int,
    splits: Sequence[Split],
    texts: Sequence[str] = (),
) -> dict[str, Any]:
    """A copy of `source` trained in `folder`, and what it can do. Work that was finished with the same is read from
    `folder`.
    """
    result = folder / "alignment.json"
    made_from = _made_from(source, config)
    asked = {
        "config": dump_config(config),
        **made_from,
        "splits": list(splits),
        "num_items": num_items,
        "texts": sha256("\0".join(texts).encode("utf-8", errors="surrogatepass")).hexdigest(),
    }
    if result.is_file():
        found: dict[str, Any] = read_json(result)
        if found.get("asked") == asked:
            return found
    if _origin(folder) != made_from:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source.path, folder)
        write_json(folder / _ORIGIN, made_from)
    run = Run.open(folder)
    trained = run.stages.get("train")
    if trained is None or trained.config != dump_config(config):
        pipeline.train(run, config, resume=True, progress=PROGRESS)
    recommender = Recommender.load(folder, beam_width=BEAM_WIDTH)
    found_ranks, users = [], list[str]()
    for split in splits:
        cases = evaluation_cases(run, split)
        users += map(str, cases.user_ids)
        answers = recommender.rank([RankRequest(history) for history in cases.histories], CUTOFF)
        ranked = metrics.pad_rankings([[item.item_index for item in answer] for answer in answers], CUTOFF)
        found_ranks.append(metrics.target_ranks(ranked, cases.targets))
    ranks = np.concatenate(found_ranks)
    facts: dict[str, Any] = {
        "asked": asked,
        "users": users,
        "recall": metrics.recall(ranks, CUTOFF).tolist(),
        "ndcg": metrics.ndcg(ranks, CUTOFF).tolist(),
        "training": {k: v for k, v in run.stages["train"].report.items() if k != "history"},
        "history": run.stages["train"].report["history"],
    }
    if config.task_names != TrainConfig().task_names:
        accuracies = title_accuracy(run, max_items=num_items, seed=0, progress=PROGRESS)
        facts["accuracies"] = [asdict(accuracy) for accuracy in accuracies]
        # Replayed text may hold the held-out items' descriptions: then they are no unseen text.
        texts = texts or (held_out_texts(run) if "G" in config.task_names and not config.replay else [])
        facts["perplexity"] = perplexities(run, config, texts) if texts else None
    write_json(result, facts)
    return facts


def _made_from(source: Run, config: TrainConfig) -> dict[str, dict[str, str]]:
    """Checksums of what a training starts from: the semantic IDs and, where it is a folder, the base."""
    resolved, adapter = resolve_base(config)
    base = base_checksums(resolved.base, adapter)
    return {"codes": source.require("tokenize").outputs, **({"base": base} if base else {})}


def _origin(folder: Path) -> dict[str, dict[str, str]]:
    """What `folder` was made from; its codes alone where nothing was noted, nothing where it is no run."""
    if (folder / _ORIGIN).is_file():
        return dict(read_json(folder / _ORIGIN))
    return {"codes": Run.open(folder).require("tokenize").outputs} if (folder / "manifest.json").is_file() else {}


def perplexities(run: Run, config: TrainConfig, texts: Sequence[str]) -> dict[str, float]:
    """Per word, of the trained model and of the base that it was made from, where that has read text."""
    found = {"trained": text_perplexity(run.path / "model", texts, adapter=adapter_folder(run))}
    return found if config.base == "scratch" else found | {"base": text_perplexity(config.base, texts)}


def table(results: dict[int, dict[str, dict[str, Any]]]) -> list[str]:
    """Markdown: a row per seed and one over all of them."""
    first = next(iter(results.values()))[MIXTURE]
    splits = " and ".join(first["asked"]["splits"])
    lines = [f"{len(first['users']):,} next items of {len(set(first['users'])):,} users, {splits} split", ""]
    lines += ["| seed | Recall@10 next-item | mixture | NDCG@10 next-item | mixture |", "|---|---|---|---|---|"]
    for seed, pair in results.items():
        means = [np.mean(pair[which][name]) for name in ("recall", "ndcg") for which in (NEXT_ITEM, MIXTURE)]
        lines.append(f"| {seed} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")
    for name in ("recall", "ndcg"):
        ratio, low, high = ratio_of_means(
            np.mean([pair[MIXTURE][name] for pair in results.values()], axis=0),
            np.mean([pair[NEXT_ITEM][name] for pair in results.values()], axis=0),
            first["users"],
        )
        lines.append(f"\n{name}@10, mixture / next-item over all seeds: {ratio:.3f} [{low:.3f}, {high:.3f}]")
    lines += ["", "| question | held out | " + " | ".join(f"seed {seed}" for seed in results) + " |"]
    lines.append("|---|---|" + "---|" * len(results))
    rows = zip(*(pair[MIXTURE]["accuracies"] for pair in results.values()), strict=True)
    for row in rows:
        shares = " | ".join(f"{100 * entry['accuracy']:.1f} %" for entry in row)
        lines.append(f"| `{row[0]['template']}` | {'yes' if row[0]['held_out'] else ''} | {shares} |")
    measured = [pair[MIXTURE]["perplexity"] for pair in results.values()]
    if None in measured:
        return lines
    for which in measured[0]:
        shown = ", ".join(f"{found[which]:.1f}" for found in measured)
        lines += ["", f"Perplexity per word of held-out text, {which}, by seed: {shown}"]
    return lines


def ratio_of_means(
    ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], users: Sequence[str]
) -> tuple[float, float, float]:
    """Mean of `ours` (C,) over that of `theirs` (C,), and its 95 % interval over resampled users.

    A user of two splits has two cases, which are drawn together: they are no independent news.
    """
    names, owner = np.unique(np.asarray(users), return_inverse=True)
    of_user = [np.bincount(owner, weights=values, minlength=len(names)) for values in (ours, theirs)]
    drawn = np.random.default_rng(0).integers(0, len(names), size=(BOOTSTRAP_SAMPLES, len(names)))
    ratios = of_user[0][drawn].sum(axis=1) / of_user[1][drawn].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(ours.mean() / theirs.mean()), float(low), float(high)


def compare(
    source: Run,
    config: TrainConfig,
    out: Path,
    *,
    seeds: list[int],
    num_items: int,
    splits: Sequence[Split] = ("test",),
    texts: Sequence[str] = (),
) -> list[str]:
    """Train and measure both on every seed; the table."""
    results: dict[int, dict[str, dict[str, Any]]] = {}
    for seed in seeds:
        mixed = config.model_copy(update={"seed": seed})
        alone = mixed.model_copy(update={"tasks": TrainConfig().tasks, "told": {}, "replay": (), "keep": "best"})
        results[seed] = {
            name: train_and_measure(
                source, chosen, out / f"{name}-{seed}", num_items=num_items, splits=splits, texts=texts
            )
            for name, chosen in ((MIXTURE, mixed), (NEXT_ITEM, alone))
        }
    return table(results)


def main() -> int:
    """Read the command line, train and measure, print the table."""
    parser = argparse.ArgumentParser(description="Next-item alone against a mixture of tasks.")
    parser.add_argument("run", type=Path, help="a tokenized run; it is not changed")
    parser.add_argument("--config", type=Path, required=True, help="YAML of `genrec train` with the mixture")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--splits", choices=get_args(Split), nargs="+", default=["test"], help="whose cases are ranked")
    parser.add_argument("--items", type=int, default=300, help="items that are asked for")
    parser.add_argument("--text", metavar="FILE[:fields]", help="text of which the perplexity is measured")
    given = parser.parse_args()
    try:
        seeds = [int(seed) for seed in given.seeds.split(",")]
        config = load_config(TrainConfig, given.config)
        lines = compare(
            Run.open(given.run),
            config,
            given.out,
            seeds=seeds,
            num_items=given.items,
            splits=given.splits,
            texts=list(TextSource.parse(given.text).documents()) if given.text else [],
        )
        print_lines(lines)
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
