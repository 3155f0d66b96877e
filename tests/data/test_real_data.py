"""Published sizes of published data sets, where they lie beside the repository (GENREC_DATA)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genrec.config import IngestConfig
from genrec.data.ingest import ingest
from genrec.data.splits import evaluation_cases, training_sequences
from genrec.run import Run

DATA = Path(os.environ.get("GENREC_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))


def needed(*names: str) -> list[Path]:
    paths = [DATA / name for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        pytest.skip(f"GENREC_DATA holds no {', '.join(missing)}")
    return paths


@pytest.mark.benchmark_data
def test_amazon_beauty_2014_has_its_published_size_and_splits(tmp_path: Path) -> None:
    paths = needed("amazon_beauty_2014/items.jsonl.gz", "amazon_beauty_2014/interactions.csv.gz")
    run = Run.create(tmp_path / "run")
    # Seven of its items have an empty title.
    facts = ingest(run, "tables", paths, IngestConfig(min_interactions=5)).facts
    assert (facts["num_users"], facts["num_items"], facts["num_interactions"]) == (22_363, 12_101, 198_502)
    assert (facts["num_train"], facts["num_validation"], facts["num_test"]) == (153_776, 22_363, 22_363)
    assert facts["num_items_without_title"] == 7
    cases = evaluation_cases(run, "test")
    assert len(training_sequences(run).items) == 153_776
    assert len(cases.histories.items) == 153_776 + 22_363  # the validation item is part of the history


@pytest.mark.benchmark_data
def test_amazon_musical_instruments_2014_has_its_published_size(tmp_path: Path) -> None:
    paths = needed("amazon_musical_instruments_2014_reviews/reviews_Musical_Instruments_5.json.gz")
    facts = ingest(Run.create(tmp_path / "run"), "amazon", paths, IngestConfig()).facts
    assert (facts["num_users"], facts["num_items"], facts["num_interactions"]) == (1_429, 900, 10_261)
