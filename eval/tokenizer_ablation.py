"""What each way to turn items into semantic IDs is worth: same run, same generator, same budget, several seeds.

    python eval/tokenizer_ablation.py SOURCE --out runs/ablation --seeds 0,1,2 --jobs 2
    python eval/tokenizer_ablation.py SOURCE --out runs/ablation --variants "text;text+behaviour" --report-only

SOURCE is a run with embeddings of all modalities that take part (`genrec embed`). Each variant and seed is
tokenized and trained in a run of its own under OUT, with one thread, and leaves one JSON file in `OUT/results`; what
is there is not made again with the same options and vectors, so a killed ablation goes on. The table and `ablation.png`
come from those files. Figures are of the test split; the choice of a default is made on the validation figures beside
them. Where ingest held items out (`--cold-fraction`), the table ends with Recall@50 of these, over all items and among
the held-out ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from genrec import metrics, pipeline
from genrec.cold_evaluation import evaluate_cold
from genrec.config import TokenizeConfig, TrainConfig, build_config, dump_config, load_config
from genrec.data.sequences import EvaluationCases
from genrec.data.splits import cold_cases, cold_items, evaluation_cases
from genrec.errors import ConfigError, GenrecError
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run, read_json, write_json
from genrec.tokenizers.rqvae_training import RQVAEOptions
from genrec.tokenizers.stage import SHARES
from genrec.trie_filters import ItemFilter

_K = 10
_COLD_FIGURE = "recall@50"
_BEAM_WIDTH = 20
_MADE_HERE = {"semantic_ids", "trie", "model", "training", "evaluation", "prompts"}


@dataclass(frozen=True)
class Variant:
    """One way: one tokenizer, or one per view, whose recommendations are merged and which share the budget."""

    name: str
    views: tuple[dict[str, Any], ...] = field(default=({},))
    training: dict[str, Any] = field(default_factory=dict)  # what is trained otherwise than CONFIG says


def variants(modalities: tuple[str, ...]) -> list[Variant]:
    """The ways that these modalities allow; content is all but behaviour and the aligned space."""
    content = tuple(name for name in modalities if name != "behaviour" and not name.startswith("aligned"))
    found = [Variant(name, ({"modalities": [name]},)) for name in content]
    if len(content) > 1:
        found.append(Variant("+".join(content), ({"modalities": content},)))
        found.append(Variant("+".join(content) + " as they are", ({"modalities": content, "weights": "none"},)))
    joint = "+".join(content)
    found.append(Variant(f"{joint}, behaviour as a loss", ({"modalities": content, "behaviour_loss": 0.3},)))
    if "aligned" in modalities:
        found.append(Variant("aligned with behaviour", ({"modalities": ["aligned"]},)))
    everything = content
    both: dict[str, Any] = {"modalities": ["text", "behaviour"]}
    if "behaviour" in modalities:
        everything = (*content, "behaviour")
        found += [
            Variant("behaviour", ({"modalities": ["behaviour"]},)),
            Variant("text+behaviour", (both,)),
            Variant("text+behaviour, equal shares of the variance", ({**both, "weights": {"behaviour": 1.0}},)),
            Variant("text+behaviour, codes had by equally many items", ({**both, "balance": 0.0},)),
            Variant("text+behaviour and items' own tokens", (both,), {"item_share": TrainConfig().item_share}),
        ]
        if len(content) > 1:
            found.append(Variant("+".join(everything), ({"modalities": everything},)))
    own = {"item_share": TrainConfig().item_share}
    found.append(Variant("text and items' own tokens", ({"modalities": ["text"]},), own))
    if len(content) > 1:
        found.append(Variant("+".join(everything) + " and items' own tokens", ({"modalities": everything},), own))
    found.append(Variant("streams of " + ", ".join(everything), tuple({"modalities": [one]} for one in everything)))
    best = ["text", "behaviour"] if "behaviour" in modalities else list(content)
    found.append(Variant("residual k-means " + "+".join(best), ({"modalities": best, "method": "residual-kmeans"},)))
    found.append(Variant("item-id", ({"modalities": ["text"], "method": "item-id", "levels": 1},)))
    found.append(Variant("random", ({"modalities": ["text"], "method": "random"},)))
    return found


def measure(source: Path, out: Path, variant: Variant, seed: int, config: TrainConfig, max_users: int) -> Path:
    """Make one cell of the table in runs of its own, and its JSON file; the runs are deleted afterwards."""
    torch.set_num_threads(1)
    started = time.monotonic()
    cell = out / "cells" / f"{_slug(variant.name)}-{seed}"
    shutil.rmtree(cell, ignore_errors=True)
    views, health = [], []
    epochs = max(1, round(config.epochs / len(variant.views)))
    share = config.model_copy(update={"seed": seed, "epochs": epochs, **variant.training})
    for number, options in enumerate(variant.views):
        run = _copy(source, cell / str(number))
        tokenized = pipeline.tokenize(run, _tokenize_config(variant, options, seed))
        health.append({name: tokenized.facts[name] for name in ("levels", "prefix_lift", "colliding_before")})
        trained = pipeline.train(run, share)
        views.append(Recommender.load(run.path, beam_width=_BEAM_WIDTH))
    recommender = views[0].with_views(views[1:])
    result = {
        "asked": _asked(source, config, max_users) | _way(variant, seed),
        "variant": variant.name,
        "seed": seed,
        "health": health,
        "parameters": trained.facts["num_parameters"] * len(views),
        "validation": _ranks(recommender, source, "validation", max_users),
        "test": _ranks(recommender, source, "test", max_users),
    }
    if cold := _cold(recommender, source, max_users):
        result["cold"] = cold
    result["seconds"] = round(time.monotonic() - started)
    file = _file(out, variant, seed)
    write_json(file, result)
    shutil.rmtree(cell)
    return file


def _asked(source: Path, config: TrainConfig, max_users: int) -> dict[str, Any]:
    """What all cells of a table have in common: the same generator, budget, users and vectors."""
    run = Run.open(source)
    made = {stage: run.require(stage).outputs for stage in ("ingest", "embed", "align") if stage in run.stages}
    return {"config": dump_config(config), "max_users": max_users, "source": made}


def _way(variant: Variant, seed: int) -> dict[str, Any]:
    """What a cell has of its own, the defaults of now included: a default that changes makes its cells again."""
    views = [dump_config(_tokenize_config(variant, options, seed)) for options in variant.views]
    return {"views": views, "training": variant.training, "rqvae": asdict(RQVAEOptions()), "shares": SHARES}


def _tokenize_config(variant: Variant, options: dict[str, Any], seed: int) -> TokenizeConfig:
    return build_config(TokenizeConfig, {**options, "seed": seed}, source=variant.name)


def _is_made(options: argparse.Namespace, cell: tuple[Variant, int], asked: dict[str, Any]) -> bool:
    file = _file(options.out, *cell)
    return file.exists() and read_json(file).get("asked") == asked | _way(*cell)


def _ranks(
    recommender: Recommender, source: Path, split: Literal["validation", "test"], max_users: int
) -> list[float | None]:
    """Rank of every user's target among the first ten, or None; the same users for every cell."""
    cases = evaluation_cases(Run.open(source), split).sample(max_users, seed=0)
    answers = recommender.rank([RankRequest(history) for history in cases.histories], _K)
    ranked = metrics.pad_rankings([[item.item_index for item in answer] for answer in answers], _K)
    ranks = metrics.target_ranks(ranked, cases.targets)
    return [float(rank) if np.isfinite(rank) else None for rank in ranks]


