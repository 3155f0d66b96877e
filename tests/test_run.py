"""The run directory: what a stage records, what becomes stale, and that a failed write changes nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from genrec.errors import RunError
from genrec.files import atomic_file, atomic_folder
from genrec.journal import changing
from genrec.run import FORMAT_VERSION, Run, StageReport, Started, file_checksum, read_json, text_checksum, write_json


def write(run: Run, name: str, text: str) -> Path:
    with atomic_file(run.path / name) as temporary:
        temporary.write_text(text)
    return run.path / name


def record(
    run: Run, stage: str, *, reads: Sequence[str] = (), writes: dict[str, str], started: Started | None = None
) -> None:
    outputs = [write(run, name, text) for name, text in writes.items()]
    inputs = [run.path / name for name in reads]
    report = StageReport(stage, {"num_files": len(outputs)}, ["done"])
    run.record(report, config={"k": 5}, seed=7, inputs=inputs, outputs=outputs, started=started or run.begin())


def chain(run: Run) -> None:
    """ingest → embed → tokenize → trie; popularity reads the log only."""
    record(run, "ingest", writes={"items": "i", "log": "l"})
    record(run, "embed", reads=["items"], writes={"vectors": "v"})
    record(run, "tokenize", reads=["vectors"], writes={"codes": "c"})
    record(run, "trie", reads=["codes"], writes={"keys": "k"})
    record(run, "popularity", reads=["log"], writes={"counts": "n"})


def test_a_record_comes_back_as_it_was_written(tmp_path: Path):
    run = Run.create(tmp_path / "run")
    outside = tmp_path / "raw.csv"
    outside.write_text("a,b\n")
    output = write(run, "deep/items", "i")
    report = StageReport("ingest", {"num_items": 3}, ["3 items"], "genrec embed")
    started = Started(run.begin().at - 60, {})
    run.record(report, config={"k": 5}, seed=7, inputs=[outside], outputs=[output], started=started)
    found = Run.open(run.path).require("ingest")
    assert (found.config, found.seed, found.report) == ({"k": 5}, 7, {"num_items": 3})
    assert 60 <= found.seconds < 120
    assert found.outputs == {"deep/items": file_checksum(output)}
    assert found.inputs == {str(outside): file_checksum(outside)}
    assert found.packages["numpy"] == np.__version__
    assert run.contains(output)
    assert not run.contains(outside)


def test_a_run_is_made_once_and_opened_again(tmp_path: Path):
    run = Run.create(tmp_path / "deep" / "run")
    chain(run)
    assert Run.create(run.path).stages == run.stages
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty").stages == {}


def test_only_an_empty_or_new_folder_becomes_a_run(tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("notes", "file"):
        with pytest.raises(RunError, match="exists and is not a run"):
            Run.create(tmp_path / name)
    with pytest.raises(RunError, match=r"could not be written: (Not a directory|File exists)"):
        Run.create(tmp_path / "file" / "run")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine.txt", "notes"]


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        (None, r"is not a run: it has no manifest\.json"),
        ("{", "is not valid JSON"),
        ("[]", "is not a manifest"),
        ("{}", "format version None"),
        (json.dumps({"format_version": FORMAT_VERSION + 1, "stages": {}}), f"reads version {FORMAT_VERSION}"),
    ],
)
def test_what_is_no_run_of_this_version_is_refused(manifest: str | None, problem: str, tmp_path: Path):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(RunError, match=problem) as caught:
        Run.open(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("on_disk", ["new", "i"], ids=["read anew", "read before"])
def test_a_stage_whose_input_changed_while_it_ran_is_not_recorded(on_disk: str, tmp_path: Path):
    run = Run.create(tmp_path)
    chain(run)
    started = run.begin()
    record(run, "ingest", writes={"items": "new", "log": "l"})  # by somebody else
    write(run, "items", on_disk)
    with pytest.raises(RunError, match=r"items was changed by another process while embed read it") as caught:
        record(run, "embed", reads=["items"], writes={"vectors": "of the old items"}, started=started)
    assert "genrec embed" in caught.value.hint
    assert set(run.stages) == {"ingest", "popularity"}


def test_records_of_several_processes_and_a_change_of_the_catalogue_are_all_kept(tmp_path: Path):
    run = Run.create(tmp_path)
    chain(run)
    threads = [
        threading.Thread(target=record, args=(run, f"evaluate:{number}"), kwargs={"writes": {f"table-{number}": "t"}})
        for number in range(8)
    ]
    with changing(run.path):
        manifest = read_json(run.path / "manifest.json")
        for thread in threads:
            thread.start()
        time.sleep(0.2)  # all of them would have written by now
        write_json(run.path / "manifest.json", {**manifest, "amendments": [{"change": "items"}]})
    for thread in threads:
        thread.join()
    assert {f"evaluate:{number}" for number in range(8)} < set(run.stages)
    assert run.amendments == [{"change": "items"}]


def test_the_same_outputs_again_leave_everything_valid(tmp_path: Path):
    run = Run.create(tmp_path)
    chain(run)
    record(run, "ingest", writes={"items": "i", "log": "l"})
    assert set(run.stages) == {"ingest", "embed", "tokenize", "trie", "popularity"}
    assert list(run.stages)[-1] == "ingest"  # in the order in which they were recorded


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        # What read the file goes, and what read the files of those; what read another file stays.
        ({"items": "new", "log": "l"}, {"ingest", "popularity"}),
        ({"items": "i", "log": "new"}, {"ingest", "embed", "tokenize", "trie"}),
        ({"items": "new", "log": "new"}, {"ingest"}),
    ],
)
def test_a_changed_output_makes_all_that_follows_from_it_stale(changed, left: set[str], tmp_path: Path):
    run = Run.create(tmp_path)
    chain(run)
    record(run, "ingest", writes=changed)
    assert set(run.stages) == left
    assert (run.path / "keys").read_text() == "k"  # the files stay until the stage runs again
    with pytest.raises(RunError, match="has no stage"):
        run.require(next(iter({"embed", "popularity"} - left)))


def test_a_stage_in_the_middle_makes_only_later_ones_stale(tmp_path: Path):
    run = Run.create(tmp_path)
    chain(run)
    record(run, "tokenize", reads=["vectors"], writes={"codes": "new"})
    assert set(run.stages) == {"ingest", "embed", "tokenize", "popularity"}
    record(run, "trie", reads=["codes"], writes={"keys": "new"})
    assert set(run.stages) == {"ingest", "embed", "tokenize", "trie", "popularity"}


def test_a_stage_is_required_with_its_files_as_it_wrote_them(tmp_path: Path):
    run = Run.create(tmp_path)
    with pytest.raises(RunError, match="has no stage 'embed:image' yet") as caught:
        run.require("embed:image")
    assert caught.value.hint == "Run `genrec embed …` first."
    record(run, "embed:image", writes={"vectors": "v", "mask": "m"})
    assert run.require("embed:image").seed == 7
    (tmp_path / "vectors").write_text("other")
    with pytest.raises(RunError, match="vectors is not what stage 'embed:image' wrote"):
        run.require("embed:image")
    assert run.require("embed:image", verify=False).seed == 7
    (tmp_path / "vectors").unlink()
    with pytest.raises(RunError, match="vectors is missing"):
        run.require("embed:image")


def test_equal_values_give_equal_bytes_and_json_comes_back(tmp_path: Path):
    value = {"title": "Amélie – 映画", "numbers": [1, 0.1, 1e-17], "none": None}
    write_json(tmp_path / "a" / "one.json", value)
    write_json(tmp_path / "two.json", json.loads(json.dumps(value)))
    assert (tmp_path / "a" / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert read_json(tmp_path / "two.json") == value
    with pytest.raises(RunError, match=r"three\.json is missing"):
        read_json(tmp_path / "three.json")


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_texts_have_equal_checksums_only_where_they_and_their_order_are_equal(one: list[str], other: list[str]):
    assert (text_checksum(one) == text_checksum(other)) == (one == other)
    assert text_checksum(["ab", "c"]) != text_checksum(["a", "bc"])


def test_a_failure_while_writing_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_text("old")

    def fail(path: Path, error: type[BaseException]) -> None:
        path.write_text("half")
        raise error

    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "file") as temporary:
        fail(temporary, KeyboardInterrupt)
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "folder") as temporary:
        fail(temporary / "inner", ZeroDivisionError)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "inner"]
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "inner").read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    for name in ("one", "two"):
        with atomic_folder(tmp_path / "deep" / "folder") as temporary:
            (temporary / name).write_text(name)
            assert temporary.parent == tmp_path / "deep"  # the same disk, or renaming would copy
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["folder", "two"]


@contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file can grow beyond `num_bytes`: what a full disk looks like to a program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NUMBERS = np.random.default_rng(0).integers(0, 2**40, size=20_000)
WRITERS = {
    "json": lambda path: path.write_text(json.dumps(NUMBERS.tolist())),
    "npy": lambda path: np.save(path.open("wb"), NUMBERS, allow_pickle=False),
    "parquet": lambda path: pl.DataFrame({"n": NUMBERS}).write_parquet(path),
    "csv": lambda path: pl.DataFrame({"n": NUMBERS}).write_csv(path),
    "safetensors": lambda path: save_file({"n": torch.from_numpy(NUMBERS)}, path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_an_error_that_says_so_and_the_old_file_stays_whole(kind: str, tmp_path: Path):
    path = tmp_path / f"numbers.{kind}"
    path.write_text("old")
    with (
        room_for(4096),
        pytest.raises(
            RunError, match=f"numbers.{kind} could not be written: (File too large|20000 requested)"
        ) as caught,
        atomic_file(path) as temporary,
    ):
        WRITERS[kind](temporary)
    assert "Free some disk space" in caught.value.hint
    assert path.read_text() == "old"
    with room_for(4096), pytest.raises(RunError), atomic_folder(tmp_path / "folder") as temporary:
        WRITERS[kind](temporary / "numbers")
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_run_as_it_was(tmp_path: Path):
    run = Run.create(tmp_path)
    chain(run)
    before = (tmp_path / "manifest.json").read_bytes()
    with room_for(1000), pytest.raises(RunError, match=r"manifest\.json could not be written"):
        record(run, "trie", reads=["codes"], writes={"keys": "new"})
    assert (tmp_path / "manifest.json").read_bytes() == before
    with pytest.raises(RunError, match="keys is not what stage 'trie' wrote"):
        run.require("trie")  # its new file is there, its record is not: that is noticed


def test_a_place_that_is_no_folder_is_an_error_that_names_the_file(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"x\.json could not be written"):
        write_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(RunError, match="model could not be written"), atomic_folder(tmp_path / "file" / "model"):
        pytest.fail("there is nowhere to write")


def test_a_run_whose_stage_was_killed_is_the_run_of_before(tmp_path: Path):
    run = Run.create(tmp_path)
    chain(run)
    stages = run.stages
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from genrec.files import atomic_file, atomic_folder\n"
        "with atomic_file(Path(sys.argv[1]) / 'codes') as one, atomic_folder(Path(sys.argv[1]) / 'model') as two:\n"
        "    one.write_text('half'); (two / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert Run.open(tmp_path).stages == stages
    assert run.require("tokenize")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_folder_is_whole_whenever_its_replacement_is_killed(tmp_path: Path, before: int):
    run = Run.create(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    script = (
        "import os, shutil, signal, sys\n"
        "from pathlib import Path\n"
        "from genrec.files import atomic_folder\n"
        "left = [int(sys.argv[2])]\n"
        "def counted(whole):\n"
        "    def step(*arguments, **options):\n"
        "        left[0] -= 1\n"
        "        if not left[0]:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return whole(*arguments, **options)\n"
        "    return step\n"
        "Path.replace, shutil.rmtree = counted(Path.replace), counted(shutil.rmtree)\n"
        "with atomic_folder(Path(sys.argv[1]) / 'model') as folder:\n"
        "    (folder / 'weights').write_text('new')\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path), str(before)]
    assert subprocess.run(arguments, env=os.environ, check=False).returncode == -signal.SIGKILL
    Run.open(run.path)
    assert (tmp_path / "model" / "weights").read_text() == ("old" if before < 3 else "new")
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("newest")
    assert (tmp_path / "model" / "weights").read_text() == "newest"
    assert not list(tmp_path.glob(".model.*before"))


def test_a_link_in_place_of_a_folder_stays_and_what_it_leads_to_is_replaced(tmp_path: Path):
    (tmp_path / "disk" / "model").mkdir(parents=True)
    (tmp_path / "disk" / "model" / "weights").write_text("old")
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "model")
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("new")
    assert (tmp_path / "model").is_symlink()
    assert (tmp_path / "disk" / "model" / "weights").read_text() == "new"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["model"]


def test_a_folder_that_cannot_take_its_place_leaves_the_one_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    whole = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name.startswith(".model.") and not self.name.endswith(".before"):
            raise OSError(5, "Input/output error")
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(RunError, match="What was there before is untouched"), atomic_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_disk_that_is_full_for_the_last_bytes_of_a_small_array_is_noticed(tmp_path):
    program = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from genrec.files import array_stream
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    with array_stream(Path(sys.argv[1])) as stream:
        np.save(stream, np.zeros(240, np.float32), allow_pickle=False)
except OSError as error:
    print("noticed", error.strerror)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.npy")], capture_output=True, text=True, check=True
    )
    assert finished.stdout.startswith("noticed ")
