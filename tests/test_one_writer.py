"""Two processes that would write one run: the second is refused by name, readers are not, a kill leaves no lock."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrec import Recommender, pipeline
from genrec.catalogue_changes import add_items, remove_items, update_items
from genrec.chat.learning import learn_dialogues
from genrec.config import (
    AlignConfig,
    DialoguesConfig,
    EmbedConfig,
    EvaluateConfig,
    EvidenceConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
    TransferConfig,
    TuneConfig,
)
from genrec.data.ingest import ingest
from genrec.encoders.alignment import align
from genrec.encoders.embed import embed
from genrec.errors import RunError
from genrec.journal import sole_writer
from genrec.run import Run
from genrec.transfer import transfer
from genrec.tuning import tune_baselines
from genrec.weighing import weigh_evidence

# Writes a folder until it is killed.
HOLD = """
import pathlib, signal, sys
from genrec.journal import sole_writer

with sole_writer(pathlib.Path(sys.argv[1]), "genrec train"):
    print("writing", flush=True)
    signal.pause()
"""
FILE = Path("nothing.jsonl")
WRITERS: dict[str, Callable[[Run], Any]] = {
    "ingest": lambda run: ingest(run, "tables", [FILE, FILE], IngestConfig()),
    "embed": lambda run: embed(run, EmbedConfig()),
    "align": lambda run: align(run, AlignConfig()),
    "tokenize": lambda run: pipeline.tokenize(run, TokenizeConfig()),
    "tokenize --from": lambda run: pipeline.tokenize_from(run, run),
    "dialogues": lambda run: learn_dialogues(run, [FILE], DialoguesConfig()),
    "train": lambda run: pipeline.train(run, TrainConfig()),
    "evidence": lambda run: weigh_evidence(run, EvidenceConfig()),
    "tune": lambda run: tune_baselines(run, TuneConfig()),
    "items add": lambda run: add_items(run, FILE, when=""),
    "items remove": lambda run: remove_items(run, FILE, when=""),
    "items update": lambda run: update_items(run, FILE, when=""),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".writer.lock"
    }


@pytest.mark.parametrize("name", WRITERS)
def test_a_second_writer_of_a_run_is_refused_and_changes_nothing(name: str, tiny_copy: Path):
    before = contents(tiny_copy)
    with (
        sole_writer(tiny_copy, "genrec train"),
        pytest.raises(RunError, match=r"is being written by `genrec train` \(process \d+ on "),
    ):
        WRITERS[name](Run.open(tiny_copy))
    assert contents(tiny_copy) == before


def test_the_refusal_names_the_process_and_a_kill_leaves_no_lock(
    genrec: Callable[..., Any], tiny_copy: Path, tiny_files: Path
):
    options = (tiny_copy, "--config", tiny_files / "train.yaml", "--epochs", "1")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tiny_copy)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        refused = genrec("train", *options)
        other.send_signal(signal.SIGKILL)
    assert refused.status == 1
    assert f"is being written by `genrec train` (process {other.pid} on " in refused.err
    assert genrec("train", *options).status == 0


def test_whoever_reads_a_run_that_is_being_written_need_not_wait(tiny_copy: Path, tiny_files: Path):
    with sole_writer(tiny_copy, "genrec train"):
        assert len(Recommender.load(tiny_copy).recommend(["i1"], 3)) == 3
        config = EvaluateConfig(baselines=(), cutoffs=(5,), beam_width=10, max_users=5)
        assert pipeline.evaluate(Run.open(tiny_copy), config).facts


def test_a_second_transfer_into_a_folder_is_refused(tiny_run: Path, tiny_copy: Path, tmp_path: Path):
    with (
        sole_writer(tmp_path / "out", "genrec transfer"),
        pytest.raises(RunError, match="written by `genrec transfer`"),
    ):
        transfer(Run.open(tiny_run), Run.open(tiny_copy), TransferConfig(), out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".writer.lock"]


def test_the_processes_of_one_distributed_training_are_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    with sole_writer(tmp_path, "genrec train"):
        monkeypatch.setenv("RANK", "1")
        with sole_writer(tmp_path, "genrec train"):
            monkeypatch.setenv("RANK", "0")
            with pytest.raises(RunError, match="being written"), sole_writer(tmp_path, "genrec train"):
                pytest.fail("two writers")
