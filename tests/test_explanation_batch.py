"""Bulk explanation: a line out per line in, killed and resumed, in one process and on a cluster."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from genrec import Recommender
from genrec.errors import ConfigError, DataError, RunError
from genrec.explanation.explainer import Wording
from genrec.explanation_batch import ExplainJob, explain_file, explain_here

Genrec = Callable[..., "tuple[int, str, str]"]


def pairs(number: int) -> str:
    """Lines of users who walk through a genre, some of them bad, no two the same."""
    lines = []
    for n in range(number):
        pair: dict[str, Any] = {
            "user_id": n,
            "history": [f"i{n % 30}", f"i{(n + 3) % 30}"],
            "item_id": f"i{(n + 6) % 30}",
        }
        if n % 50 == 7:
            pair["item_id"] = "nobody"
        lines.append(json.dumps(pair) if n % 50 != 9 else "{")
    return "".join(line + "\n" for line in lines)


def job(run: Path, wording: Wording = Wording("paragraph")) -> ExplainJob:
    return ExplainJob(run, wording, "pairs.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_batch_gives_the_explanation_that_each_gets_alone(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(pairs(150))
    summary = explain_file(job(tiny_run), tmp_path / "pairs.jsonl", tmp_path / "out.jsonl")
    answers = read(tmp_path / "out.jsonl")
    assert (summary.num_lines, summary.num_errors) == (150, 6)
    assert len(answers) == 150
    recommender = Recommender.load(tiny_run)
    for n, answer in enumerate(answers):
        if "error" in answer:
            assert f"pairs.jsonl, line {n + 1}" in answer["error"]
            assert n % 50 in {7, 9}
            continue
        line = json.loads(pairs(150).split("\n")[n])
        alone = recommender.explain(line["history"], line["item_id"], user_id=str(n), style="paragraph")
        assert answer == json.loads(json.dumps({"user_id": n, **alone.as_record()}))
    told = [answer for answer in answers if "error" not in answer]
    assert summary.counts["template"] == sum(answer["source"] == "template" for answer in told) > 100
    assert "statements unsupported" not in summary.counts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "pairs.jsonl"]


BAD = {
    "{": "not valid JSON",
    "[]": "expected an object",
    '{"history": ["i1"]}': "item_id is missing",
    '{"item_id": "i1"}': "history: is missing",
    '{"history": ["i1"], "item_id": 7.0}': "item_id: found 7.0, expected text",
    '{"history": ["i1", 4], "item_id": 7}': "Not in the catalogue of 30 items: 7",  # a whole number is an id
    '{"history": ["gone"], "item_id": "i1"}': "Not in the catalogue of 30 items: gone",
    '{"history": [], "item_id": "i1", "itm": 1}': "itm",
}


def test_every_bad_line_gets_its_error_and_the_command_ends_with_status_1(
    tiny_run: Path, tmp_path: Path, genrec: Genrec
) -> None:
    good = '{"user_id": "é", "history": ["i0"], "item_id": "i3"}'
    lines = [line for bad in BAD for line in (bad, good)]
    (tmp_path / "in.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"history": ["\xe9"], "item_id": "i1"}')
    status, out, _ = genrec("explain", tiny_run, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    answers = read(tmp_path / "out.jsonl")
    assert status == 1
    assert "8 of 17 lines served" in out
    for answer, expected in zip(answers[::2], [*BAD.values(), "not UTF-8"], strict=True):
        assert set(answer) == {"user_id", "error"}
        assert expected in answer["error"]
    assert all(answer["user_id"] == "é" and answer["source"] == "template" for answer in answers[1::2])


def test_taste_needs_no_item_and_other_wordings_are_checked_first(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"history": ["i0", "i3", "i6"]}\n')
    explain_file(job(tiny_run, Wording("taste", "de")), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert "3 der 3 Artikel, die Sie gewählt haben" in read(tmp_path / "out.jsonl")[0]["text"]
    for wording in (Wording("poem"), Wording("line", "xx"), Wording("line", "en", "rude")):
        with pytest.raises(ConfigError):
            explain_file(job(tiny_run, wording), tmp_path / "in.jsonl", tmp_path / "other.jsonl")
    assert not (tmp_path / "other.jsonl").exists()


def command(run: Path, folder: Path, *options: str) -> list[str]:
    files = ["--input", str(folder / "pairs.jsonl"), "--output", str(folder / "out.jsonl"), "--style", "paragraph"]
    return [sys.executable, "-m", "genrec", "explain", str(run), *files, *options]


def killed_half_way(arguments: list[str], part: Path) -> None:
    """Start the command and kill it (SIGKILL) as soon as some of its lines are on the disk."""
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        ending = os.pidfd_open(process.pid)
        while not (part.is_file() and part.stat().st_size):
            assert not select.select([ending], [], [], 0.01)[0], "the command ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(ending)
    assert process.returncode == -signal.SIGKILL


def test_killed_and_resumed_no_line_is_lost_and_none_is_there_twice(
    tiny_run: Path, tmp_path: Path, genrec: Genrec
) -> None:
    (tmp_path / "pairs.jsonl").write_text(pairs(4000))
    whole = tmp_path / "whole.jsonl"
    explain_file(job(tiny_run), tmp_path / "pairs.jsonl", whole)
    arguments, part = command(tiny_run, tmp_path), tmp_path / "out.jsonl.part"
    killed_half_way(arguments, part)
    assert not (tmp_path / "out.jsonl").exists()
    done = part.read_bytes()
    assert 0 < done.count(b"\n") < 4000
    assert whole.read_bytes().startswith(done)
    again = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "--resume" in again.stderr
    assert part.read_bytes() == done
    part.write_bytes(done + b'{"user_id": 3')  # what a kill in the middle of a write leaves behind
    resumed = subprocess.run(command(tiny_run, tmp_path, "--resume"), capture_output=True, text=True, check=False)
    assert resumed.returncode == 1  # the bad lines
    num_done = done.count(b"\n")
    assert f"{num_done:,} of 4,000 lines were finished already" in resumed.stderr
    assert "3,840 of 4,000 lines served" in resumed.stdout
    assert (tmp_path / "out.jsonl").read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "pairs.jsonl", "whole.jsonl"]


def test_a_job_goes_on_only_with_what_it_was_begun_with(tiny_run: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    source.write_text(pairs(3))

    def failing(job: ExplainJob, lines: object) -> Any:
        yield '{"user_id": 0, "error": "x"}'
        raise DataError("the disk of the input has gone.")

    with pytest.raises(DataError, match="has gone"):
        explain_file(job(tiny_run), source, target, answers=failing)
    (tmp_path / "out.jsonl.part").write_text('{"user_id": 0, "error": "x"}\n')
    with pytest.raises(RunError, match="another input, run or wording"):
        explain_file(job(tiny_run, Wording("line")), source, target, resume=True)
    source.write_text(pairs(4))
    with pytest.raises(RunError, match="another input, run or wording"):
        explain_file(job(tiny_run), source, target, resume=True)
    source.write_text(pairs(3))
    summary = explain_file(job(tiny_run), source, target, resume=True)
    assert (summary.num_lines, summary.num_errors) == (3, 1)
    assert read(target)[0] == {"user_id": 0, "error": "x"}


def test_outputs_and_inputs_that_cannot_be_are_named(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("")
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="out could not be written"):
        explain_file(job(tiny_run), tmp_path / "in.jsonl", tmp_path / "out")
    with pytest.raises(DataError, match="cannot be read"):
        explain_file(job(tiny_run), tmp_path / "missing.jsonl", tmp_path / "out.jsonl")
    explain_file(job(tiny_run), tmp_path / "in.jsonl", tmp_path / "a" / "out.jsonl")
    assert (tmp_path / "a" / "out.jsonl").read_text() == ""


def test_questions_are_not_overwritten_and_the_engine_exists_also_where_no_model_writes(
    tiny_run: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(pairs(1))
    with pytest.raises(ConfigError, match="are one file"):
        explain_file(job(tiny_run), source, source)
    with pytest.raises(ConfigError, match="no engine 'abacus'"):
        explain_file(replace(job(tiny_run), engine="abacus"), source, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert source.read_text() == pairs(1)


@pytest.mark.parametrize("error", [SystemExit(15), ConnectionError("refused"), ValueError("num_cpus")])
def test_a_cluster_that_cannot_be_joined_or_started_is_an_error_of_ours(error: BaseException) -> None:
    from genrec.explanation_ray import _connect

    asked: list[dict[str, Any]] = []

    def failing(**options: Any) -> None:
        asked.append(options)
        raise error

    with pytest.raises(RunError, match="cannot reach a cluster at ray://host:1"):
        _connect(failing, "ray://host:1", 2)
    with pytest.raises(RunError, match=r"cannot start a cluster.*--ray-address auto"):
        _connect(failing, None, 2)
    assert [(one["address"], one.get("num_cpus")) for one in asked] == [("ray://host:1", None), ("local", 2)]


def test_tags_that_are_not_there_are_named_and_nothing_is_begun(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(pairs(1))
    tagged = replace(job(tiny_run), tags=tmp_path / "missing.csv")
    with pytest.raises(DataError, match=r"missing\.csv cannot be read: No such file.*--tags"):
        explain_file(tagged, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_only_a_write_that_fails_is_said_to_have_failed_and_the_job_goes_on_afterwards(
    tiny_run: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(pairs(200))
    kept, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))  # what a full disk looks like to a program
    try:
        with pytest.raises(RunError, match=r"out\.jsonl\.part could not be written: .*--resume"):
            explain_file(job(tiny_run), source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kept, most))
    assert explain_file(job(tiny_run), source, target, resume=True).num_lines == 200

    def unreadable(job: ExplainJob, lines: object) -> Any:
        raise PermissionError(13, "Permission denied", "model.safetensors")
        yield

    with pytest.raises(PermissionError):
        explain_file(job(tiny_run), source, tmp_path / "other.jsonl", answers=unreadable)


def test_tags_of_the_training_split_are_evidence_and_others_are_not(tiny_run: Path, tmp_path: Path) -> None:
    # u0 walks i0 i3 i6 i9: the first two train, i6 validates and i9 tests.
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\nu0,i0,Comedy,1\nu0,i9,Comedy,1\nu9,i1,x,1\n")
    (tmp_path / "in.jsonl").write_text('{"user_id": "u0", "history": ["i9", "i0"], "item_id": "i12"}\n')
    tagged = replace(job(tiny_run, Wording("line")), tags=tmp_path / "tags.csv")
    explain_file(tagged, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")[0]["text"] == "You tagged “Film 0” “Comedy”."
    (tmp_path / "tags.csv").write_text("user_id,item_id,label\nu0,i0,Comedy\n")
    with pytest.raises(DataError, match="lacks the column tag"):
        explain_file(tagged, tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_a_ray_cluster_goes_on_and_writes_the_same_file(tiny_run: Path, tmp_path: Path, genrec: Genrec) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    (tmp_path / "pairs.jsonl").write_bytes(pairs(300).encode() + b'{"history": ["\xe9"], "item_id": "i1"}\n')
    whole = tmp_path / "whole.jsonl"
    explain_file(job(tiny_run), tmp_path / "pairs.jsonl", whole)

    def stopped(job: ExplainJob, lines: Iterable[tuple[int, str]]) -> Iterator[str]:
        yield from islice(explain_here(job, lines), 66)
        raise DataError("the power has gone.")

    with pytest.raises(DataError, match="power has gone"):
        explain_file(job(tiny_run), tmp_path / "pairs.jsonl", tmp_path / "out.jsonl", answers=stopped)
    status, out, err = genrec(*command(tiny_run, tmp_path, "--ray", "--resume")[3:])
    assert (status, "288 of 301 lines served" in out) == (1, True), err
    assert "64 of 301 lines were finished already" in err
    assert (tmp_path / "out.jsonl").read_bytes() == whole.read_bytes()
