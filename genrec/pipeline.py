"""The stages that join parts which know nothing of each other: tokenize (+ trie), train, evaluate.

`genrec …`, the recipes in train/ and eval/ and the quickstart all call these functions and those of
`data.ingest` and `encoders.embed`; there is no other way to make a run.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genrec import metrics
from genrec.config import EvaluateConfig, TokenizeConfig, TrainConfig, dump_config
from genrec.data.catalog import REMOVED_ITEMS, Catalog, removed_items
from genrec.data.dialogues import dialogues_file, load_turns, spoken_lines
from genrec.data.sequences import EvaluationCases
from genrec.data.splits import cold_items, evaluation_cases, training_sequences
from genrec.data.text_source import TextSource
from genrec.decoding.shared_prefix import check_length
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.encoders.base import embedding_files
from genrec.errors import ConfigError, DataError, ModelError
from genrec.evaluation import Recommend
from genrec.evaluation import evaluate as evaluate_split
from genrec.examples import Example
from genrec.explanation.lessons import lesson_sources
from genrec.preparation import Prepared, base_checksums, prepare_model, resolve_base, task_folders
from genrec.progress import SILENT, Progress
from genrec.prompting import compile_history_prompt, load_templates, save_templates, task_files
from genrec.quantization import dequantized, is_quantized
from genrec.recommender import RankRequest, Recommender
from genrec.report import MODEL
from genrec.run import Run, StageReport, file_checksum, writes
from genrec.tasks.loading import SOURCES, load_mixture, reads_dialogues
from genrec.tasks.mixture import Mixture
from genrec.tokenizers.codes import Policy, SemanticIds
from genrec.tokenizers.files import tokenizer_checksum
from genrec.tokenizers.stage import ItemVectors, guessed_modalities, load_fusion
from genrec.tokenizers.stage import tokenize as tokenize_items
from genrec.tokenizers.transfer import tokenize_from as encode_items
from genrec.training.adapters import remove_adapter, save_adapter
from genrec.training.export import save_model_folder
from genrec.training.loop import Trainer, TrainingTask
from genrec.training.stages import remove_checkpoints, train_in_stages
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import (
    SidVocabulary,
)

if TYPE_CHECKING:
    from peft import PeftModel

_VALIDATION_CUTOFF = 10


@writes("genrec tokenize")
def tokenize(run: Run, config: TokenizeConfig, *, progress: Progress = SILENT) -> StageReport:
    """Give every item a semantic ID and build the trie over them."""
    run.require("embed")
    return _with_trie(run, tokenize_items(run, config, progress=progress), seed=config.seed)


@writes("genrec tokenize --from")
def tokenize_from(
    run: Run,
    source: Run,
    *,
    collisions: Policy | None = None,
    same_encoder: bool = False,
    progress: Progress = SILENT,
) -> StageReport:
    """Give every item a semantic ID of another run's frozen tokenizer and build the trie over them.

    Arguments and errors are those of `tokenizers.transfer.tokenize_from`.
    """
    run.require("embed")
    report = encode_items(run, source, collisions=collisions, same_encoder=same_encoder, progress=progress)
    return _with_trie(run, report, seed=run.stages["tokenize"].seed)


def _with_trie(run: Run, report: StageReport, *, seed: int) -> StageReport:
    """Build and record the trie over the run's new codes; the report of both."""
    started = run.begin()
    catalog = Catalog.load(run)
    semantic_ids = SemanticIds.load(run, catalog=catalog)
    trie = ItemTrie.build(
        semantic_ids.codes,
        semantic_ids.codebook_sizes,
        live=~removed_items(run, catalog=catalog),
        order_checksum=catalog.order_checksum,
        tokenizer_checksum=tokenizer_checksum(run.path / "semantic_ids" / "tokenizer"),
    )
    outputs = trie.save(run.path / "trie")
    facts = {"version": trie.version, "num_items": trie.num_items, "num_bytes": trie.num_bytes}
    words = f"Trie {trie.version}: {trie.num_items:,} items in {trie.num_bytes / 1e6:.2f} MB."
    run.record(
        StageReport("trie", facts, [words]),
        config={},
        seed=seed,
        inputs=[run.path / "semantic_ids" / "codes.npy"],
        outputs=outputs,
        started=started,
    )
    return replace(report, words=[*report.words, words], next_command=f"genrec train {run.path}")


