"""Stages that are killed or run out of disk: the run stays readable and the stage can be run again.

One process loads the heavy packages and forks a child per scenario, so that a child may kill itself (SIGKILL)
or be denied further writes (RLIMIT_FSIZE, what a full disk looks like to a program).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec import pipeline
from genrec.catalogue_changes import remove_items
from genrec.config import EmbedConfig, EvaluateConfig, IngestConfig, TokenizeConfig, TrainConfig, load_config
from genrec.data.ingest import ingest
from genrec.encoders.embed import embed
from genrec.errors import ConfigError, RunError
from genrec.inspection import inspect_run
from genrec.recommender import Recommender
from genrec.run import Run, file_checksum

PROGRAM = r'''
import json, os, resource, signal, sys
from contextlib import contextmanager
from pathlib import Path
import genrec.run
from genrec import config, pipeline
from genrec.data.ingest import ingest
from genrec.encoders.embed import embed
from genrec.errors import GenrecError


class Deadly:
    """A Progress that kills its own process at the n-th report."""

    def __init__(self, reports):
        self.left = reports

    def say(self, line):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def advance(self, amount=1, note=""):
        self.say(note)

    @contextmanager
    def track(self, label, total, unit):
        self.say(label)
        yield self


def kill_after(name):
    """Die as soon as the file or folder `name` has taken its place."""
    replace = Path.replace

    def deadly(path, target):
        done = replace(path, target)
        if Path(target).name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.replace = deadly


def play(scenario):
    files = Path(scenario["files"])
    load = lambda kind, stage: config.load_config(kind, files / f"{stage}.yaml")
    if "after" in scenario:
        kill_after(scenario["after"])
    if "file_bytes" in scenario:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (scenario["file_bytes"], scenario["file_bytes"]))
    run, progress = genrec.run.Run.open(scenario["run"]), Deadly(scenario.get("reports", -1))
    stage = scenario["stage"]
    if stage == "ingest":
        tables = [files / "items.jsonl", files / "interactions.csv"]
        ingest(run, "tables", tables, load(config.IngestConfig, stage), progress=progress)
    elif stage == "embed":
        embed(run, load(config.EmbedConfig, stage), progress=progress)
    elif stage == "tokenize":
        pipeline.tokenize(run, load(config.TokenizeConfig, stage), progress=progress)
    elif stage == "evaluate":
        pipeline.evaluate(run, load(config.EvaluateConfig, stage), progress=progress)
    else:
        training = load(config.TrainConfig, stage).model_copy(update={"checkpoint_seconds": 0.0})
        pipeline.train(run, training, progress=progress, resume=scenario.get("resume", False))


results = {}
for name, scenario in json.load(sys.stdin).items():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            play(scenario)
            said = "done"
        except GenrecError as error:
            said = f"{type(error).__name__}: {error}"
        except BaseException as error:
            said = f"UNEXPECTED {type(error).__name__}: {error}"
        os.write(writer, said.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        said = stream.read()
    status = os.waitpid(child, 0)[1]
    results[name] = {"said": said, "killed": os.WIFSIGNALED(status)}
json.dump(results, sys.stdout)
'''

# The verb that has to be run again, and how it was stopped.
SCENARIOS: dict[str, dict[str, Any]] = {
    "ingest killed while reading": {"stage": "ingest", "reports": 1},
    "ingest killed between its files": {"stage": "ingest", "after": "items.parquet"},
    "embed killed between its files": {"stage": "embed", "after": "text.npy"},
    "tokenize killed between its files": {"stage": "tokenize", "after": "codes.npy"},
    "tokenize killed while the trie is written": {"stage": "tokenize", "after": "CURRENT"},
    "train killed in its first epoch": {"stage": "train", "reports": 3},
    "train killed after its model is written": {"stage": "train", "after": "model"},
    "evaluate killed while ranking": {"stage": "evaluate", "reports": 1},
    "evaluate killed between its files": {"stage": "evaluate", "after": "test.json"},
    "ingest on a full disk": {"stage": "ingest", "file_bytes": 1000},
    "embed on a full disk": {"stage": "embed", "file_bytes": 500},
    "tokenize on a full disk": {"stage": "tokenize", "file_bytes": 180},
    "train on a full disk": {"stage": "train", "file_bytes": 20_000},
    "evaluate on a full disk": {"stage": "evaluate", "file_bytes": 500},
}
FULL = [name for name, scenario in SCENARIOS.items() if "file_bytes" in scenario]
KILLED = [name for name in SCENARIOS if name not in FULL]
STAGES = ["ingest", "embed", "tokenize", "trie", "train"]


def changed_files(files: Path, folder: Path) -> Path:
    """Inputs and configurations from which every stage makes other files than it did."""
    shutil.copytree(files, folder)
    (folder / "items.jsonl").write_text((files / "items.jsonl").read_text().replace("Film", "Motion picture"))
    np.save(folder / "vectors.npy", np.load(files / "vectors.npy") * np.float32(2))
    (folder / "embed.yaml").write_text((files / "embed.yaml").read_text().replace(str(files), str(folder)))
    for stage in ("tokenize", "train"):
        (folder / f"{stage}.yaml").write_text((files / f"{stage}.yaml").read_text() + "seed: 9\n")
    return folder


@pytest.fixture(scope="module")
def played(tiny_run: Path, tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every scenario after it was played: what it said, if it was killed, the run it left and a copy of that."""
    folder = tmp_path_factory.mktemp("interrupted")
    scenarios = {}
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        run = shutil.copytree(tiny_run, folder / f"run{number}")
        files = changed_files(tiny_files, folder / f"files{number}")
        scenarios[name] = scenario | {"run": str(run), "files": str(files)}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(scenarios),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    results = json.loads(finished.stdout)
    for scenario in scenarios.values():
        scenario["copy"] = shutil.copytree(scenario["run"], scenario["run"] + "-copy")
    return {name: scenarios[name] | results[name] for name in scenarios}


