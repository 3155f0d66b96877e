"""From raw files to the table: every stage with its defaults, once per seed, and the spread over the seeds.

    python eval/recipe.py tables items.jsonl.gz interactions.csv.gz --out runs/beauty --seeds 0,1,2
    python eval/recipe.py movielens FOLDER --out runs/films --config train/configs/default.yaml
    python eval/recipe.py amazon reviews.json.gz metadata.json.gz --out runs/toys --max-users 10000
    python eval/recipe.py … --method item-id

Each seed has a run of its own, OUT/seed-N: ingest, embed, tokenize, train, evidence, evaluate. A stage that is finished
is not made again and a killed training goes on, so the same command continues. Other options make the stages again that
they change, with all that is built on these; what was tuned stays tuned, also without --tune. Choices inside the stages
look at the validation split; the table is of the test split.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrec import pipeline, tuning
from genrec.config import (
    Config,
    EmbedConfig,
    EvaluateConfig,
    EvidenceConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
    TuneConfig,
    build_config,
    load_config,
)
from genrec.console import ConsoleProgress
from genrec.data.ingest import ingest
from genrec.encoders.embed import embed
from genrec.errors import ConfigError, GenrecError
from genrec.evaluation import check_config
from genrec.preparation import resolve_base
from genrec.progress import SILENT, Progress
from genrec.run import Run, read_json
from genrec.weighing import weigh_evidence

METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")


@dataclass(frozen=True)
class Recipe:
    """What every stage is asked; the seed of `training` is that of all."""

    training: TrainConfig
    evaluation: EvaluateConfig
    ingest: IngestConfig = field(default_factory=IngestConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    tokenize: TokenizeConfig = field(default_factory=TokenizeConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    tune: TuneConfig | None = None  # None: baselines as they come. Its seed is the same for all seeds of a table.


def run_seed(
    folder: Path, source: str, files: Sequence[Path], recipe: Recipe, *, progress: Progress = SILENT
) -> dict[str, Any]:
    """All stages in `folder`, or what is left of them; the evaluation as `evaluation/test.json` has it.

    Vectors that another seed beside it has in its cache are not made again: they do not depend on the seed.
    """
    run, seed = Run.create(folder), {"seed": recipe.training.seed}
    codes, evidence = recipe.tokenize.model_copy(update=seed), recipe.evidence.model_copy(update=seed)
    training, _ = resolve_base(recipe.training)  # as the stage records it
    made: set[str] = set()  # in this call
    cache = folder / "embeddings" / "cache"
    for other in sorted(folder.parent.glob("seed-*/embeddings/cache")):
        if not cache.exists():
            shutil.copytree(other, cache)

    def train() -> object:  # a checkpoint of other codes is of no use
        return pipeline.train(run, training, resume="trie" not in made, progress=progress)

    stages: list[tuple[str, Config, Callable[[], object]]] = [
        ("ingest", recipe.ingest, lambda: ingest(run, source, list(files), recipe.ingest, progress=progress)),
        ("embed", recipe.embed, lambda: embed(run, recipe.embed, progress=progress)),
        ("trie", codes, lambda: pipeline.tokenize(run, codes, progress=progress)),
        ("train", training, train),
        ("evidence", evidence, lambda: weigh_evidence(run, evidence, progress=progress)),
    ]
    if tune := recipe.tune:
        stages.append(("tune", tune, lambda: tuning.tune_baselines(run, tune, progress=progress)))
    evaluation = recipe.evaluation.model_copy(update=seed)  # of the networks among the baselines; the users stay
    stages.append(("evaluate:test", evaluation, lambda: pipeline.evaluate(run, evaluation, progress=progress)))
    names = [name for name, _, _ in stages]
    for name, config, stage in stages:
        asked = {"source": source, "paths": [str(path) for path in files]} if name == "ingest" else {}
        if not _is_made(run, name, config, asked) or (name == names[-1] and _is_older(run, name, names)):
            progress.say(f"{folder}: {name}")
            stage()
            made.add(name)
    found: dict[str, Any] = read_json(folder / "evaluation" / "test.json")
    # What evaluation and set-up cost is not part of a training's price, so every stage stands for itself.
    found["stage_seconds"] = {name: round(run.require(name, verify=False).seconds) for name in names}
    return found


def _is_made(run: Run, name: str, config: Config, asked: dict[str, Any]) -> bool:
    """Whether a stage is there, made with this configuration and what else is `asked` of it.

    What the manifest does not say of an option is its default: the option is younger than the stage.
    """
    stages = run.stages
    record = stages.get("tokenize" if name == "trie" else name)  # the trie itself has nothing to choose
    if record is None or name not in stages or any(record.config.get(key) != asked[key] for key in asked):
        return False
    recorded = {key: value for key, value in record.config.items() if key not in asked}
    try:
        return build_config(type(config), recorded, source="manifest.json") == config
    except ConfigError:
        return False


def _is_older(run: Run, name: str, others: Sequence[str]) -> bool:
    """Whether one of the others was recorded after this stage, whose record does not list every file that it read."""
    recorded = list(run.stages)
    return any(other in recorded[recorded.index(name) :] for other in others if other != name)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row per method, mean and range over the seeds; then the model against each other one, by seed."""
    names = list(dict.fromkeys(method["name"] for result in results for method in result["methods"]))
    lines = ["| method | " + " | ".join(METRICS) + " | coverage |", "|---" * (len(METRICS) + 2) + "|"]
    for name in names:
        rows = [method for result in results for method in result["methods"] if method["name"] == name]
        few = "" if len(rows) == len(results) else f" ({len(rows)} of {len(results)} seeds)"
        cells = [_spread([row["metrics"][metric]["value"] for row in rows]) for metric in METRICS]
        lines.append(f"| {name}{few} | " + " | ".join(cells) + f" | {_spread([row['coverage'] for row in rows])} |")
    lines += ["", "NDCG@10 of the model minus that of another method, with a 95 % interval over users, per seed:"]
    for name in names[1:]:
        pairs = [
            comparison["difference"]
            for result in results
            for comparison in result["comparisons"]
            if comparison["baseline"] == name
        ]
        words = ", ".join(f"{pair['value']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]" for pair in pairs)
        lines.append(f"- {name}: {words}")
    seconds = [", ".join(f"{name} {time}" for name, time in result["stage_seconds"].items()) for result in results]
    return "\n".join([*lines, "", "Seconds per stage, per seed: " + "; ".join(seconds)])


