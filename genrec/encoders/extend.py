"""The vectors of a catalogue after some of its rows are new or have changed. Everything else stays to the bit.

Modalities that encoders made are encoded for these rows alone, through the cache. Modalities from files, and behaviour,
have no vector for a new row unless a file gives one; a changed row keeps the one that it has. What `align` wrote
follows from the others: the frozen heads project the rows whose vectors have changed.

R rows of the catalogue, N rows of a change, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.config import EmbedConfig, build_config
from genrec.data.catalog import Catalog
from genrec.encoders.base import WRITTEN_BY_ALIGN, Embeddings, vouched_modalities
from genrec.encoders.behaviour import MODELS as BEHAVIOUR_MODELS
from genrec.encoders.embed import encode_modality
from genrec.encoders.precomputed import read_vectors
from genrec.errors import ConfigError, DataError, ModelError
from genrec.progress import SILENT, Progress
from genrec.run import Run


@dataclass(frozen=True, eq=False)
class ExtendedVectors:
    """Modality → its vectors of the new catalogue, and what the files of a change say nothing of."""

    embeddings: dict[str, Embeddings] = field(default_factory=dict)  # without those that stay as they are
    left_out: dict[str, int] = field(default_factory=dict)  # modality of a file → items that keep the vector they had
    unreadable: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # modality → inputs of the change
    encoded: dict[str, list[str]] = field(default_factory=dict)  # modality → item_ids that its encoder was asked for


@dataclass(frozen=True, eq=False)
class _Part:
    """New vectors of some rows of one modality."""

    rows: NDArray[np.int64]  # (N,)
    vectors: NDArray[np.float32]  # (N, D)
    mask: NDArray[np.bool_]  # (N,)


def extend_embeddings(
    run: Run,
    before: Catalog,
    after: Catalog,
    *,
    encode: Mapping[str, NDArray[np.int64]],
    precomputed: Mapping[str, Path],
    given: NDArray[np.int64],
    as_new: bool = False,
    progress: Progress = SILENT,
) -> ExtendedVectors:
    """The vectors of the catalogue `after`, in which the rows `given` (N,) are new or have changed.

    `encode` is modality → those of the rows whose content is new to its encoder. `precomputed` files may hold the items
    of the rows `given` and no others (a file without ids: all of them, in that order); an item that a file leaves out
    keeps the vector that it has. `as_new` takes from `given` the behaviour of before.
    Raises ConfigError for a modality that the run does not have, DataError for vectors of another width, ModelError
    where an encoder is not the one that the run was embedded with.
    """
    old = {name: Embeddings.load(run, name, catalog=before) for name in vouched_modalities(run)}
    embedded = {name: one for name, one in old.items() if name.split("-")[0] not in WRITTEN_BY_ALIGN}
    if unknown := sorted(set(precomputed) - set(embedded)):
        raise ConfigError(
            f"The run has no vectors of modality {', '.join(unknown)} that a file could add to.",
            f"It has {', '.join(embedded)} (what `align` made of them follows).",
        )
    # Files first: a bad one should not show only after the encoding.
    files = {name: _read_part(file, after, given) for name, file in precomputed.items()} if len(given) else {}
    parts: dict[str, list[_Part]] = {name: [] for name in embedded}
    if as_new:
        for name, one in embedded.items():
            parts[name] += [_missing(one, given)] if one.model in BEHAVIOUR_MODELS else []
    unreadable: dict[str, list[dict[str, str]]] = {}
    for name, (part, problems) in _encoded(run, after, embedded, encode=encode, progress=progress).items():
        parts[name].append(part)
        unreadable[name] = problems
    for name, part in files.items():
        parts[name].append(part)  # last: a file has the last word on what it has
    made = {name: _extended(embedded[name], after, news) for name, news in parts.items()}
    parts |= _aligned(run, after, old=old, made=made, given=given, progress=progress)
    made |= {name: _extended(old[name], after, parts.get(name, [])) for name in old if name not in made}
    touched = {name for name in made if len(after) > len(before) or parts.get(name)}
    left_out = {name: _num_untouched(embedded[name], given, parts[name]) for name in files}
    ids = after.item_ids
    asked = {name: [ids[row] for row in encode[name].tolist()] for name in unreadable}
    return ExtendedVectors({name: made[name] for name in sorted(touched)}, left_out, unreadable, asked)


def _read_part(file: Path, after: Catalog, given: NDArray[np.int64]) -> _Part:
    """What a file has of the rows `given`."""
    vectors, mask = read_vectors(file, Catalog(after.table[given]))
    return _Part(given[mask], vectors[mask], mask[mask])


def _encoded(
    run: Run,
    after: Catalog,
    old: Mapping[str, Embeddings],
    *,
    encode: Mapping[str, NDArray[np.int64]],
    progress: Progress,
) -> dict[str, tuple[_Part, list[dict[str, str]]]]:
    """What the run's encoders make of some rows, and what they cannot read, by modality."""
    config = build_config(EmbedConfig, run.require("embed").config, source="the manifest, stage embed")
    parts: dict[str, tuple[_Part, list[dict[str, str]]]] = {}
    for name, rows in encode.items():
        if len(rows):
            made = encode_modality(run, config, Catalog(after.table[rows]), name, progress=progress)
            if made is None:
                parts[name] = _missing(old[name], rows), []
                continue
            _check_encoder(made.embeddings, old[name])
            parts[name] = _Part(rows, made.embeddings.vectors, made.embeddings.mask), made.problems
    return parts


