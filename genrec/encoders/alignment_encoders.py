"""The encoders of a run as alignment adapts them: built as the stage `embed` built them, trained, saved, loaded.

    RUN/alignment/encoder-<modality>.json          family and settings, base encoder and its revision
                  encoder-<modality>.safetensors   the weights that were trained, and nothing else

N inputs, R rows (items, then attribute texts), D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genrec.config import AlignConfig, EmbedConfig, build_config
from genrec.data.catalog import Catalog
from genrec.encoders.adaptation import Family, TrainableEncoder, adapt, trained_weights
from genrec.encoders.alignment_data import ATTRIBUTE_MODALITY
from genrec.encoders.alignment_inputs import AlignmentInputs
from genrec.encoders.audio import audio_encoder
from genrec.encoders.base import Embeddings
from genrec.encoders.cache import encode_items
from genrec.encoders.checkpoints import fingerprint_of
from genrec.encoders.image import image_encoder
from genrec.encoders.media import DESCRIPTORS, media_files
from genrec.encoders.text import text_encoder
from genrec.encoders.texts import item_texts
from genrec.encoders.video import video_encoder
from genrec.errors import ConfigError, DataError, RunError, UnreadableInputError
from genrec.files import atomic_file
from genrec.progress import SILENT, Progress
from genrec.run import Run, file_checksum, read_json, write_json

_AGAIN = "Run `genrec embed RUN --align` again."


class LiveInputs(nn.Module):
    """An encoder in training with the inputs of all rows; see `alignment_model.LiveEncoder`."""

    def __init__(self, encoder: TrainableEncoder, inputs: Sequence[Any], *, num_trained: int) -> None:
        """`inputs` (R,), None where missing; `num_trained` weights of the encoder learn."""
        super().__init__()
        self.num_trained = num_trained
        self.encoder, self.inputs = encoder, inputs
        self.module = encoder.module  # entered here so that the optimizer and accelerate find it

    @property
    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {"model": self.encoder.model, "num_trained": self.num_trained, "num_weights": self._num_weights}

    @property
    def words(self) -> str:
        """One line for people."""
        return f"{self.num_trained:,} of {self._num_weights:,} weights of {self.encoder.model} learn."

    @property
    def _num_weights(self) -> int:
        return sum(weight.numel() for weight in self.module.parameters())

    def train(self, mode: bool = True) -> LiveInputs:
        """Stay as in use: few steps on few items need no dropout, and vectors stay comparable."""
        del mode
        super().train(False)
        return self

    def vectors(self, rows: Tensor) -> Tensor:
        """Vectors (N, D) of present rows (N,), with gradients."""
        values = [self.encoder.read(self.inputs[row]) for row in rows.tolist()]
        return self.encoder.pooled(self.encoder.batch(values)).to(rows.device)


@dataclass(frozen=True)
class AdaptedEncoder:
    """A run's encoder with what alignment taught it: an `ItemEncoder` with a name and a fingerprint of its own."""

    base: TrainableEncoder
    model: str
    revision: str

    @property
    def modality(self) -> str:
        """That of the base."""
        return self.base.modality

    @property
    def width(self) -> int:
        """That of the base."""
        return self.base.width

    @property
    def fingerprint(self) -> str:
        """Of base and trained weights together."""
        return fingerprint_of({"base": self.base.fingerprint, "trained": self.revision})

    def content(self, value: Any) -> bytes:
        """As the base has it."""
        return self.base.content(value)

    def read(self, value: Any) -> Any:
        """As the base does."""
        return self.base.read(value)

    @torch.no_grad()
    def encode(self, values: list[Any]) -> NDArray[np.float32]:
        """Vectors (N, D) of N decoded inputs."""
        return self.base.encode(values)