def _cold(recommender: Recommender, source: Path, max_cases: int) -> dict[str, dict[str, float]]:
    """Recall@50 of held-out items by who answers and among which items; empty where ingest held none out."""
    cold = cold_items(Run.open(source))
    if not cold.any():
        return {}

    def ask(cases: EvaluationCases, *, k: int, allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        only = ItemFilter.allowing(recommender.trie, allowed)
        answers = recommender.rank([RankRequest(history, allowed=only) for history in cases.histories], k)
        return metrics.pad_rankings([[item.item_index for item in answer] for answer in answers], k)

    cases = cold_cases(Run.open(source)).sample(max_cases, seed=0)
    found = evaluate_cold(cases, cold=cold, live=np.ones_like(cold), baselines=[], ask_model=ask, seed=0)
    return {
        method.name: {
            "all": method.among_all[_COLD_FIGURE].value,
            "cold": method.among_cold[_COLD_FIGURE].value,
        }
        for method in found.methods
    }


def _copy(source: Path, target: Path) -> Run:
    """A run with the catalogue and the vectors of another, by hard links: runs replace files, never write in them."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.name in _MADE_HERE:
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, copy_function=os.link)
        else:
            os.link(path, target / path.name)
    return Run.open(target)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _file(out: Path, variant: Variant, seed: int) -> Path:
    return out / "results" / f"{_slug(variant.name)}-{seed}.json"


def table(results: list[dict[str, Any]], reference: str) -> str:
    """Markdown: one line per variant, figures as mean over seeds; against `reference`, paired over the same users."""
    lines = [
        "| semantic IDs from | seeds | R@10 | N@10 | spread of N@10 | N@10 against "
        f"{reference} (95 % interval) | validation N@10 | lift of levels 1, 2 | codes used | colliding before |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    with_cold = [result for result in results if "cold" in result]
    if with_cold:
        chance = with_cold[0]["cold"]["random"]
        lines[0] += (
            f" cold R@50 of all (random {chance['all']:.4f}) | cold R@50 of cold (random {chance['cold']:.4f}) |"
        )
        lines[1] += "---|---|"
    for name in dict.fromkeys(result["variant"] for result in results):
        cells = [result for result in results if result["variant"] == name]
        by_seed = np.array([metrics.ndcg(_as_ranks(cell["test"]), _K).mean() for cell in cells])
        recall = np.mean([metrics.recall(_as_ranks(cell["test"]), _K).mean() for cell in cells])
        validation = np.mean([metrics.ndcg(_as_ranks(cell["validation"]), _K).mean() for cell in cells])
        difference = "–"
        if name != reference:
            shared = _seeds(results, name) & _seeds(results, reference)  # a seed that one lacks is in neither mean
            base = _per_user(results, reference, "test", seeds=shared)
            values = _per_user(results, name, "test", seeds=shared) - base
            low, high = metrics.bootstrap_intervals(values[:, None], seed=0)[0]
            difference = f"{values.mean():+.4f} ({low:+.4f} to {high:+.4f}), {values.mean() / base.mean():+.0%}"
            difference += "" if shared == _seeds(results, name) else f", seeds {sorted(shared)}"
        seeds = ", ".join(str(cell["seed"]) for cell in cells)
        lines.append(
            f"| {name} | {seeds} | {recall:.4f} | {by_seed.mean():.4f} | {np.ptp(by_seed):.4f} | {difference} "
            f"| {validation:.4f} | {_lifts(cells)} | {_used(cells)} | {_colliding(cells)} |"
            + (f" {_cold_recall(cells, 'all')} | {_cold_recall(cells, 'cold')} |" if with_cold else "")
        )
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], file: Path) -> None:
    """NDCG@10 of every variant with its interval over users, and a dot per seed."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(result["variant"] for result in results))
    figure = Figure(figsize=(8, 0.9 + 0.36 * len(names)), layout="constrained")
    panel = figure.subplots()
    for row, name in enumerate(names):
        values = _per_user(results, name, "test")
        low, high = metrics.bootstrap_intervals(values[:, None], seed=0)[0]
        panel.plot([low, high], [row, row], color="#0072b2", linewidth=2)
        panel.plot(values.mean(), row, "o", color="#0072b2", markersize=7)
        seeds = [metrics.ndcg(_as_ranks(one["test"]), _K).mean() for one in results if one["variant"] == name]
        panel.plot(seeds, [row] * len(seeds), "|", color="#d55e00", markersize=11)
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set_xlabel("NDCG@10 on test: mean and 95 % interval over users; ticks are seeds")
    panel.set_xlim(left=0)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=110)


