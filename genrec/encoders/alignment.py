"""The stage `align`: vectors of several modalities to one common space, as new modalities of the run.

    RUN/embeddings/aligned.npy, aligned-<modality>.npy   float32 (I, W), with their .json
    RUN/embeddings/adapted-<modality>.npy                what an unfrozen encoder gives (I, D)
    RUN/alignment/                                       heads and adapters, for items that come later

What is learned comes from item content and from the training split alone; items that ingest held out teach nothing
and are aligned like new ones. I items, A attribute texts, R = I + A
rows, D width of a modality, W width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from numpy.typing import NDArray

from genrec.config import AlignConfig, dump_config
from genrec.data.catalog import Catalog
from genrec.data.splits import training_sequences
from genrec.encoders.alignment_data import make_pairs
from genrec.encoders.alignment_encoders import LiveInputs, adapt_encoders, encode_adapted, encode_anew
from genrec.encoders.alignment_heads import Alignment, Heads, load_alignment, save_heads
from genrec.encoders.alignment_inputs import AlignmentInputs, read_inputs
from genrec.encoders.alignment_model import AlignmentModel, Features
from genrec.encoders.alignment_objectives import make_objective
from genrec.encoders.alignment_retrieval import ALL, Vectors, measure
from genrec.encoders.alignment_training import phase_of_encoders, phase_of_heads, train
from genrec.encoders.base import Embeddings, embedding_files
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport, file_checksum, writes

Rows = tuple[NDArray[np.float32], NDArray[np.bool_]]  # vectors (N, W) and mask (N,)
FUSED = "aligned"


@writes("genrec embed --align")
def align(run: Run, config: AlignConfig, *, progress: Progress = SILENT) -> StageReport:
    """Train heads on the modalities that the stage `embed` wrote; write the aligned vectors and record the stage.

    Raises RunError where there are no vectors, ConfigError where the data cannot serve the objective, ModelError
    where the loss is not finite. Started by `accelerate launch`, all processes train and the first one writes and
    reports.
    """
    started = run.begin()
    with PartialState().main_process_first():  # the cache has one writer at a time
        inputs = read_inputs(run, config, progress=progress)
    model = _untrained(inputs, config)
    data = make_pairs(training_sequences(run), inputs.attributes, present=inputs.teaches, config=config)
    objective = make_objective(config, data, model)
    before = _raw_directions(model)
    learned = {"heads": train(model, objective, data, phase_of_heads(config), progress=progress)}
    live: dict[str, LiveInputs] = {}
    if config.unfreeze != "none":
        live = adapt_encoders(inputs, config, progress=progress)
        model = AlignmentModel(model.heads, model.features, live)
        learned["encoders"] = train(model, objective, data, phase_of_encoders(config), progress=progress)
    if not PartialState().is_main_process:
        return StageReport("align", {}, [])
    encoded, outputs = encode_anew(inputs, live, config, progress=progress)
    after = _projections(model.heads, encoded)
    retrieval = measure(data, before=before, after=after, seed=config.seed)
    outputs += save_heads(run, model.heads, facts={"objective": config.objective, "unfreeze": config.unfreeze})
    outputs += _save_aligned(encoded, after, revision=file_checksum(outputs[-1]))
    facts = {
        "objective": config.objective,
        "learned_from": list(objective.kinds),
        "modalities": {name: int(made.vectors.shape[1]) for name, made in inputs.embeddings.items()},
        "width": config.width,
        "num_pairs": len(data.train.pairs),
        "num_attributes": len(inputs.attributes.texts),
        "training": {name: phase.facts for name, phase in learned.items()},
        "adapted": {name: source.facts for name, source in live.items()},
        "retrieval": [answer.facts for answer in retrieval],
    }
    words = [
        f"Aligned {', '.join(inputs.embeddings)} by {', '.join(objective.kinds)}: {len(data.train.pairs):,} pairs of "
        f"items used one after the other, {len(inputs.attributes.texts):,} attribute texts.",
        *inputs.remarks,
        *(f"{name.capitalize()}: {phase.words}" for name, phase in learned.items()),
        *(f"{config.unfreeze} on {name}: {source.words}" for name, source in live.items()),
        "On what was held out:",
        *(f"  {answer.words}" for answer in retrieval),
    ]
    report = StageReport("align", facts, words, f"genrec tokenize {run.path} --modalities {FUSED}")
    vectors = [file for modality in inputs.embeddings for file in embedding_files(run, modality)]
    run.record(
        report,
        config=dump_config(config),
        seed=config.seed,
        inputs=[run.path / "items.parquet", run.path / "splits.parquet", *vectors],
        outputs=outputs,
        started=started,
    )
    return report


def project_items(
    run: Run, items: Mapping[str, Embeddings], *, catalog: Catalog, progress: Progress = SILENT
) -> dict[str, Rows]:
    """What the run's alignment makes of any items of `catalog` (N): modality that it writes → vectors and mask.

    `items` are their vectors as embedded; a modality that is left out counts as missing. Raises RunError where the
    alignment is missing, damaged or out of date.
    """
    alignment = load_alignment(run)
    read = {name: (items[name].vectors, items[name].mask) for name in alignment.modalities if name in items}
    made: dict[str, Rows] = {}
    for name in run.require("align", verify=False).report["adapted"]:
        if name in read:  # its head expects what the adapted encoder gives
            read[name] = encode_adapted(run, name, catalog, mask=read[name][1], progress=progress)
            made[f"adapted-{name}"] = read[name]
    for name, (vectors, mask) in read.items():
        projected = alignment.project_modality(name, vectors)
        projected[~mask] = 0.0
        made[f"{FUSED}-{name}"] = projected, mask
    masks = {name: mask for name, (_, mask) in read.items()}
    return {**made, FUSED: alignment.project({name: vectors for name, (vectors, _) in read.items()}, masks)}


def _untrained(inputs: AlignmentInputs, config: AlignConfig) -> AlignmentModel:
    """Heads with seeded weights, standardised by the vectors of the items that may teach."""
    torch.manual_seed(config.seed)
    widths = {name: made.vectors.shape[1] for name, made in inputs.embeddings.items()}
    heads = Heads(widths, width=config.width, hidden_width=config.hidden_width)
    for name, made in inputs.embeddings.items():
        heads[name].standardise_by(torch.from_numpy(made.vectors[made.mask & inputs.warm]))
    vectors = {name: torch.from_numpy(rows) for name, rows in inputs.vectors.items()}
    return AlignmentModel(heads, Features(vectors, torch.from_numpy(inputs.present)))


@torch.no_grad()
def _raw_directions(model: AlignmentModel) -> Vectors:
    """The vectors before alignment: centred, of length 1, and all modalities side by side under ALL."""
    columns: dict[str, NDArray[np.float32]] = {}
    for column, (name, vectors) in enumerate(model.features.vectors.items()):
        directions = F.normalize(model.heads[name].standardised(vectors), dim=1)
        columns[name] = torch.where(model.features.present[:, column, None], directions, 0.0).numpy()
    together = np.concatenate(list(columns.values()), axis=1)
    lengths = np.linalg.norm(together, axis=1, keepdims=True)
    return {**columns, ALL: together / np.maximum(lengths, 1e-12)}


def _projections(heads: Heads, inputs: AlignmentInputs) -> Vectors:
    """Aligned vectors (R, W) by modality and, under ALL, fused."""
    alignment = Alignment(heads.cpu().eval())
    masks = dict(zip(inputs.vectors, inputs.present.T, strict=True))
    projected = {}
    for name, rows in inputs.vectors.items():
        projected[name] = alignment.project_modality(name, rows)
        projected[name][~masks[name]] = 0.0
    return {**projected, ALL: alignment.project(inputs.vectors, masks)[0]}


def _save_aligned(inputs: AlignmentInputs, after: Vectors, *, revision: str) -> list[Path]:
    written: list[Path] = []
    for modality, vectors in after.items():
        mask = inputs.has_vector if modality == ALL else inputs.embeddings[modality].mask
        name = FUSED if modality == ALL else f"{FUSED}-{modality}"
        model = f"alignment of {', '.join(inputs.embeddings)}"
        rows = vectors[: inputs.num_items]
        written += Embeddings(name, rows, mask, model, revision, inputs.catalog.order_checksum).save(inputs.run)
    return written
