"""Compare what learns beside one base: full fine-tuning, LoRA, QLoRA, a soft prompt; print a Markdown table.

    python eval/adapters.py RUN --base BASE --out DIR [--variants FILE.yaml] [--only full,lora-16] [--seeds 0 1 2]
    python eval/adapters.py RUN --base BASE --out DIR --variants CURVE.yaml --splits validation test

RUN has semantic IDs (genrec tokenize); it is copied for every row, never changed. Each row is `genrec train` in a
process of its own, whose peak memory the operating system tells, then `genrec evaluate` on the splits asked for;
settings are chosen by validation alone. A training that is there already, DIR/NAME-SEED/, is not made again with the
same options, semantic IDs and base. FILE.yaml maps names to options of genrec.config.TrainConfig.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from genrec import pipeline
from genrec.config import EvaluateConfig, TrainConfig, build_config
from genrec.data.splits import Split
from genrec.errors import ModelError
from genrec.preparation import base_checksums, resolve_base
from genrec.run import Run, write_json

COMMON: dict[str, Any] = {
    "max_history_items": 25,
    "epochs": 4,
    "row_epochs": 1,
    "row_learning_rate": 4e-3,
    "batch_tokens": 2048,
    "dropout": 0.1,
    "validation_users": 200,
    "validate_every": 2,
    "patience": 2,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 2e-3},
    "lora-8": {"adapter": "lora", "learning_rate": 2e-3, "lora": {"rank": 8, "alpha": 16}},
    "lora-32": {"adapter": "lora", "learning_rate": 2e-3, "lora": {"rank": 32, "alpha": 64}},
    "qlora-nf4-32": {"adapter": "qlora", "learning_rate": 2e-3, "lora": {"rank": 32, "alpha": 64}},
    "prompt-16": {"adapter": "prompt", "learning_rate": 4e-3},
}
_LEFT_OUT = ("model", "adapter", "training", "evaluation")  # of a run that is copied to be trained anew


def measure(
    run: Path, base: str, out: Path, *, name: str, options: dict[str, Any], seed: int, splits: Sequence[Split]
) -> list[dict[str, Any]]:
    """A row per split: a copy of the run is trained with these options, once, and evaluated."""
    copy = out / f"{name}-{seed}"
    trained = _trained(run, copy, {**COMMON, **options, "base": base, "seed": seed})
    return [{**trained, "name": name, "seed": seed, "split": split, **_ranked(copy, seed, split)} for split in splits]


def _ranked(run: Path, seed: int, split: Split) -> dict[str, Any]:
    """Recall@10 and NDCG@10 of the model alone, as `genrec evaluate` has them; read where they are there already."""
    file = run / "evaluation" / f"{split}.json"  # not that of the run that was copied, which may have been evaluated
    if not file.is_file():
        pipeline.evaluate(Run.open(run), EvaluateConfig(baselines=(), seed=seed, split=split))
    report = json.loads(file.read_text(encoding="utf-8"))
    figures = next(method["metrics"] for method in report["methods"] if method["name"] == "model")
    return {metric: figures[metric] for metric in ("recall@10", "ndcg@10")}


def _trained(run: Path, copy: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What a training cost, from `cost.json` of the copy where it was made with the same options from the same."""
    cost = copy / "cost.json"
    resolved, adapter = resolve_base(build_config(TrainConfig, options, source="options"))
    made_from = {
        "codes": Run.open(run).require("tokenize").outputs,
        "base": base_checksums(resolved.base, adapter),
    }
    if cost.is_file():
        before = json.loads(cost.read_text(encoding="utf-8"))
        if (before["options"], before.get("made_from")) == (options, made_from):
            return dict(before["found"])
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    config = copy / "train.yaml"
    config.write_text(yaml.safe_dump(options), encoding="utf-8")
    report, peak_mb = _train(copy, config)
    found = {key: report[key] for key in ("num_trained", "num_parameters", "tokens_per_second", "epochs", "history")}
    found["peak_mb"] = round(peak_mb)
    write_json(cost, {"options": options, "made_from": made_from, "found": found})
    return found


def _train(run: Path, config: Path) -> tuple[dict[str, Any], float]:
    """The report of `genrec train` and the peak of its process's memory in MB. Raises ModelError where it fails."""
    command = [sys.executable, "-m", "genrec", "train", str(run), "--config", str(config), "--json"]
    with (run / "report.json").open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream)
        _, status, usage = os.wait4(process.pid, 0)  # the memory of this child alone
    if status:
        raise ModelError(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}.")
    return dict(json.loads((run / "report.json").read_text(encoding="utf-8"))), usage.ru_maxrss / 1024


def table(rows: list[dict[str, Any]]) -> list[str]:
    """One line per row, with NDCG as a share of that of `full` with the same seed on the same split."""
    full = {(row["seed"], row["split"]): row["ndcg@10"]["value"] for row in rows if row["name"] == "full"}
    lines = [
        "| what learns | seed | split | Recall@10 | NDCG@10 [95 %] | of full | trained | of all | peak MB | tokens/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ndcg = row["ndcg@10"]
        whole = full.get((row["seed"], row["split"]))
        share = f"{ndcg['value'] / whole:.1%}" if whole else ""
        interval = f"{ndcg['value']:.4f} [{ndcg['low']:.4f}, {ndcg['high']:.4f}]"
        lines.append(
            f"| {row['name']} | {row['seed']} | {row['split']} "
            f"| {row['recall@10']['value']:.4f} | {interval} | {share} | "
            f"{row['num_trained']:,} | {row['num_trained'] / row['num_parameters']:.0%} | {row['peak_mb']:,} | "
            f"{row['tokens_per_second']:,} |"
        )
    return lines


def main() -> int:
    """Read the options, make the rows that are missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", type=Path, help="YAML: name → options, in place of those built in")
    parser.add_argument("--only", help="names with commas")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--splits", nargs="+", choices=get_args(Split), default=["test"], help="whose next items")
    given = parser.parse_args()
    variants = VARIANTS if given.variants is None else yaml.safe_load(given.variants.read_text(encoding="utf-8"))
    names = list(variants) if given.only is None else given.only.split(",")
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in given.seeds:
        for name in names:
            splits, options = given.splits, variants[name]
            rows += measure(given.run, given.base, given.out, name=name, options=options, seed=seed, splits=splits)
            print("\n".join(table(rows[-len(splits) :])[2:]), flush=True)
    print("\n".join(["", *table(rows)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
