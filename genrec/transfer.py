"""One catalogue's tokenizer and model on another catalogue: zero-shot, fine-tuned, and beside what they must beat.

Every variant is a run of its own under OUT, made of a copy of the target's tables and vectors, so the target
stays as it is and each variant can be inspected and used like any run. A variant that is finished is not made
again: what it was made from and with stands in its `transfer.json`.

    OUT/zero-shot/  OUT/fine-tuned/  OUT/scratch-shared-ids/  OUT/scratch-own-ids/
    OUT/transfer.json  transfer.md  transfer.svg

C cases.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genrec import metrics, pipeline
from genrec.config import TokenizeConfig, TrainConfig, TransferConfig, build_config, dump_config
from genrec.data.catalog import Catalog, removed_items
from genrec.data.interactions import read_run_table
from genrec.data.splits import cold_items, evaluation_cases
from genrec.encoders.base import vouched_modalities
from genrec.errors import ConfigError, DataError, ModelError, RunError
from genrec.evaluation import check_config, evaluate
from genrec.files import array_stream, atomic_file
from genrec.journal import sole_writer
from genrec.preparation import names_others
from genrec.progress import SILENT, Progress
from genrec.recommender import RankRequest, Recommender
from genrec.report import MODEL, Estimate, MethodResult
from genrec.run import Run, StageReport, read_json, write_json
from genrec.tokenizers.base import check_vectors
from genrec.tokenizers.files import tokenizer_checksum
from genrec.tokenizers.stage import ItemVectors, wanted_modalities
from genrec.tokenizers.transfer import matching_vectors, source_config
from genrec.transfer_report import (
    FINE_TUNED,
    OWN_IDS,
    PAIRS,
    SHARED_IDS,
    ZERO_SHOT,
    Difference,
    TransferResult,
    TransferRow,
    markdown,
    plot_svg,
    terminal_lines,
)
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import VOCABULARY_FILE, SidVocabulary

_STATE_FILE = "transfer.json"
_CASES_FILE = "ndcg.npy"  # of every case, so that variants can be compared case by case


@dataclass(frozen=True)
class _Variant:
    name: str
    shared_ids: bool  # codes of the source's frozen tokenizer, or learned on the target
    model: Literal["source", "trained further", "fresh"]


_VARIANTS = (
    _Variant(ZERO_SHOT, True, "source"),
    _Variant(FINE_TUNED, True, "trained further"),
    _Variant(SHARED_IDS, True, "fresh"),
    _Variant(OWN_IDS, False, "fresh"),
)


@dataclass(frozen=True)
class _Plan:
    """Everything that the variants are made from and with."""

    source: Run
    target: Run
    out: Path
    config: TransferConfig
    train: TrainConfig
    tokenize: TokenizeConfig

    @property
    def stages(self) -> list[str]:
        """Stages of the target that every variant begins with."""
        return ["ingest", "embed", *(["align"] if "align" in self.target.stages else [])]

    def identity(self, variant: _Variant) -> dict[str, Any]:
        """What decides a variant's figures; equal identities need not be made twice."""
        told: dict[str, Any] = {
            "target": {stage: self.target.require(stage).outputs for stage in self.stages},
            "evaluate": dump_config(self.config.evaluate),
        }
        if variant.shared_ids:
            told["tokenizer"] = tokenizer_checksum(self.source.path / "semantic_ids" / "tokenizer")
            told["collisions"] = self.config.collisions or source_config(self.source).collisions
        else:
            told["tokenize"] = dump_config(self.tokenize)
        if variant.model != "fresh":
            told["model"] = self.source.require("train").outputs
        if variant.model != "source":
            told["train"] = dump_config(self.train)
        return told


def transfer(
    source: Run, target: Run, config: TransferConfig, *, out: Path | None = None, progress: Progress = SILENT
) -> StageReport:
    """Make every variant's run and the table over them; `out` None is `transfer/` of the target.

    The source is a trained run, the target an ingested and embedded one; neither is changed. Raises RunError
    where a stage is missing, the vectors do not match or another transfer writes there, ModelError for a source model
    that cannot be trained further, ConfigError for options that do not go together.
    """
    plan = _plan(source, target, config, out=out or target.path / "transfer")
    with sole_writer(plan.out, "genrec transfer"):
        return _transferred(plan, progress)