def _as_ranks(ranks: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.inf if rank is None else rank for rank in ranks])


def _seeds(results: list[dict[str, Any]], name: str) -> set[int]:
    return {result["seed"] for result in results if result["variant"] == name}


def _per_user(
    results: list[dict[str, Any]], name: str, split: str, *, seeds: set[int] | None = None
) -> NDArray[np.float64]:
    """NDCG@10 of every user, (users,), mean over the seeds."""
    chosen = [one for one in results if one["variant"] == name and (seeds is None or one["seed"] in seeds)]
    ranks = np.stack([_as_ranks(one[split]) for one in chosen])
    return np.asarray(metrics.ndcg(ranks, _K).mean(axis=0))


def _lifts(cells: list[dict[str, Any]]) -> str:
    lifts = [view["prefix_lift"][:2] for cell in cells for view in cell["health"] if len(cell["health"]) == 1]
    return ", ".join(f"{value:.1f}" for value in np.mean(lifts, axis=0)) if lifts else "–"


def _used(cells: list[dict[str, Any]]) -> str:
    levels = [level for cell in cells for view in cell["health"] for level in view["levels"][:4]]
    return f"{sum(level['used'] for level in levels) / sum(level['size'] for level in levels):.0%}"


def _colliding(cells: list[dict[str, Any]]) -> str:
    return f"{np.mean([view['colliding_before'] for cell in cells for view in cell['health']]):.1%}"


