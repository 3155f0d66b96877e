"""The stage `embed`: item texts and precomputed vectors to `embeddings/`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from genrec.config import EmbedConfig, dump_config
from genrec.data.catalog import Catalog
from genrec.encoders.base import Embeddings, check_modality
from genrec.encoders.cache import encode_items
from genrec.encoders.precomputed import read_vectors, vectors_revision
from genrec.encoders.text import TextEncoder
from genrec.errors import ConfigError
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport

# A killed run encodes at most this many batches a second time.
_BATCHES_PER_SHARD = 16


def embed(run: Run, config: EmbedConfig, *, progress: Progress = SILENT) -> StageReport:
    """Write one set of vectors per modality of `config` and record the stage.

    Raises ConfigError where nothing or one modality twice is asked for, ModelError and
    MissingDependencyError from the text encoder, DataError from the files of precomputed vectors.
    """
    started = time.monotonic()
    _check(config)
    catalog = Catalog.load(run)
    outputs: list[Path] = []
    facts: dict[str, dict[str, object]] = {}
    words = []
    # Files first: they are read in a second, and a bad one should not show only after an hour of encoding.
    for modality, file in config.precomputed.items():
        vectors, mask = read_vectors(file, catalog)
        made = Embeddings(modality, vectors, mask, file.name, vectors_revision(file), catalog.order_checksum)
        outputs += made.save(run)
        facts[modality] = _facts(made)
        words.append(_sentence(made))
    if config.text_model is not None:
        made, encoded_now = _embed_text(run, config, catalog, progress)
        outputs += made.save(run)
        facts["text"] = {**_facts(made), "encoded_now": encoded_now}
        words.append(f"{_sentence(made)} {encoded_now:,} texts were encoded now; the cache had the others.")
    next_command = f"genrec tokenize {run.path}"
    report = StageReport("embed", {"modalities": facts}, words, next_command)
    run.record(
        report,
        config=dump_config(config),
        seed=0,
        inputs=[run.path / "items.parquet", *config.precomputed.values()],
        outputs=outputs,
        seconds=time.monotonic() - started,
    )
    return report


def _embed_text(run: Run, config: EmbedConfig, catalog: Catalog, progress: Progress) -> tuple[Embeddings, int]:
    assert config.text_model is not None
    texts = [text or None for text in catalog.texts(config.text_fields)]
    progress.say(f"Loading the sentence encoder {config.text_model}.")
    encoder = TextEncoder(config.text_model, batch_size=config.batch_size)
    group_size = config.batch_size * _BATCHES_PER_SHARD
    vectors, mask, encoded_now = encode_items(encoder, texts, run=run, group_size=group_size, progress=progress)
    made = Embeddings("text", vectors, mask, encoder.model, encoder.revision, catalog.order_checksum)
    return made, encoded_now


def _check(config: EmbedConfig) -> None:
    if config.text_model is None and not config.precomputed:
        raise ConfigError("There is nothing to embed.", "Give --text MODEL or --precomputed NAME=FILE.")
    for name in config.precomputed:
        check_modality(name)
    if config.text_model is not None and "text" in config.precomputed:
        raise ConfigError(
            "Modality 'text' is asked for twice: from a model and from a file.",
            "Give the file another name, or set text_model to null.",
        )


def _facts(made: Embeddings) -> dict[str, object]:
    return {
        "model": made.model,
        "revision": made.revision,
        "num_items": len(made.vectors),
        "width": int(made.vectors.shape[1]),
        "missing": int(np.count_nonzero(~made.mask)),
    }


def _sentence(made: Embeddings) -> str:
    missing = int(np.count_nonzero(~made.mask))
    gaps = f", {missing:,} of them without a vector" if missing else ""
    items, width = made.vectors.shape
    return f"{made.modality}: {items:,} items{gaps}, width {width}, from {made.model}."
