"""A copy of a MovieLens folder in which posters are missing and broken, to see what that costs.

    python eval/missing_posters.py FOLDER --out COPY --missing 0.3 --broken 50 --seed 0
    genrec ingest movielens COPY --out runs/holes && genrec embed runs/holes --image descriptors
    python eval/tokenizer_ablation.py runs/holes --out runs/ablation-holes --variants "text+image"
    python eval/tokenizer_ablation.py runs/whole --out runs/ablation --variants "text;text+image" \\
        --beside "posters missing=runs/ablation-holes"

Tables are hard links. `--missing` is the share of the posters that are left out, at random; of those that stay,
`--broken` are spoiled in turn: cut short, empty, text, and bytes that are no image under the right name.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from genrec.errors import DataError, GenrecError


def make_holes(source: Path, target: Path, *, missing: float, broken: int, seed: int) -> tuple[int, list[str]]:
    """Make the copy; how many posters are left out, and the names of the broken ones.

    Raises DataError where there are no posters, too few of them, or `target` is not empty.
    """
    posters = sorted(path for path in (source / "posters").glob("*") if path.is_file())
    if not posters:
        raise DataError(f"{source / 'posters'} holds no posters.", "Name a MovieLens folder that has some.")
    if target.exists() and any(target.iterdir()):
        raise DataError(f"{target} is not empty.", "Name a new folder with --out.")
    order = np.random.default_rng(seed).permutation(len(posters))
    num_missing = round(missing * len(posters))
    if num_missing + broken > len(posters):
        raise DataError(f"{len(posters)} posters cannot lose {num_missing} and break {broken}.", "Ask for fewer.")
    (target / "posters").mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            os.link(path, target / path.name)
    spoiled = [posters[index] for index in order[num_missing : num_missing + broken]]
    for number, path in enumerate(spoiled):
        whole = path.read_bytes()
        contents = (whole[: len(whole) // 3], b"", b"not an image\n", bytes(reversed(whole)))
        (target / "posters" / path.name).write_bytes(contents[number % len(contents)])
    for index in order[num_missing + broken :]:
        os.link(posters[index], target / "posters" / posters[index].name)
    return num_missing, [path.name for path in spoiled]


def main() -> int:
    """Read the command line, make the copy, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--missing", type=float, default=0.3)
    parser.add_argument("--broken", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        left_out, broken = make_holes(
            options.source, options.out, missing=options.missing, broken=options.broken, seed=options.seed
        )
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(f"{left_out} posters left out, {len(broken)} broken: {' '.join(broken)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