def _cold_recall(cells: list[dict[str, Any]], pool: str) -> str:
    """Mean over the seeds, and the seeds from lowest to highest."""
    values = sorted(cell["cold"]["model"][pool] for cell in cells)
    return f"{np.mean(values):.4f} ({values[0]:.4f} to {values[-1]:.4f})"


def main() -> int:
    """Read the command line, make what is missing, print the table and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="run with embeddings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("train/configs/ablation.yaml"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--variants", help="names from the table, separated by semicolons; all that are possible")
    parser.add_argument("--max-users", type=int, default=5000, help="users that are asked, of each split")
    parser.add_argument("--jobs", type=int, default=2, help="cells at once, of one thread each")
    parser.add_argument("--reference", default="text")
    parser.add_argument(
        "--beside",
        metavar="LABEL=OUT",
        help="also the rows of another ablation of the same users, such as one with missing posters",
    )
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    try:
        chosen = _chosen(options.source, options.variants)
        cells = [(variant, int(seed)) for seed in options.seeds.split(",") for variant in chosen]
        config = load_config(TrainConfig, options.config)
        asked = _asked(options.source, config, options.max_users)
        missing = [] if options.report_only else [cell for cell in cells if not _is_made(options, cell, asked)]
        (options.out / "results").mkdir(parents=True, exist_ok=True)
        _make(options, config, missing)
        ordered = [cell for variant in chosen for cell in cells if cell[0] is variant]
        results = [read_json(_file(options.out, *cell)) for cell in ordered if _is_made(options, cell, asked)]
        results += _beside(options.beside, results) if options.beside else []
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    if any(result["variant"] == options.reference for result in results):
        print(table(results, options.reference))
        plot(results, options.out / "ablation.png")
    return 0


def _chosen(source: Path, names: str | None) -> list[Variant]:
    run = Run.open(source)
    aligned = ("aligned",) if "align" in run.stages else ()
    embedded = tuple(run.require("embed").report["modalities"])
    possible = variants((*embedded, *aligned))
    if names is None:
        return possible
    known = {variant.name: variant for variant in possible}
    if unknown := [name for name in names.split(";") if name not in known]:
        raise ConfigError(f"there is no variant {unknown[0]!r}.", f"Known: {'; '.join(known)}.")
    return [known[name] for name in names.split(";")]


def _beside(text: str, here: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells of another ablation of as many users, whose ways have the label in their names."""
    label, _, folder = text.partition("=")
    found = [read_json(file) for file in sorted((Path(folder or "?") / "results").glob("*.json"))]
    if not label or not found:
        raise ConfigError(f"--beside {text!r} names no ablation.", "Give LABEL=OUT, where OUT was --out of one.")
    for one in found:
        if any(_terms(one) != _terms(other) for other in here[:1]):
            raise ConfigError(
                f"{folder} asked other users, or with another budget.",
                "Make both ablations of the same interactions with the same options.",
            )
    return [{**one, "variant": f"{one['variant']}, {label}"} for one in found]


def _terms(cell: dict[str, Any]) -> list[Any]:
    """What two cells share that may stand in one table: who is asked, and the budget."""
    asked = cell["asked"]
    return [asked["config"], asked["max_users"], asked["source"]["ingest"]["splits.parquet"]]


def _make(options: argparse.Namespace, config: TrainConfig, cells: list[tuple[Variant, int]]) -> None:
    # A process per cell: one thread each is faster than two threads for one model of this size.
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        jobs = [
            pool.submit(measure, options.source, options.out, variant, seed, config, options.max_users)
            for variant, seed in cells
        ]
        for number, job in enumerate(as_completed(jobs), start=1):
            print(f"[{number}/{len(jobs)}] {job.result()}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
