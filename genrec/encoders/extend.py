"""The vectors of a catalogue after some of its rows are new or have changed. Everything else stays to the bit.

Modalities that encoders made are encoded for these rows alone, through the cache. Modalities from files (and those
that other stages derived from behaviour) have no vector for a new row, unless a file gives one.

R rows of the catalogue, N rows of a change, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.config import EmbedConfig, build_config
from genrec.data.catalog import Catalog
from genrec.encoders.base import Embeddings, vouched_modalities
from genrec.encoders.embed import encode_catalog
from genrec.encoders.precomputed import read_vectors
from genrec.errors import ConfigError, DataError, ModelError
from genrec.progress import SILENT, Progress
from genrec.run import Run


def extend_embeddings(
    run: Run,
    before: Catalog,
    after: Catalog,
    *,
    encode: NDArray[np.int64],
    precomputed: Mapping[str, Path],
    given: NDArray[np.int64] | None = None,
    progress: Progress = SILENT,
) -> dict[str, Embeddings]:
    """Modality → vectors of the catalogue `after`, of which the rows `encode` (N,) are new to the encoders.

    `precomputed` files may hold the items of the rows `given` (default: `encode`) and no others. Modalities that
    stay as they are are left out. Raises ConfigError for a modality that the run does not have, DataError for
    vectors of another width, ModelError where an encoder is not the one that the run was embedded with.
    """
    given = encode if given is None else given
    old = {name: Embeddings.load(run, name, catalog=before) for name in vouched_modalities(run)}
    if unknown := sorted(set(precomputed) - set(old)):
        raise ConfigError(f"The run has no vectors of modality {', '.join(unknown)}.", f"It has {', '.join(old)}.")
    # Files first: a bad one should not show only after the encoding.
    chosen = Catalog(after.table[given]) if len(given) else None
    fresh: dict[str, Embeddings] = {}
    for name, file in precomputed.items():
        if chosen is None:
            break
        vectors, mask = read_vectors(file, chosen)
        fresh[name] = Embeddings(name, vectors, mask, old[name].model, old[name].revision, chosen.order_checksum)
    rows = dict.fromkeys(fresh, given)
    config = build_config(EmbedConfig, run.require("embed").config, source="the manifest, stage embed")
    if len(encode):
        part = Catalog(after.table[encode])
        for name, made in encode_catalog(run, config, part, progress=progress).items():
            if made is not None:
                _check_encoder(made, old[name])
            fresh.setdefault(name, made or _missing(old[name], part))
            rows.setdefault(name, encode)
    changed = old if len(after) > len(before) else {name: old[name] for name in fresh}
    return {name: _extended(made, after, fresh.get(name), rows.get(name)) for name, made in changed.items()}


def _missing(old: Embeddings, catalog: Catalog) -> Embeddings:
    """No vector of that modality for any item of `catalog`."""
    vectors = np.zeros((len(catalog), old.vectors.shape[1]), dtype=np.float32)
    mask = np.zeros(len(catalog), dtype=np.bool_)
    return Embeddings(old.modality, vectors, mask, old.model, old.revision, catalog.order_checksum)


def _extended(old: Embeddings, after: Catalog, fresh: Embeddings | None, rows: NDArray[np.int64] | None) -> Embeddings:
    vectors = np.zeros((len(after), old.vectors.shape[1]), dtype=np.float32)
    mask = np.zeros(len(after), dtype=np.bool_)
    vectors[: len(old.vectors)], mask[: len(old.mask)] = old.vectors, old.mask
    if fresh is not None and rows is not None:
        if fresh.vectors.shape[1] != vectors.shape[1]:
            raise DataError(
                f"The new {old.modality} vectors have width {fresh.vectors.shape[1]}, the run's {vectors.shape[1]}.",
                "Make them as the others were made.",
            )
        vectors[rows], mask[rows] = fresh.vectors, fresh.mask
    return Embeddings(old.modality, vectors, mask, old.model, old.revision, after.order_checksum)


def _check_encoder(made: Embeddings, old: Embeddings) -> None:
    if made.revision != old.revision:
        raise ModelError(
            f"The encoder {made.model} is not the one that the run was embedded with (revision {made.revision}, "
            f"then {old.revision}).",
            "Bring the old one back, or run `genrec embed`, `tokenize` and `train` again.",
        )
