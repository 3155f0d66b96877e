"""The stage `tokenize`: vectors of one modality to semantic IDs, with a report of how good they are."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.config import TokenizeConfig, dump_config
from genrec.data.catalog import Catalog
from genrec.data.splits import training_sequences
from genrec.encoders.base import Embeddings, embedding_files
from genrec.errors import DataError, RunError
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport, atomic_folder, read_json, write_json
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.codes import SemanticIds, resolve_collisions
from genrec.tokenizers.health import Health, collision_share, level_health, prefix_lift, relative_error
from genrec.tokenizers.health_plot import plot_health
from genrec.tokenizers.residual_kmeans import ResidualKMeans
from genrec.tokenizers.rqvae import RQVAE


def tokenize(run: Run, config: TokenizeConfig, *, progress: Progress = SILENT) -> StageReport:
    """Write `semantic_ids/` (codes, tokenizer, health report and plot) and record the stage.

    An item without a vector is given the mean of the others, so it lands under a common prefix and the
    collision policy tells it apart; the report counts them. Raises DataError where there are fewer vectors
    than codes of a level, RunError where the vectors are missing or belong to another catalogue.
    """
    started = time.monotonic()
    catalog = Catalog.load(run)
    embeddings = Embeddings.load(run, config.modality, catalog=catalog)
    if not embeddings.mask.any():
        raise DataError(f"No item has a vector of modality {config.modality!r}.", "Run `genrec embed` again.")
    present = embeddings.vectors[embeddings.mask]
    vectors = embeddings.vectors.copy()
    vectors[~embeddings.mask] = present.mean(axis=0)
    tokenizer = _make(config)
    tokenizer.fit(present, seed=config.seed, progress=progress)
    before = tokenizer.encode(vectors)
    after, sizes = resolve_collisions(
        before,
        config.codebook_size,
        policy=config.collisions,
        last_costs=lambda items: tokenizer.last_costs(vectors[items], before[items]),
    )
    health = _measure(run, tokenizer, embeddings, before, after, sizes)
    ids = SemanticIds(after, sizes, catalog.order_checksum)
    outputs = _write(run, tokenizer, ids, health)
    facts = {"method": config.method, "modality": config.modality, **health.facts}
    for level in facts["levels"]:
        level.pop("counts")  # health.json has them; the manifest stays readable
    report = StageReport("tokenize", facts, health.words(), f"genrec train {run.path}")
    run.record(
        report,
        config=dump_config(config),
        seed=config.seed,
        inputs=[run.path / "items.parquet", run.path / "splits.parquet", *embedding_files(run, config.modality)],
        outputs=outputs,
        seconds=time.monotonic() - started,
    )
    return report


def load_tokenizer(run: Run) -> ItemTokenizer:
    """The tokenizer that made the run's semantic IDs. Raises RunError where it is missing or damaged."""
    folder = run.path / "semantic_ids" / "tokenizer"
    method = read_json(folder / "tokenizer.json").get("method")
    if method == RQVAE.method:
        return RQVAE.load(folder)
    if method == ResidualKMeans.method:
        return ResidualKMeans.load(folder)
    raise RunError(f"{folder} holds an unknown tokenizer: {method!r}.", "Run `genrec tokenize RUN` again.")


def _make(config: TokenizeConfig) -> ItemTokenizer:
    if config.method == "rqvae":
        return RQVAE(levels=config.levels, codebook_size=config.codebook_size)
    return ResidualKMeans(levels=config.levels, codebook_size=config.codebook_size)


def _measure(
    run: Run,
    tokenizer: ItemTokenizer,
    embeddings: Embeddings,
    before: NDArray[np.uint16],
    after: NDArray[np.uint16],
    sizes: tuple[int, ...],
) -> Health:
    mask = embeddings.mask
    present = embeddings.vectors[mask]
    lengths = range(1, tokenizer.levels + 1)
    own_levels = after[:, : tokenizer.levels]
    moved = (own_levels != before).any(axis=1)
    return Health(
        num_items=len(after),
        levels=level_health(after, sizes),
        colliding_before=collision_share(before),
        colliding_after=collision_share(after),
        moved_items=int(np.count_nonzero(moved)),
        missing_items=int(np.count_nonzero(~mask)),
        reconstruction=[relative_error(present, tokenizer.reconstruct(before[mask, :length])) for length in lengths],
        reconstruction_after=(
            relative_error(present, tokenizer.reconstruct(own_levels[mask])) if moved.any() else None
        ),
        prefix_lift=prefix_lift(own_levels, training_sequences(run)),
    )


def _write(run: Run, tokenizer: ItemTokenizer, ids: SemanticIds, health: Health) -> list[Path]:
    folder = run.path / "semantic_ids"
    with atomic_folder(folder / "tokenizer") as temporary:
        tokenizer.save(temporary)
    weights = [folder / "tokenizer" / name for name in ("tokenizer.json", "tokenizer.safetensors")]
    written = ids.save(run)
    write_json(folder / "health.json", {**health.facts, "warnings": health.warnings()})
    plot_health(health, folder / "health.png")
    return [*written, *weights, folder / "health.json", folder / "health.png"]
