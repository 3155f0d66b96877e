"""The recipes that score explanations: the second opinion agrees with the check, and finds what is made wrong."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from genrec import pipeline
from genrec.config import EmbedConfig, IngestConfig, TokenizeConfig, TrainConfig, load_config
from genrec.data.ingest import ingest
from genrec.encoders.embed import embed
from genrec.explanation.explainer import Wording
from genrec.explanation_batch import ExplainJob, explain_file
from genrec.run import Run
from tests.reviewed import write_reviewed

ROOT = Path(__file__).resolve().parents[2]


def recipe(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "eval" / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def explained(tiny_run: Path, tmp_path: Path) -> Path:
    """200 texts about a tiny run."""
    lines = [
        {"user_id": f"u{n % 40}", "history": [f"i{n % 30}", f"i{(n * 7 + 3) % 30}"], "item_id": f"i{(n + 6) % 30}"}
        for n in range(200)
    ]
    return explain(tiny_run, tmp_path, lines, Wording("bullets", "en", "warm"))


def explain(run: Path, folder: Path, lines: list[dict[str, object]], wording: Wording) -> Path:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    explain_file(ExplainJob(run, wording, "pairs.jsonl"), folder / "pairs.jsonl", folder / "out.jsonl")
    return folder


@pytest.fixture(scope="module")
def reviewed(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with descriptions and reviews."""
    folder = tmp_path_factory.mktemp("reviewed")
    run = Run.create(folder / "run")
    ingest(run, "tables", write_reviewed(tiny_files, folder), load_config(IngestConfig, tiny_files / "ingest.yaml"))
    embed(run, load_config(EmbedConfig, tiny_files / "embed.yaml"))
    pipeline.tokenize(run, load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    pipeline.train(run, load_config(TrainConfig, tiny_files / "train.yaml").model_copy(update={"epochs": 1}))
    return run.path


def second_opinion(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """What the recipe ends with, in this process."""
    arguments = ["check_explanations.py", str(run), str(folder / "pairs.jsonl"), str(folder / "out.jsonl")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "eval" / "check_explanations.py"), run_name="__main__")
    return int(ending.value.code or 0)


# Style → the kinds of sentences that its texts have, and what makes one of them wrong.
READ = {
    "line": ({"shared"}, ("have the same genres", "have the same brands")),
    "paragraph": ({"wrote", "shared", "people"}, ("“tale of", "“a tale of")),
    "bullets": ({"wrote", "shared", "people"}, ("have the same genre", "have the same brand")),
    "for-whom": ({"shared", "reader"}, ("those who chose “Film 3”", "those who chose “Film 4”")),
    "headline": ({"headline"}, ("Comedy and Mood", "Comedies and Mood")),
    "description": ({"record", "described"}, (" of it.", " of")),
    "taste": ({"count"}, ("have the genre Comedy", "have the genre Drama")),
}


@pytest.mark.parametrize("style", READ)
def test_the_second_opinion_reads_every_style(
    style: str, reviewed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[dict[str, object]] = [
        {"user_id": f"u{3 * n}", "history": [f"i{3 * n}", f"i{3 * n + 3}"], "item_id": f"i{3 * n + 9}"}
        for n in range(6)
    ]
    lines += [{"history": ["i0", "i3", "i1"]} if style == "taste" else {"history": ["i0", "i3"], "item_id": "i6"}]
    explain(reviewed, tmp_path, lines, Wording(style))
    kinds, (right, wrong) = READ[style]
    assert second_opinion(reviewed, tmp_path, monkeypatch) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "       7  texts" in said
    assert kinds <= {line.split("sentences: ")[1] for line in said.splitlines() if "sentences: " in line}
    answers = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert right in answers
    (tmp_path / "out.jsonl").write_text(answers.replace(right, wrong, 1), encoding="utf-8")
    assert second_opinion(reviewed, tmp_path, monkeypatch) == 1
    assert "1  unsupported" in capsys.readouterr().out


def test_the_second_opinion_knows_where_a_sentence_ends() -> None:
    whole = runpy.run_path(str(ROOT / "eval" / "check_explanations.py"))["in_whole_sentences"]
    source = "I tried it. Is it good? It is GREAT!!! It works... not"
    for words in ("Is it good?", "It is GREAT", "It is GREAT!!!", "I tried it. Is it good?", "It works... not"):
        assert whole(words, source), words
    for words in ("Is it good", "It works", "It is", "tried it", "works... not", "It is GREAT!!! It"):
        assert not whole(words, source), words


def test_a_line_of_taste_may_name_an_item_and_its_text_speaks_of_the_history_alone(
    reviewed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(reviewed, tmp_path, [{"history": ["i0", "i3"], "item_id": "i6"}], Wording("taste"))
    assert second_opinion(reviewed, tmp_path, monkeypatch) == 0
    answer = json.loads((tmp_path / "out.jsonl").read_text())
    answer["text"] = "“Film 0” and “Film 3” have the same genre: Comedy."
    (tmp_path / "out.jsonl").write_text(json.dumps(answer))
    assert second_opinion(reviewed, tmp_path, monkeypatch) == 1


def test_the_second_opinion_supports_every_sentence_and_shares_no_code(tiny_run: Path, explained: Path) -> None:
    checked = recipe("check_explanations.py", tiny_run, explained / "pairs.jsonl", explained / "out.jsonl")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "every sentence is supported" in checked.stdout
    assert all(f"sentences: {kind}" in checked.stdout for kind in ("shared", "people", "empty"))
    source = (ROOT / "eval" / "check_explanations.py").read_text(encoding="utf-8")
    assert "import genrec" not in source
    assert "from genrec" not in source


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("3 of 7 people who chose", "4 of 7 people who chose"),
        ("have the same genres: Comedy and Mood 0.", "have the same genres: Comedy and Western."),
        ("have the same genres: Comedy and Mood 0.", "have the same brand: Comedy."),
        ("Perhaps have a look at it!", "It is a masterpiece!"),
    ],
)
def test_the_second_opinion_finds_what_is_made_wrong(tiny_run: Path, explained: Path, right: str, wrong: str) -> None:
    answers = (explained / "out.jsonl").read_text(encoding="utf-8")
    assert right in answers
    (explained / "out.jsonl").write_text(answers.replace(right, wrong, 1), encoding="utf-8")
    checked = recipe("check_explanations.py", tiny_run, explained / "pairs.jsonl", explained / "out.jsonl")
    assert checked.returncode == 1
    assert "1  unsupported" in checked.stdout


def test_lines_that_are_missing_or_changed_places_are_found(tiny_run: Path, explained: Path) -> None:
    lines = (explained / "out.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (explained / "out.jsonl").write_text("".join([*lines[1:2], *lines[:1], *lines[2:-1]]), encoding="utf-8")
    checked = recipe("check_explanations.py", tiny_run, explained / "pairs.jsonl", explained / "out.jsonl")
    assert checked.returncode == 1
    assert "200 lines in, 199 lines out" in checked.stdout
    assert "line 1: the answer to another line" in checked.stdout


def test_scores_stand_beside_texts_that_say_nothing(explained: Path) -> None:
    support = recipe("explanations.py", "run", explained / "out.jsonl")
    assert "100.00 % of the claims supported" in support.stdout, support.stderr
    rows = [
        {"pred": f"it is number {chr(97 + n)}x", "ref": f"number {chr(97 + n)}x", "template": "it"} for n in range(20)
    ]
    (explained / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = recipe("explanations.py", "pairs", explained / "texts.jsonl", "--constant", "it is a number")
    assert all(f"| {name} |" in scored.stdout for name in ("system", "shuffled", "template", "constant")), scored.stderr
    assert "| rare-word recall | " in scored.stdout
    assert recipe("explanations.py", "pairs", explained / "texts.jsonl").returncode == 2