def _spread(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Read the command line, make what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=("tables", "movielens", "amazon"), help="what the files are")
    parser.add_argument("files", nargs="+", type=Path, help="as `genrec ingest` takes them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "train" / "configs" / "default.yaml")
    parser.add_argument("--method", default="rqvae", help="of `genrec tokenize`")
    parser.add_argument("--ties", default="file", help="of `genrec ingest`: file or shuffle")
    parser.add_argument("--on-bad-row", default="stop", help="of `genrec ingest`: stop or skip")
    parser.add_argument("--seeds", type=_seeds, default="0,1,2", help="numbers with commas")
    parser.add_argument("--baselines", default=",".join(EvaluateConfig().baselines), help="names with commas")
    parser.add_argument(
        "--max-users", type=int, help="evaluate a seeded sample of so many test users, of every seed the same"
    )
    parser.add_argument("--tune", type=int, metavar="TRIALS", help="as `genrec tune`, of the baselines of --tune-names")
    parser.add_argument(
        "--tune-names",
        help="names with commas; if not given, those of --baselines that count; others train in every trial",
    )
    given = parser.parse_args()
    if given.tune_names and not given.tune:
        parser.error("--tune-names says what is tuned, --tune how many trials each has: give both.")
    try:
        training = load_config(TrainConfig, given.config)
        evaluation = build_config(
            EvaluateConfig,
            {"baselines": tuple(given.baselines.split(",")), "max_users": given.max_users},
            source="options",
        )
        tokenize = build_config(TokenizeConfig, {"method": given.method}, source="options")
        counted = tuple(name for name in TuneConfig().baselines if name in evaluation.baselines)
        tuned = tuple(given.tune_names.split(",")) if given.tune_names else counted
        tune = (
            build_config(TuneConfig, {"baselines": tuned, "trials": given.tune}, source="--tune")
            if given.tune
            else None
        )
        read = build_config(IngestConfig, {"ties": given.ties, "on_bad_row": given.on_bad_row}, source="options")
        results = []
        check_config(evaluation, with_model=True)  # now, and not after hours of training
        if tune:
            tuning.check_config(tune)
        for seed in given.seeds:
            seeded = training.model_copy(update={"seed": seed})
            recipe = Recipe(seeded, evaluation, ingest=read, tokenize=tokenize, tune=tune)
            folder = given.out / f"seed-{seed}"
            results.append(run_seed(folder, given.source, given.files, recipe, progress=ConsoleProgress()))
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