def _transferred(plan: _Plan, progress: Progress) -> StageReport:
    skipped = _skipped(plan)
    variants = [variant for variant in _VARIANTS if variant.name not in skipped]
    for number, variant in enumerate(variants, start=1):
        progress.say(f"[{number}/{len(variants)}] {variant.name}")
        _make(plan, variant, progress)
    result = _collect(plan, variants, skipped)
    write_json(plan.out / "transfer.json", result.as_json)
    for name, text in (("transfer.svg", plot_svg(result)), ("transfer.md", markdown(result, plot="transfer.svg"))):
        with atomic_file(plan.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    words = [*terminal_lines(result), f"Report: {plan.out / 'transfer.md'}"]
    following = f"genrec recommend {plan.out / FINE_TUNED} --input users.jsonl --output recs.jsonl"
    return StageReport("transfer", result.facts, words, following)


def _plan(source: Run, target: Run, config: TransferConfig, *, out: Path) -> _Plan:
    """Refuse what could only fail later, and resolve what was left to the source."""
    check_config(config.evaluate, with_model=True)
    for run in (source, target):
        if run.path.resolve() in [(out / variant.name).resolve() for variant in _VARIANTS]:
            raise ConfigError(f"{run.path} is where a variant would be made.", "Name another folder with --out.")
    for run, stages in ((source, ("embed", "tokenize", "trie", "train")), (target, ("ingest", "embed"))):
        for stage in stages:
            run.require(stage)
    matching_vectors(target, source, same_encoder=config.same_encoder)
    known = SidVocabulary.load(source.path / "model").tokenizer_checksum
    if known != tokenizer_checksum(source.path / "semantic_ids" / "tokenizer"):
        raise ModelError(
            f"{source.path / 'model'} does not say that it knows the tokenizer of {source.path} "
            f"(checksum {known[:12] or 'unknown'}).",
            f"Run `genrec train {source.path}` again.",
        )
    recorded = source.require("train").config
    train = config.train or build_config(TrainConfig, recorded, source=f"{source.path}, stage train")
    if config.epochs is not None:
        train = train.model_copy(update={"epochs": config.epochs})
    if train.base != "scratch" and any(
        (Path(train.base) / name).exists() for name in (VOCABULARY_FILE, "manifest.json")
    ):
        raise ConfigError(
            f"The rows from scratch would start from {train.base}, which knows semantic IDs already.",
            "Give the base that the source started from: `train: {base: …}` in a file for --config.",
        )
    return _Plan(source, target, out, config, train, config.tokenize or source_config(source))


def _skipped(plan: _Plan) -> dict[str, str]:
    """Rows that are not made, and why."""
    if not plan.config.own_tokenizer:
        return {OWN_IDS: "it was not asked for."}
    given = set(vouched_modalities(plan.target))
    asked = {*(plan.tokenize.modalities or ()), *(() if plan.tokenize.weights == "none" else plan.tokenize.weights)}
    if lacking := sorted(asked - given):
        return {OWN_IDS: f"{plan.target.path} has no vectors of {', '.join(lacking)}, which its own codes would be of."}
    names = wanted_modalities(plan.target, plan.tokenize)
    present = ItemVectors.load(plan.target, names, catalog=Catalog.load(plan.target)).present.any(axis=1)
    present &= ~cold_items(plan.target)
    try:
        # Their number decides; what the vectors are does not matter yet.
        check_vectors(np.zeros((int(present.sum()), 1), np.float32), codebook_sizes=plan.tokenize.sizes)
    except DataError as error:
        return {OWN_IDS: str(error)}
    return {}


def _make(plan: _Plan, variant: _Variant, progress: Progress) -> None:
    """Make a variant's run and evaluate it, unless that is done; go on where the same variant was killed."""
    identity = plan.identity(variant)
    run = Run.create(plan.out / variant.name)
    state_file = run.path / _STATE_FILE
    state = read_json(state_file) if state_file.is_file() else {"identity": None, "finished": False}
    same = state["identity"] == identity
    if same and state["finished"] and _is_whole(run, plan):
        progress.say(f"  finished before: {run.path}")
        return
    if same:
        progress.say("  goes on where it was stopped")
    elif state["identity"] is not None:
        progress.say("  inputs or settings have changed: made again")
        run = _emptied(run)
    write_json(state_file, {"identity": identity, "finished": False})
    # Asked anew before each: a stage that is made again takes those after it out of the manifest.
    if not (same and plan.stages[-1] in run.stages):
        _copy_stages(plan.target, run, plan.stages)
    if not (same and "trie" in run.stages):
        _give_codes(plan, variant, run, progress)
    if not (same and "train" in run.stages):
        _give_model(plan, variant, run, resume=same, progress=progress)
    _evaluate(run, plan.config, progress)
    write_json(state_file, {"identity": identity, "finished": True})


def _emptied(run: Run) -> Run:
    """A new run in the place of this one, moved away at once: a kill leaves no old stages under a new identity."""
    old = run.path.with_name(f".{run.path.name}.old")
    shutil.rmtree(old, ignore_errors=True)  # a kill may have left one
    run.path.replace(old)
    shutil.rmtree(old)
    return Run.create(run.path)


def _is_whole(run: Run, plan: _Plan) -> bool:
    try:
        run.require(f"evaluate:{plan.config.evaluate.split}")
    except RunError:
        return False
    return (run.path / _CASES_FILE).is_file()


def _copy_stages(origin: Run, run: Run, stages: Sequence[str]) -> None:
    """Copy the files of stages and record them; the record names the origin's files as inputs."""
    for stage in stages:
        started, record = run.begin(), origin.require(stage)
        for file in record.outputs:
            with atomic_file(run.path / file) as temporary:
                shutil.copyfile(origin.path / file, temporary)
        own = [run.path / "items.parquet"] if stage in ("embed", "align") else []
        if stage == "train":
            own = [run.path / "semantic_ids" / "codes.npy"]
            vocabulary = SidVocabulary.load(run.path / "model")
            if names_others(origin.path / "model", vocabulary.item_rows, Catalog.load(run)):
                vocabulary.of_catalogue(()).save(run.path / "model")  # though the ids may be the same
        run.record(
            StageReport(stage, {**record.report, "copied_from": str(origin.path)}, []),
            config=record.config,
            seed=record.seed,
            inputs=[*own, *(origin.path / file for file in record.outputs)],
            outputs=[run.path / file for file in record.outputs],
            started=started,
        )


def _give_codes(plan: _Plan, variant: _Variant, run: Run, progress: Progress) -> None:
    if variant.shared_ids:
        config = plan.config
        pipeline.tokenize_from(
            run, plan.source, collisions=config.collisions, same_encoder=config.same_encoder, progress=progress
        )
    else:
        pipeline.tokenize(run, plan.tokenize, progress=progress)


def _give_model(plan: _Plan, variant: _Variant, run: Run, *, resume: bool, progress: Progress) -> None:
    if variant.model == "source":
        _copy_stages(plan.source, run, ("train",))
        return
    base = {"base": str(plan.source.path)} if variant.model == "trained further" else {}
    pipeline.train(run, plan.train.model_copy(update=base), resume=resume, progress=progress)


def _evaluate(run: Run, config: TransferConfig, progress: Progress) -> None:
    """Evaluate as `genrec evaluate` does, and keep the NDCG of every case beside the report."""
    chosen = config.evaluate
    recommender = Recommender.load(run.path, beam_width=chosen.beam_width, score_mode=chosen.score)
    ranked: list[list[int]] = []

    def recommend(
        histories: list[NDArray[np.int32]], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[list[int]]:
        only = None if allowed is None else ItemFilter.allowing(recommender.trie, allowed)
        answers = recommender.rank([RankRequest(history, allowed=only) for history in histories], k)
        ranked.extend([item.item_index for item in answer] for answer in answers)
        return ranked[-len(histories) :]

    model_files = [run.path / file for file in run.require("train", verify=False).outputs]
    evaluate(run, chosen, recommend=recommend, model_files=model_files, progress=progress)
    catalog = Catalog.load(run)
    cases = evaluation_cases(run, chosen.split)
    cases = cases.select(~removed_items(run, catalog=catalog)[cases.targets])  # as the evaluation does
    if chosen.max_users is not None:
        cases = cases.sample(chosen.max_users, seed=chosen.users_seed)
    k = max(chosen.cutoffs)
    headline = _result(run, config)["headline"]
    ranked = ranked[: len(cases)]  # where the target holds items out, their cases come after those of the split
    ndcg = metrics.ndcg(metrics.target_ranks(metrics.pad_rankings(ranked, k), cases.targets), headline)
    with atomic_file(run.path / _CASES_FILE) as temporary, array_stream(temporary) as stream:
        np.save(stream, ndcg, allow_pickle=False)


def _result(run: Run, config: TransferConfig) -> dict[str, Any]:
    content: dict[str, Any] = read_json(run.path / "evaluation" / f"{config.evaluate.split}.json")
    return content


def _collect(plan: _Plan, variants: Sequence[_Variant], skipped: dict[str, str]) -> TransferResult:
    """The table: every variant's row, the baselines once, and who is above whom."""
    config = plan.config
    runs = {variant.name: Run.open(plan.out / variant.name) for variant in variants}
    results = {name: _result(run, config) for name, run in runs.items()}
    first = results[ZERO_SHOT]
    rows = [_row(name, runs[name], result) for name, result in results.items()]
    # The baselines see the same target in every variant; the first one speaks for all.
    rows += [TransferRow(_method(entry)) for entry in first["methods"] if entry["name"] != MODEL]
    differences = [
        Difference(name, entry["baseline"], Estimate(**entry["difference"]))
        for name, result in results.items()
        for entry in result["comparisons"]
    ]
    users, shared_users = _ids_in_common(plan.source, plan.target, "splits.parquet", "user_id")
    _, shared_items = _ids_in_common(plan.source, plan.target, "items.parquet", "item_id")
    return TransferResult(
        source=str(plan.source.path),
        target=str(plan.target.path),
        split=first["split"],
        num_cases=first["num_cases"],
        num_items=first["num_items"],
        headline=first["headline"],
        epochs=plan.train.epochs,
        shared_users=shared_users,
        num_users=users,
        shared_items=shared_items,
        rows=rows,
        differences=differences + _paired(runs, seed=config.evaluate.seed),
        skipped={**first["skipped"], **skipped},
    )


def _row(name: str, run: Run, result: dict[str, Any]) -> TransferRow:
    [entry] = [entry for entry in result["methods"] if entry["name"] == MODEL]
    method = _method({**entry, "name": name})
    if name == ZERO_SHOT:
        return TransferRow(method)
    report = run.require("train", verify=False).report
    return TransferRow(method, report["best_epoch"], report["training_seconds"])


def _method(entry: dict[str, Any]) -> MethodResult:
    """A method as an evaluation's JSON holds it."""
    return MethodResult(
        **{
            **entry,
            "metrics": {name: Estimate(**estimate) for name, estimate in entry["metrics"].items()},
            "group_recall": {group: (value, count) for group, (value, count) in entry["group_recall"].items()},
        }
    )


def _paired(runs: dict[str, Run], *, seed: int) -> list[Difference]:
    """NDCG of one variant minus another's, case by case."""
    ndcg = {name: np.load(run.path / _CASES_FILE, allow_pickle=False) for name, run in runs.items()}
    pairs = [(first, second) for first, second in PAIRS if first in ndcg and second in ndcg]
    values = np.stack([ndcg[first] - ndcg[second] for first, second in pairs], axis=1)  # (C, pairs)
    intervals = metrics.bootstrap_intervals(values, seed=seed)
    return [
        Difference(first, second, Estimate(float(mean), float(low), float(high)))
        for (first, second), mean, (low, high) in zip(pairs, values.mean(axis=0), intervals, strict=True)
    ]


def _ids_in_common(source: Run, target: Run, file: str, column: str) -> tuple[int, int]:
    """How many different ids the target has, and how many of these the source has, too."""
    ours = set(read_run_table(target, file)[column].to_list())
    return len(ours), len(ours & set(read_run_table(source, file)[column].to_list()))