def adapt_encoders(inputs: AlignmentInputs, config: AlignConfig, *, progress: Progress) -> dict[str, LiveInputs]:
    """Encoders of the run that can learn, made ready for it.

    Raises ConfigError where the run has none, ModelError where the family does not fit one of them, DataError where
    something is gone that the run's vectors were made of.
    """
    assert config.unfreeze != "none"
    live = {}
    for modality in inputs.embeddings:
        encoder = _trainable(inputs.embedded, modality, progress=progress)
        if encoder is not None:
            count = adapt(encoder, config.unfreeze, lora_rank=config.lora_rank, prompt_tokens=config.prompt_tokens)
            values = _inputs_of(inputs, modality)
            _check_readable(inputs, modality, encoder, values)
            live[modality] = LiveInputs(encoder, values, num_trained=count)
    if not live:
        raise ConfigError(
            f"--unfreeze {config.unfreeze} finds no encoder that can learn: those of text, images, sounds and clips "
            "can, where they are models, and the run's vectors come from files or features without weights.",
            "Embed with --text, --image, --audio or --video MODEL, or leave --unfreeze out.",
        )
    frozen = sorted(inputs.embeddings.keys() - live.keys())
    inputs.remarks.extend(
        f"{name} stays as it was embedded: it has no model that {config.unfreeze} could train." for name in frozen
    )
    return live


def encode_anew(
    inputs: AlignmentInputs, live: Mapping[str, LiveInputs], config: AlignConfig, *, progress: Progress
) -> tuple[AlignmentInputs, list[Path]]:
    """Save what the encoders learned and encode all rows with it, into `adapted-<modality>`.

    Returns the inputs with the new vectors in the place of the old, and the paths written.
    """
    embeddings, attribute_vectors, written = dict(inputs.embeddings), inputs.attribute_vectors, []
    for modality, source in live.items():
        files = save_encoder(inputs.run, modality, source.encoder, config=config)
        encoder = adapted(source.encoder, files[-1], family=config.unfreeze)
        size = _batch_size(inputs.embedded, modality)
        made = encode_items(encoder, source.inputs, run=inputs.run, batch_size=size, progress=progress)
        old, rows = inputs.embeddings[modality], made.vectors[: inputs.num_items]
        new = Embeddings(
            modality, rows, made.mask[: inputs.num_items], encoder.model, encoder.revision, old.order_checksum
        )
        embeddings[modality] = new
        written += [*files, *replace(new, modality=f"adapted-{modality}").save(inputs.run)]
        if modality == ATTRIBUTE_MODALITY and attribute_vectors is not None:
            attribute_vectors = made.vectors[inputs.num_items :]
    return replace(inputs, embeddings=embeddings, attribute_vectors=attribute_vectors), written


def save_encoder(run: Run, modality: str, encoder: TrainableEncoder, *, config: AlignConfig) -> list[Path]:
    """Write what was trained and how to find it again; the paths written, the weights last."""
    description, weights = _files(run, modality)
    with atomic_file(weights) as temporary:
        save_file({name: w.detach().cpu().contiguous() for name, w in trained_weights(encoder).items()}, temporary)
    facts = {"family": config.unfreeze, "lora_rank": config.lora_rank, "prompt_tokens": config.prompt_tokens}
    write_json(description, {**facts, "base": encoder.model, "base_revision": encoder.revision})
    return [description, weights]


def load_adapted_encoder(run: Run, modality: str, *, progress: Progress = SILENT) -> AdaptedEncoder:
    """The encoder that made a run's `adapted-<modality>`: what encodes new items for `load_alignment`.

    Raises RunError where alignment adapted no such encoder, where its files are damaged, or where the base encoder
    is no longer the one that it was trained with.
    """
    record = run.require("align")
    description, weights = _files(run, modality)
    if f"alignment/{weights.name}" not in record.outputs:
        raise RunError(
            f"The alignment of {run.path} adapted no {modality} encoder.", "Its heads read the vectors as embedded."
        )
    facts = read_json(description)
    embedded = build_config(EmbedConfig, run.require("embed").config, source="the configuration of the stage embed")
    encoder = _trainable(embedded, modality, progress=progress)
    if encoder is None or encoder.revision != facts["base_revision"]:
        raise RunError(f"The {modality} encoder is not the one that {weights} was trained with.", _AGAIN)
    family: Family = facts["family"]
    adapt(encoder, family, lora_rank=facts["lora_rank"], prompt_tokens=facts["prompt_tokens"])
    learned = trained_weights(encoder)
    try:
        saved = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{weights} cannot be read: {error}.", _AGAIN) from error
    if {name: weight.shape for name, weight in saved.items()} != {name: w.shape for name, w in learned.items()}:
        raise RunError(f"{weights} does not hold the weights of {family} on {encoder.model}.", _AGAIN)
    with torch.no_grad():
        for name, weight in learned.items():
            weight.copy_(saved[name])
    return adapted(encoder, weights, family=family)


