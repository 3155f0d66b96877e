"""The stage `dialogues`: real dialogues become part of a run, so that training and evidence can learn from them.

Names are found in the catalogue as a measurement finds them (`measuring`), so what is learned and what is asked are
the same. A seeded share of the dialogues is kept for validation: no task trains on them; `genrec evidence --dialogues`
fits its weights on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.measuring import DialogueCase, dialogue_cases
from genrec.config import DialoguesConfig, dump_config
from genrec.data.catalog import Catalog
from genrec.data.dialogues import STAGE, dialogues_file, read_turns
from genrec.errors import DataError
from genrec.files import atomic_file
from genrec.run import Run, StageReport, writes

_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "dialogue_id": pl.String,
    "split": pl.String,
    "context": pl.List(pl.String),
    "mentioned": pl.List(pl.String),
    "recommended": pl.List(pl.String),
}


@writes("genrec dialogues")
def learn_dialogues(run: Run, files: Sequence[Path], config: DialoguesConfig) -> StageReport:
    """Read dialogue files, write `dialogues.parquet` and record the stage.

    Turns that recommend nothing of the catalogue are counted and left out. Raises DataError for a file that cannot be
    read and where fewer than two dialogues are left.
    """
    started = run.begin()
    catalog = Catalog.load(run)
    index = CatalogueIndex.build(catalog)
    # A dialogue of one file is not one of another, whatever they are called.
    cases = [
        (f"{number}:{case.turn.dialogue_id}", case)
        for number, file in enumerate(files)
        for case in dialogue_cases(index, read_turns(file))
    ]
    kept = [(name, case) for name, case in cases if case.targets]
    names = list(dict.fromkeys(name for name, _ in kept))
    if len(names) < 2:
        raise DataError(
            f"{len(names)} of the dialogues recommend something that this catalogue has; two are needed at least.",
            'Names are found with their year: "Alien (1979)".',
        )
    held_out = np.random.default_rng(config.seed).permutation(len(names)) < max(1, config.validation_share * len(names))
    validation = {name for name, held in zip(names, held_out, strict=True) if held}
    table = pl.DataFrame([_row(name, case, validation, catalog) for name, case in kept], schema=_SCHEMA)
    with atomic_file(dialogues_file(run)) as temporary:
        table.write_parquet(temporary)
    report = _report(run, cases, num_dialogues=len(names), num_validation=len(validation))
    run.record(
        report,
        config=dump_config(config),
        seed=config.seed,
        inputs=[run.path / "items.parquet", *files],
        outputs=[dialogues_file(run)],
        started=started,
    )
    return report


def _row(name: str, case: DialogueCase, validation: set[str], catalog: Catalog) -> dict[str, object]:
    return {
        "dialogue_id": name,
        "split": "validation" if name in validation else "train",
        "context": list(case.turn.context),
        "mentioned": [catalog.item_ids[row] for row in case.mentioned],
        "recommended": [catalog.item_ids[row] for row in case.targets],
    }


def _report(
    run: Run, cases: Sequence[tuple[str, DialogueCase]], *, num_dialogues: int, num_validation: int
) -> StageReport:
    known = sum(len(case.targets) for _, case in cases)
    unknown = sum(case.num_unknown for _, case in cases)
    num_turns = sum(bool(case.targets) for _, case in cases)
    facts = {
        "num_dialogues": num_dialogues,
        "num_validation": num_validation,
        "num_turns": num_turns,
        "num_recommended": known,
        "num_unknown": unknown,
    }
    words = [
        f"{num_turns:,} turns of {num_dialogues:,} dialogues recommend {known:,} items of the catalogue;"
        f" {num_validation:,} dialogues are kept for validation.",
        f"{unknown:,} recommended items are not in the catalogue; {len(cases) - num_turns:,} turns with nothing else"
        " were left out.",
    ]
    return StageReport(
        STAGE, facts, words, f"genrec train {run.path} --config FILE, or genrec evidence {run.path} --dialogues"
    )