def run_stages(run: Run, files: Path, first: str) -> None:
    """The stage `first` and all that come after it, undisturbed."""
    tables = [files / "items.jsonl", files / "interactions.csv"]
    stages: dict[str, Callable[[], object]] = {
        "ingest": lambda: ingest(run, "tables", tables, load_config(IngestConfig, files / "ingest.yaml")),
        "embed": lambda: embed(run, load_config(EmbedConfig, files / "embed.yaml")),
        "tokenize": lambda: pipeline.tokenize(run, load_config(TokenizeConfig, files / "tokenize.yaml")),
        "train": lambda: pipeline.train(run, load_config(TrainConfig, files / "train.yaml")),
        "evaluate": lambda: pipeline.evaluate(run, load_config(EvaluateConfig, files / "evaluate.yaml")),
    }
    names = list(stages)
    for name in names[names.index(first) :]:
        stages[name]()


@pytest.mark.parametrize("name", KILLED)
def test_after_a_kill_the_run_is_readable_and_the_stage_can_be_run_again(
    played: dict[str, dict[str, Any]], name: str
) -> None:
    scenario = played[name]
    assert scenario["killed"], scenario["said"]
    run = Run.open(scenario["run"])
    assert "finished" in inspect_run(run).words[0]
    assert set(run.stages) <= set(STAGES)
    run_stages(run, Path(scenario["files"]), scenario["stage"])
    assert list(run.stages)[-1] == "evaluate:test"
    assert len(Recommender.load(run.path).recommend(["i0"], k=5)) == 5


FOLLOWING = {"ingest": "embed", "embed": "tokenize", "tokenize": "train", "train": "evaluate"}


@pytest.mark.parametrize("name", [name for name in KILLED if "after" in SCENARIOS[name] and "evaluate" not in name])
def test_files_of_a_stage_that_was_killed_before_its_record_are_not_used(
    played: dict[str, dict[str, Any]], name: str
) -> None:
    stage = SCENARIOS[name]["stage"]
    assert played[name]["killed"]
    run = Run.open(played[name]["copy"])
    with pytest.raises(RunError, match=f"genrec {stage}"):
        run_stages(run, Path(played[name]["files"]), FOLLOWING[stage])


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_said_with_the_path_and_leaves_everything_as_it_was(
    played: dict[str, dict[str, Any]], name: str, tiny_run: Path
) -> None:
    scenario = played[name]
    assert not scenario["killed"]
    assert re.match(rf"RunError: {scenario['run']}/\S+ could not be written: .+ Free some disk space", scenario["said"])
    run = Run.open(scenario["run"])
    assert list(run.stages) == STAGES
    for stage in STAGES:
        if stage != scenario["stage"]:
            run.require(stage)
    assert not [path for path in run.path.rglob("*.tmp")]
    if scenario["stage"] != "tokenize":  # which replaces several files and stops half-way
        mine, original = Recommender.load(run.path), Recommender.load(tiny_run)
        assert mine.recommend(["i0", "i3"]) == original.recommend(["i0", "i3"])


def test_a_killed_training_that_is_resumed_makes_the_same_model_as_an_undisturbed_one(
    played: dict[str, dict[str, Any]], tiny_run: Path, tmp_path: Path
) -> None:
    scenario = played["train killed in its first epoch"]
    training = load_config(TrainConfig, Path(scenario["files"]) / "train.yaml")
    training = training.model_copy(update={"checkpoint_seconds": 0.0})
    killed, undisturbed = Run.open(scenario["copy"]), Run(shutil.copytree(tiny_run, tmp_path / "run"))
    assert (killed.path / "training" / "checkpoint").is_dir()
    with pytest.raises(ConfigError, match="epochs \\(2 then, 3 now\\)"):
        pipeline.train(killed, training.model_copy(update={"epochs": 3}), resume=True)
    changed, gone = Run(shutil.copytree(killed.path, tmp_path / "changed")), tmp_path / "gone.txt"
    gone.write_text("i4\n")
    remove_items(changed, gone, when="2026-01-02T03:04:05+00:00")
    with pytest.raises(ConfigError, match=r"removed_items\.parquet"):  # the rest of its epoch would be another epoch
        pipeline.train(changed, training, resume=True)
    resumed = pipeline.train(killed, training, resume=True)
    expected = pipeline.train(undisturbed, training)
    assert resumed.facts["history"] == expected.facts["history"]
    name = "model/model.safetensors"
    assert file_checksum(killed.path / name) == file_checksum(undisturbed.path / name)
    assert file_checksum(killed.path / name) != file_checksum(tiny_run / name)
    assert not (killed.path / "training" / "checkpoint").exists()