@writes("genrec train")
def train(run: Run, config: TrainConfig, *, resume: bool = False, progress: Progress = SILENT) -> StageReport:
    """Fine-tune the language model on the training histories and write `model/`.

    `config.base` may also be another run, or its `model/`: where this run was tokenized with the same frozen
    tokenizer, its semantic-ID tokens and their rows are taken over as they are.

    Raises RunError where an earlier stage is missing, ModelError for a base that cannot be used, ConfigError
    where `resume` meets a training with other settings.
    """
    started = run.begin()
    for stage in ("tokenize", "trie"):  # a stage killed half-way has changed files that it did not record
        run.require(stage)
    config, base_adapter = resolve_base(config)
    catalog = Catalog.load(run)
    codes = SemanticIds.load(run, catalog=catalog)
    checksum = tokenizer_checksum(run.path / "semantic_ids" / "tokenizer")
    folders = task_folders(config)
    with_dialogues, warm = reads_dialogues(folders, config.task_names), ~cold_items(run)
    prepared = prepare_model(
        config,
        catalog,
        codes=codes,
        checksum=checksum,
        histories=training_sequences(run),
        warm=warm,
        base_adapter=base_adapter,
        spoken=spoken_lines(load_turns(run, "train", catalog=catalog), warm) if with_dialogues else (),
    )
    model, tokenizer, vocabulary = prepared.model, prepared.tokenizer, prepared.vocabulary
    [*_, asking] = [folder for folder in folders if (folder / "next_item.yaml").is_file()]  # the user's, where given
    prompt = compile_history_prompt(load_templates(asking, "next_item").templates[0], tokenizer)
    recommender = Recommender.assemble(
        run,
        engine=TransformersEngine(model, None, vocabulary=vocabulary),
        vocabulary=vocabulary,
        prompt=prompt,
        max_history_items=config.max_history_items,
        beam_width=config.validation_beam_width,
    )
    inputs = [run.path / "items.parquet", run.path / "splits.parquet", run.path / "semantic_ids" / "codes.npy"]
    mixture = load_mixture(
        run,
        config,
        folders=folders,
        tokenizer=tokenizer,
        item_tokens=recommender.item_tokens,
        own_tokens=recommender.live.own_tokens,
        sources={**SOURCES, **lesson_sources(run, folders)},
    )
    item_vectors, vector_files = _item_vectors(run, catalog, vocabulary)
    inputs += [*([dialogues_file(run)] if with_dialogues else []), *vector_files]
    identity = dump_config(config) | {path.name: file_checksum(path) for path in (*inputs, *task_files(*folders))}
    identity |= {source: file_checksum(TextSource.parse(source).path) for source in config.replay}
    identity |= base_checksums(config.base, base_adapter) | _read_beside(run)
    task = _training_task(
        run,
        config,
        recommender=recommender,
        mixture=mixture,
        vocabulary=vocabulary,
        item_vectors=item_vectors,
        identity=identity,
        progress=progress,
    )
    _check_context(model, config, num_tokens=task.max_example_tokens)
    trainer, adapter = train_in_stages(
        model, config, task, rows=prepared.rows, folder=run.path / "training", resume=resume, progress=progress
    )
    report = _training_report(run, trainer, num_items=len(catalog), mixture=mixture)
    if trainer.accelerator.is_main_process:
        run.record(
            report,
            config=dump_config(config),
            seed=config.seed,
            inputs=inputs,
            outputs=_save_model(run, prepared, adapter) + save_templates(run, *folders),
            started=started,
        )
        remove_checkpoints(run.path / "training")
    return report


