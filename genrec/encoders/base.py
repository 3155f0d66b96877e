"""What every encoder gives: one vector per item and modality, plus a mask of what is missing.

I items, N inputs, D width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.errors import ConfigError, RunError
from genrec.files import array_stream, atomic_file
from genrec.run import Run, read_json, write_json

InputT = TypeVar("InputT", contravariant=True)  # what the catalogue has: a text, a file
DecodedT = TypeVar("DecodedT")  # what the model takes: a text, pixels, samples


# First words of the modalities that the stage `align` makes out of others: `aligned`, `aligned-text`, `adapted-text`.
WRITTEN_BY_ALIGN = ("aligned", "adapted")


class ItemEncoder(Protocol[InputT, DecodedT]):
    """A frozen model that turns inputs of one modality (texts, pictures, …) into vectors."""

    @property
    def modality(self) -> str:
        """What its inputs are: `text`, `image`, …"""
        ...

    @property
    def model(self) -> str:
        """The model's name, for people."""
        ...

    @property
    def revision(self) -> str:
        """Which weights of that name: a commit or a checksum."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal name of everything that decides a vector besides the input: weights and settings."""
        ...

    @property
    def width(self) -> int:
        """D, the width of its vectors."""
        ...

    def content(self, value: InputT) -> bytes:
        """What the cache is keyed by: equal bytes mean equal vectors. Longer ones are encoded first.

        Raises UnreadableInputError where there is nothing to read.
        """
        ...

    def read(self, value: InputT) -> DecodedT:
        """Decode one input, as small as the model takes it: a batch of these is held in memory.

        Raises UnreadableInputError, and nothing else, where the input is damaged: the item then counts as
        missing, with the reason, and the rest of its batch goes on.
        """
        ...

    def encode(self, values: list[DecodedT]) -> NDArray[np.float32]:
        """Vectors (N, D) of N decoded inputs, in order."""
        ...


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The vectors of one modality, tied to one order of items."""

    modality: str
    vectors: NDArray[np.float32]  # (I, D), zero where missing
    mask: NDArray[np.bool_]  # (I,), True = present
    model: str
    revision: str
    order_checksum: str

    def save(self, run: Run) -> list[Path]:
        """Write `embeddings/<modality>.npy` and `.json`; the paths written."""
        check_modality(self.modality)
        vectors, description = _files(run, self.modality)
        with atomic_file(vectors) as temporary, array_stream(temporary) as stream:
            np.save(stream, np.ascontiguousarray(self.vectors, dtype=np.float32), allow_pickle=False)
        write_json(
            description,
            {
                "modality": self.modality,
                "model": self.model,
                "revision": self.revision,
                "order_checksum": self.order_checksum,
                "num_items": len(self.vectors),
                "width": self.vectors.shape[1],
                "missing": np.flatnonzero(~self.mask).tolist(),
            },
        )
        return [vectors, description]

    @classmethod
    def load(cls, run: Run, modality: str, *, catalog: Catalog) -> Embeddings:
        """Read a modality's vectors.

        Raises RunError where there are none, where no finished stage vouches for them, where the files are damaged,
        where they were made for another catalogue (other items or another order), and where align wrote them for
        vectors that have changed since.
        """
        if modality.split("-")[0] in WRITTEN_BY_ALIGN:
            run.require("align")
        file, description = _files(run, modality)
        if not description.is_file():
            raise RunError(
                f"{run.path} has no vectors of modality {modality!r}.",
                "Run `genrec embed RUN` first, or choose another modality.",
            )
        if modality not in vouched_modalities(run):
            raise RunError(
                f"No finished stage vouches for the {modality} vectors in {run.path}: they are left from earlier.",
                f"Make them again with `genrec embed {run.path}`, or choose another modality.",
            )
        facts = read_json(description)
        if facts["order_checksum"] != catalog.order_checksum:
            raise RunError(
                f"The {modality} embeddings belong to another catalogue ({facts['num_items']:,} items; "
                f"this one has {len(catalog):,}, or another order).",
                "Run `genrec embed RUN` again; unchanged items come from the cache.",
            )
        vectors = _read_vectors(file, shape=(len(catalog), facts["width"]))
        mask = np.ones(len(catalog), dtype=bool)
        mask[facts["missing"]] = False
        return cls(modality, vectors, mask, facts["model"], facts["revision"], facts["order_checksum"])


def check_modality(name: str) -> None:
    """Raise ConfigError unless `name` can stand in a file name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ConfigError(
            f"{name!r} cannot name a modality.", "Use lower-case letters, digits, `-` and `_`, as in `text`."
        )


def vouched_modalities(run: Run) -> list[str]:
    """Modalities whose vectors a finished stage vouches for; files of others may lie there from earlier."""
    files = [Path(file) for record in run.stages.values() for file in record.outputs]
    return sorted({file.stem for file in files if file.parent == Path("embeddings") and file.suffix == ".npy"})


def embedding_files(run: Run, modality: str) -> list[Path]:
    """The files of a modality, existing or not."""
    return list(_files(run, modality))


def _files(run: Run, modality: str) -> tuple[Path, Path]:
    folder = run.path / "embeddings"
    return folder / f"{modality}.npy", folder / f"{modality}.json"


def _read_vectors(file: Path, *, shape: tuple[int, int]) -> NDArray[np.float32]:
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{file} cannot be read: {error}.", "Run `genrec embed RUN` again.") from error
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise RunError(
            f"{file} holds {vectors.dtype} {vectors.shape}, expected float32 {shape}.",
            "Run `genrec embed RUN` again.",
        )
    return np.asarray(vectors, dtype=np.float32)
