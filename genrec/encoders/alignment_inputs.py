"""What the stage `align` reads from a run: the vectors of the stage `embed`, and attribute texts as more rows.

I items, A attribute texts, R = I + A rows, M modalities, D width of a modality.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.config import AlignConfig, EmbedConfig, build_config
from genrec.data.catalog import Catalog
from genrec.data.splits import cold_items
from genrec.encoders.alignment_data import ATTRIBUTE_MODALITY, Attributes, find_attributes, no_attributes
from genrec.encoders.base import WRITTEN_BY_ALIGN, Embeddings
from genrec.encoders.cache import encode_items
from genrec.encoders.text import text_encoder
from genrec.errors import ConfigError, DataError
from genrec.progress import Progress
from genrec.run import Run


@dataclass(frozen=True, eq=False)
class AlignmentInputs:
    """Items and attribute texts with their vectors."""

    run: Run
    catalog: Catalog
    embedded: EmbedConfig
    embeddings: dict[str, Embeddings]  # by modality, of the items
    attributes: Attributes
    attribute_vectors: NDArray[np.float32] | None  # (A, D) of ATTRIBUTE_MODALITY; None: there are no attributes
    warm: NDArray[np.bool_]  # (I,) items that may teach: not those that ingest held out
    remarks: list[str]  # for people: what was asked for and cannot be had, what a figure hides

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.catalog)

    @cached_property
    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """By modality (R, D), zero where missing."""
        return {name: self._with_attributes(name, made.vectors) for name, made in self.embeddings.items()}

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """What is present, (R, M)."""
        items = np.stack([made.mask for made in self.embeddings.values()], axis=1)
        texts = np.zeros((len(self.attributes.texts), len(self.embeddings)), dtype=bool)
        for column, name in enumerate(self.embeddings):
            texts[:, column] = name == ATTRIBUTE_MODALITY
        return np.concatenate([items, texts])

    @cached_property
    def has_vector(self) -> NDArray[np.bool_]:
        """Which items have a vector of any modality, (I,)."""
        return np.logical_or.reduce([made.mask for made in self.embeddings.values()])

    @property
    def teaches(self) -> NDArray[np.bool_]:
        """Which items something is learned from, (I,)."""
        return self.has_vector & self.warm

    def _with_attributes(self, modality: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        more = np.zeros((len(self.attributes.texts), vectors.shape[1]), dtype=np.float32)
        if modality == ATTRIBUTE_MODALITY and self.attribute_vectors is not None:
            more = self.attribute_vectors
        return np.concatenate([vectors, more])


def read_inputs(run: Run, config: AlignConfig, *, progress: Progress) -> AlignmentInputs:
    """Everything that the stage reads, attribute texts encoded by the run's own text encoder.

    Raises RunError where the run has no vectors, ConfigError where a modality has a name that align writes.
    """
    record = run.require("embed")
    catalog = Catalog.load(run)
    embedded = build_config(EmbedConfig, record.config, source="the configuration of the stage embed")
    names = [Path(file).stem for file in record.outputs if file.endswith(".npy")]
    for name in names:
        if name.split("-")[0] in WRITTEN_BY_ALIGN:
            raise ConfigError(f"Modality {name!r} has a name that align writes.", "Embed it under another name.")
    warm = ~cold_items(run)
    loaded = {name: Embeddings.load(run, name, catalog=catalog) for name in names}
    embeddings = {name: made for name, made in loaded.items() if np.count_nonzero(made.mask & warm) >= 2}
    if not embeddings:
        raise DataError("fewer than two items have a vector of anything.", "Run `genrec embed` with other modalities.")
    attributes, vectors, remarks = _attributes(run, config, catalog, warm=warm, embedded=embedded, progress=progress)
    few = sorted(loaded.keys() - embeddings.keys())
    remarks += [f"{name} is left out: fewer than two items that teach have a vector of it." for name in few]
    if embedded.behaviour_model is not None:
        remarks.append(
            "The behaviour vectors were made from all training histories, those of the held-out users too: what is "
            "said below of the item used next by behaviour, and by all, is partly remembered."
        )
    return AlignmentInputs(run, catalog, embedded, embeddings, attributes, vectors, warm, remarks)


def _attributes(
    run: Run,
    config: AlignConfig,
    catalog: Catalog,
    *,
    warm: NDArray[np.bool_],
    embedded: EmbedConfig,
    progress: Progress,
) -> tuple[Attributes, NDArray[np.float32] | None, list[str]]:
    nothing = no_attributes(len(catalog))
    if config.objective != "contrastive" or config.attribute_weight == 0:
        return nothing, None, []
    if embedded.text_model is None:
        return nothing, None, ["No attribute text is used: the run was embedded without a text encoder."]
    found = find_attributes(catalog, config, warm=warm)
    if not found.texts:
        fields = ", ".join(config.attribute_fields)
        return nothing, None, [f"No attribute text is used: none of {fields} has values that are common enough."]
    encoder = text_encoder(embedded, progress=progress)
    made = encode_items(encoder, found.texts, run=run, batch_size=embedded.batch_size, progress=progress)
    return found, made.vectors, []