def _aligned(
    run: Run,
    after: Catalog,
    *,
    old: Mapping[str, Embeddings],
    made: Mapping[str, Embeddings],
    given: NDArray[np.int64],
    progress: Progress,
) -> dict[str, list[_Part]]:
    """What alignment makes of the rows that are new or have other vectors than before, by modality that it wrote."""
    if len(old) == len(made):
        return {}
    rows = given[np.array([_has_changed(old, made, row) for row in given.tolist()], dtype=np.bool_)]
    if not len(rows):
        return {}
    # Not above: most runs have no alignment, and it brings all that trains one.
    from genrec.encoders.alignment import project_items

    catalog = Catalog(after.table[rows])
    items = {
        name: Embeddings(name, one.vectors[rows], one.mask[rows], one.model, one.revision, catalog.order_checksum)
        for name, one in made.items()
    }
    projected = project_items(run, items, catalog=catalog, progress=progress)
    return {name: [_Part(rows, *pair)] for name, pair in projected.items() if name in old}


def _has_changed(old: Mapping[str, Embeddings], made: Mapping[str, Embeddings], row: int) -> bool:
    return any(
        row >= len(old[name].mask)
        or old[name].mask[row] != one.mask[row]
        or not np.array_equal(old[name].vectors[row], one.vectors[row])
        for name, one in made.items()
    )


def _missing(old: Embeddings, rows: NDArray[np.int64]) -> _Part:
    """No vector of that modality for any of the rows."""
    return _Part(rows, np.zeros((len(rows), old.vectors.shape[1]), np.float32), np.zeros(len(rows), np.bool_))


def _extended(old: Embeddings, after: Catalog, parts: Sequence[_Part]) -> Embeddings:
    vectors = np.zeros((len(after), old.vectors.shape[1]), dtype=np.float32)
    mask = np.zeros(len(after), dtype=np.bool_)
    vectors[: len(old.vectors)], mask[: len(old.mask)] = old.vectors, old.mask
    for part in parts:
        if part.vectors.shape[1] != vectors.shape[1]:
            raise DataError(
                f"The new {old.modality} vectors have width {part.vectors.shape[1]}, the run's {vectors.shape[1]}.",
                "Make them as the others were made.",
            )
        vectors[part.rows], mask[part.rows] = part.vectors, part.mask
    return Embeddings(old.modality, vectors, mask, old.model, old.revision, after.order_checksum)


def _num_untouched(old: Embeddings, given: NDArray[np.int64], parts: Sequence[_Part]) -> int:
    """How many of the rows `given` have the vector that they had, because nothing has said another."""
    known = given[given < len(old.mask)]
    touched = np.concatenate([part.rows for part in parts])
    return int(old.mask[np.setdiff1d(known, touched)].sum())


def _check_encoder(made: Embeddings, old: Embeddings) -> None:
    if made.revision != old.revision:
        raise ModelError(
            f"The encoder {made.model} is not the one that the run was embedded with (revision {made.revision}, "
            f"then {old.revision}).",
            "Bring the old one back, or run `genrec embed`, `tokenize` and `train` again.",
        )