def evaluate(
    run: Run,
    config: EvaluateConfig,
    *,
    engine: str = "transformers",
    engine_options: Mapping[str, Any] | None = None,
    views: Sequence[Run] = (),
    evidence: bool = True,
    progress: Progress = SILENT,
) -> StageReport:
    """Rank every user of a split with the run's model, merged with those of `views`, and with the baselines.

    Where the run has evidence, the model is measured with it and, as a row of its own, without; `evidence` False
    leaves it out. Writes the report. Raises RunError for a view of another catalogue.
    """
    loaded = [
        Recommender.load(
            one.path,
            engine,
            beam_width=config.beam_width,
            score_mode=config.score,
            weights=config.weights,
            evidence=evidence,
            engine_options=engine_options or {},
        )
        for one in (run, *views)
    ]
    recommend = {MODEL: _as_function(loaded, config.new_share)}
    if any(one.evidence is not None for one in loaded):
        recommend["model alone"] = _as_function([one.with_evidence(None) for one in loaded], config.new_share)
    model_files = [one.path / file for one in (run, *views) for file in one.require("train", verify=False).outputs]
    with closing(loaded[0].engine):
        return evaluate_split(run, config, recommend=recommend, model_files=model_files, progress=progress)


def _as_function(recommenders: Sequence[Recommender], new_share: float) -> Recommend:
    """A recommender, merged with its views, as an evaluation asks it."""
    first, *others = recommenders
    recommender = first.with_views(others) if others else first

    def recommend(
        histories: list[NDArray[np.int32]], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[list[int]]:
        only = None if allowed is None else ItemFilter.allowing(recommender.trie, allowed)
        requests = [RankRequest(history, allowed=only, new_share=new_share) for history in histories]
        answers = recommender.rank(requests, k)
        return [[item.item_index for item in ranked] for ranked in answers]

    return recommend


def validation_cases(run: Run, catalog: Catalog, *, size: int, seed: int) -> EvaluationCases:
    """A sample of the validation split, of items that are still in the catalogue. Raises DataError where none is."""
    cases, removed = evaluation_cases(run, "validation"), removed_items(run, catalog=catalog)
    cases = cases.select(~removed[cases.targets]).sample(size, seed=seed)
    if len(cases) == 0:
        raise DataError("the run has no validation cases.", "Ingest data in which users have three items or more.")
    return cases


def validation_metrics(
    recommender: Recommender, cases: EvaluationCases, *, warm: NDArray[np.bool_] | None = None
) -> Mapping[str, float]:
    """Recall@10 and NDCG@10 of a recommender on evaluation cases, among the items `warm` (I,) alone where given."""
    trie = recommender.trie
    only = None if warm is None or warm[trie.items].all() else ItemFilter.allowing(trie, warm)
    requests = [RankRequest(history, allowed=only) for history in cases.histories]
    answers = recommender.rank(requests, _VALIDATION_CUTOFF)
    ranked = metrics.pad_rankings([[item.item_index for item in answer] for answer in answers], _VALIDATION_CUTOFF)
    ranks = metrics.target_ranks(ranked, cases.targets)
    return {
        "recall@10": float(metrics.recall(ranks, _VALIDATION_CUTOFF).mean()),
        "ndcg@10": float(metrics.ndcg(ranks, _VALIDATION_CUTOFF).mean()),
    }


def _read_beside(run: Run) -> dict[str, str]:
    """Checksums of what a mixture also reads, and that may change while the stage stays valid: who is left, reviews."""
    files = [run.path / name for name in (REMOVED_ITEMS, "interactions.parquet")]
    return {file.name: file_checksum(file) for file in files if file.is_file()}


def _training_task(
    run: Run,
    config: TrainConfig,
    *,
    recommender: Recommender,
    mixture: Mixture,
    vocabulary: SidVocabulary,
    item_vectors: NDArray[np.float32] | None,
    identity: Mapping[str, Any],
    progress: Progress,
) -> TrainingTask:
    """The tasks' examples; validation by the live recommender on a sample of the validation split."""
    cases = validation_cases(run, recommender.catalog, size=config.validation_users, seed=config.seed)
    warm, told = ~cold_items(run), False

    def examples(rng: np.random.Generator) -> list[Example]:
        nonlocal told
        found = mixture.examples(rng)
        if not told and len(mixture.passes) > 1:
            progress.say(f"In {config.epochs} epochs each is told: {_times_told(mixture, config)}.")
        told = True
        return found

    return TrainingTask(
        make_examples=examples,
        validate=lambda: validation_metrics(recommender, cases, warm=warm),
        max_example_tokens=mixture.max_example_tokens,
        vocabulary=vocabulary,
        item_vectors=item_vectors,
        identity=identity,
    )


def _times_told(mixture: Mixture, config: TrainConfig) -> str:
    """How often the training tells each history, item or text of a task, such as `A1 12 times, B1 131 times`."""
    return ", ".join(f"{name} {passes * config.epochs:,.3g} times" for name, passes in mixture.passes.items())


def _item_vectors(
    run: Run, catalog: Catalog, vocabulary: SidVocabulary
) -> tuple[NDArray[np.float32] | None, list[Path]]:
    """Directions of the vectors that semantic IDs were made from, of the items with tokens of their own, (N, C), and
    the files with the vectors. None where no item has a token."""
    if not vocabulary.item_rows:
        return None, []
    fusion, guessed = load_fusion(run), guessed_modalities(run)
    items = ItemVectors.of_tokenizer(run, fusion, catalog=catalog)
    fused = fusion.apply(items.vectors, items.masks)[0][list(vocabulary.item_rows)]
    directions = fused / np.linalg.norm(fused, axis=1, keepdims=True).clip(min=1e-12)
    return directions, [file for name in fusion.names if name not in guessed for file in embedding_files(run, name)]


def _check_context(model: Any, config: TrainConfig, *, num_tokens: int) -> None:
    """Before a training of hours: does a prompt fit, also into a sliding window where beams read it?"""
    try:
        check_length(model, num_tokens)
    except ModelError as error:
        raise ConfigError(
            f"max_history_items {config.max_history_items} (or example_tokens {config.example_tokens}) is too much for "
            f"{config.base!r}: {error.message}",
            "Lower it, or choose a base that reads more.",
        ) from error


def _training_report(run: Run, trainer: Trainer, *, num_items: int, mixture: Mixture) -> StageReport:
    state, left_out = trainer.state, mixture.left_out
    num_parameters = trainer.num_parameters
    facts: dict[str, Any] = {
        "num_parameters": num_parameters,
        "num_trained": trainer.num_trained,
        "num_items": num_items,
        "epochs": state.epoch,
        "steps": state.step,
        "best_epoch": state.best_epoch,
        "best_recall@10": state.best_metric,
        "kept_epoch": state.epoch if trainer.config.keep == "last" else state.best_epoch,
        "final_loss": state.history[-1]["loss"],
        "history": state.history,
        "training_seconds": round(state.seconds, 1),
        "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9)),
        "times_told": {name: round(passes * state.epoch, 2) for name, passes in mixture.passes.items()},
        "too_long": dict(left_out),
    }
    learned = "" if trainer.num_trained == num_parameters else f", {trainer.num_trained / 1e6:.2f} M of them trained"
    words = [
        f"{num_parameters / 1e6:.1f} M parameters{learned}, {state.epoch} epochs, {state.step} steps "
        f"in {state.seconds:.0f} s of training.",
        f"Final loss {facts['final_loss']:.6f}; best validation Recall@10 {state.best_metric:.4f} "
        f"after epoch {state.best_epoch}; the weights are those after epoch {facts['kept_epoch']}.",
        f"Model: {run.path / 'model'}",
    ]
    if len(mixture.passes) > 1:
        words.append(f"Each was told: {_times_told(mixture, trainer.config)}.")
    if left_out:
        counts = ", ".join(f"{task} {count:,}" for task, count in sorted(left_out.items()))
        words.append(f"Left out, too long without any history (times drawn): {counts}.")
    return StageReport("train", facts, words, f"genrec evidence {run.path}")


def _save_model(run: Run, prepared: Prepared, adapter: PeftModel | None) -> list[Path]:
    """Write `model/` and, where the base was kept, `adapter/` beside it; an adapter of before is removed."""
    model, files = prepared.model, []
    if adapter is None:
        shutil.rmtree(run.path / "adapter", ignore_errors=True)
    else:
        files = save_adapter(adapter, run.path / "adapter")
        model = remove_adapter(adapter)
    if is_quantized(model):
        model = dequantized(model)
    return files + save_model_folder(
        run.path / "model", model=model, tokenizer=prepared.tokenizer, vocabulary=prepared.vocabulary
    )