def adapted(encoder: TrainableEncoder, weights: Path, *, family: str) -> AdaptedEncoder:
    """An encoder in training as one that encodes; `weights` is the file of what it learned."""
    encoder.module.requires_grad_(False)
    return AdaptedEncoder(encoder, f"{encoder.model} + {family}", file_checksum(weights))


def encode_adapted(
    run: Run, modality: str, catalog: Catalog, *, mask: NDArray[np.bool_], progress: Progress = SILENT
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors (N, D) and mask (N,) of any items, as `adapted-<modality>` has them; `mask` (N,) says who has an input.

    Raises what `load_adapted_encoder` raises.
    """
    embedded = build_config(EmbedConfig, run.require("embed").config, source="the configuration of the stage embed")
    encoder = load_adapted_encoder(run, modality, progress=progress)
    if not mask.any():  # without one path in it, a table of items has no media
        return np.zeros((len(mask), encoder.width), np.float32), mask
    inputs = _item_inputs(run, catalog, embedded, modality)
    size = _batch_size(embedded, modality)
    made = encode_items(encoder, inputs, run=run, batch_size=size, progress=progress)
    return made.vectors, made.mask


def _batch_size(embedded: EmbedConfig, modality: str) -> int:
    """Inputs that are encoded at a time, as the stage `embed` has it."""
    return embedded.clip_batch_size if modality in ("audio", "video") else embedded.batch_size


def _trainable(embedded: EmbedConfig, modality: str, *, progress: Progress) -> TrainableEncoder | None:
    """The encoder of a modality as the stage `embed` used it, None where it has no weights."""
    if modality == "text" and embedded.text_model is not None:
        return text_encoder(embedded, progress=progress)
    media: dict[str, tuple[str | None, Callable[..., Any]]] = {
        "image": (embedded.image_model, image_encoder),
        "audio": (embedded.audio_model, audio_encoder),
        "video": (embedded.video_model, video_encoder),
    }
    model, load = media.get(modality, (None, None))
    if load is None or model in (None, DESCRIPTORS):
        return None
    encoder: TrainableEncoder = load(embedded, progress=progress)
    return encoder


def _inputs_of(inputs: AlignmentInputs, modality: str) -> list[Any]:
    """One input per row, (R,), None where missing."""
    texts = inputs.attributes.texts
    more = texts if modality == "text" else [None] * len(texts)
    return [*_item_inputs(inputs.run, inputs.catalog, inputs.embedded, modality), *more]


def _check_readable(inputs: AlignmentInputs, modality: str, encoder: TrainableEncoder, values: Sequence[Any]) -> None:
    """Raise DataError, before anything is learned, where an input that was embedded is not there any more."""
    gone = []
    for row in np.flatnonzero(inputs.embeddings[modality].mask).tolist():
        try:
            encoder.content(values[row])
        except UnreadableInputError as error:
            named = getattr(values[row], "name", values[row])
            gone.append(f"{inputs.catalog.item_ids[row]} ({named}): {error.reason}")
    if gone:
        raise DataError(
            f"{modality}: {len(gone):,} of the items that embed read cannot be read now: {'; '.join(gone[:5])}.",
            "Bring the files back, or run `genrec embed` again, which leaves them out.",
        )


def _item_inputs(run: Run, catalog: Catalog, embedded: EmbedConfig, modality: str) -> Sequence[Any]:
    """One text or file per item, (I,), None where missing."""
    if modality == "text":
        return item_texts(catalog, embedded)
    return media_files(run, catalog, modality, root=embedded.media_root)


def _files(run: Run, modality: str) -> tuple[Path, Path]:
    folder = run.path / "alignment"
    return folder / f"encoder-{modality}.json", folder / f"encoder-{modality}.safetensors"
