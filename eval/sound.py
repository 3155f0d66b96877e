"""Classify the sounds of ESC-10 by their nearest neighbour among the vectors that `genrec embed` makes of them.

    python eval/sound.py FOLDER_OF_ESC10 [--audio descriptors]

The folder has one folder per class (`001 - Dog bark`) with files named `fold-recording-take.ogg`. Prints the share
of sounds whose nearest neighbour (Euclidean, vectors as they are) is of their class: among all other sounds, and
among those of other folds. Takes of one recording stand in one fold, so the second figure is the honest one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.config import EmbedConfig, IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.errors import DataError, GenrecError
from genrec.run import Run


def make_run(root: Path, folder: Path) -> Run:
    """A run in `folder` with the sounds as items; each class is a genre. Nobody uses them but one made-up user."""
    # Media paths lead into the folder of the table, and nothing is written into the data.
    shutil.copytree(root, folder / "esc10", copy_function=shutil.copyfile)
    files = sorted((folder / "esc10").glob("*/*.ogg"))
    if not files:
        raise DataError(f"{root} holds no folders with .ogg files.", "Give the folder of ESC-10.")
    items, interactions = folder / "esc10" / "items.jsonl", folder / "interactions.csv"
    rows = [
        {
            "item_id": file.stem,
            "title": file.stem,
            "genres": [file.parent.name],
            "audio": file.relative_to(items.parent).as_posix(),
        }
        for file in files
    ]
    items.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    interactions.write_text(f"user_id,item_id\nnobody,{files[0].stem}\n", encoding="utf-8")
    run = Run.create(folder / "run")
    ingest(run, "tables", [items, interactions], IngestConfig(min_interactions=1))
    return run


def nearest_neighbour_accuracy(
    vectors: NDArray[np.float32], labels: NDArray[np.str_], excluded: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether the nearest neighbour of each item (I,) has its label; `excluded` (I, I) may not be neighbours."""
    squares = (vectors**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * vectors @ vectors.T
    return labels[np.where(excluded, np.inf, distances).argmin(axis=1)] == labels


def table(run: Run) -> list[str]:
    """Rows of a Markdown table: each class and all of them, beside chance."""
    catalog = Catalog.load(run)
    made = Embeddings.load(run, "audio", catalog=catalog)
    heard = np.flatnonzero(made.mask)
    labels = np.array([genres[0] for genres in catalog.table["genres"].to_list()])[heard]
    folds = np.array([item_id.partition("-")[0] for item_id in catalog.item_ids])[heard]
    vectors = made.vectors[heard]
    others = nearest_neighbour_accuracy(vectors, labels, np.eye(len(heard), dtype=bool))
    other_folds = nearest_neighbour_accuracy(vectors, labels, folds[:, None] == folds[None])
    names, counts = np.unique(labels, return_counts=True)
    rows = ["| class | sounds | among all others | among other folds |", "|---|---|---|---|"]
    for name, count in zip(names, counts, strict=True):
        of_class = labels == name
        rows.append(f"| {name} | {count} | {others[of_class].mean():.1%} | {other_folds[of_class].mean():.1%} |")
    rows.append(f"| **all** | {len(heard)} | **{others.mean():.1%}** | **{other_folds.mean():.1%}** |")
    chance = float((counts / counts.sum()) @ (counts / counts.sum()))
    return [*rows, f"| chance | | {chance:.1%} | {chance:.1%} |"]


def main() -> int:
    """Read the command line, embed, classify, print."""
    parser = argparse.ArgumentParser(description="Nearest-neighbour classification of ESC-10.")
    parser.add_argument("esc10", type=Path)
    parser.add_argument("--audio", default="descriptors", help="as in `genrec embed --audio`")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(given.esc10, Path(folder))
            started = time.monotonic()
            report = embed(run, EmbedConfig(text_model=None, behaviour_model=None, audio_model=given.audio))
            print("\n".join([*report.words, f"Embedding took {time.monotonic() - started:.1f} s.", "", *table(run)]))
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
