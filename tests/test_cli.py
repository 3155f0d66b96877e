"""The command line on a small run: every verb, configuration files, exit statuses and what is printed where."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec.cli import app
from genrec.cli.options import resolve
from genrec.config import TokenizeConfig, TrainConfig
from genrec.errors import ConfigError, RunError
from genrec.run import Run

Genrec = Callable[..., "tuple[int, str, str]"]
VERBS = (
    "quickstart",
    "ingest",
    "embed",
    "tokenize",
    "dialogues",
    "train",
    "evidence",
    "tune",
    "evaluate",
    "recommend",
    "explain",
    "export",
    "chat",
    "serve",
    "inspect",
    "transfer",
)


def shell(*arguments: object, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """The true command in a process of its own."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    command = [sys.executable, "-m", "genrec", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_the_help_teaches_the_verbs_and_their_order() -> None:
    finished = shell("--help")
    assert finished.returncode == 0
    assert sorted(command.name or command.callback.__name__ for command in app.registered_commands) == sorted(VERBS)
    listed = [line.split()[1] for line in finished.stdout.splitlines() if line.startswith("│ ") and line[2].isalpha()]
    wanted = [
        "quickstart",
        "ingest",
        "embed",
        "tokenize",
        "train",
        "evaluate",
        "recommend",
        "explain",
        "serve",
        "items",
    ]
    assert [verb for verb in listed if verb in wanted] == wanted
    assert all(verb in finished.stdout for verb in VERBS)
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_reading_a_run(genrec: Genrec, verb: str) -> None:
    status, out, _ = genrec(verb, "--help")
    assert status == 0
    assert "Usage" in out
    assert ("--json" in out) == (verb not in {"chat", "serve"})  # these two talk until they are stopped


def test_a_process_leaves_with_the_status_and_message_of_its_error(tmp_path: Path) -> None:
    no_run = shell("inspect", tmp_path / "no-run")
    assert no_run.returncode == 1
    assert "no-run is not a run" in no_run.stderr
    assert "genrec quickstart" in no_run.stderr
    assert no_run.stdout == ""
    (tmp_path / "bad.yaml").write_text("epochz: 3\n")
    misspelt = shell("train", tmp_path / "no-run", "--config", tmp_path / "bad.yaml")
    assert misspelt.returncode == 2
    assert "epochz" in misspelt.stderr
    for finished in (no_run, misspelt):
        assert "Traceback" not in finished.stderr


def test_a_terminal_that_cannot_show_a_letter_does_not_end_a_command(tiny_run: Path) -> None:
    finished = shell("inspect", tiny_run, "i3", encoding="ascii")
    assert finished.returncode == 0
    assert "Film 3  (i3)" in finished.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("ingest",),
        ("ingest", "tables", "a.csv", "b.csv"),
        ("recommend", "RUN"),
        ("recommend", "RUN", "--input", "a", "--output", "b", "-k", "0"),
        ("recommend", "RUN", "--input", "a", "--output", "b", "-k", "many"),
        ("train", "RUN", "--epochs", "0"),
        ("train", "RUN", "--fly"),
        ("quickstart", "--epochs", "0"),
        ("embed", "RUN", "--precomputed", "no-equals-sign"),
        ("tokenize", "RUN", "--method", "magic"),
        ("ingest", "nonsense", "a", "--out", "RUN"),
        ("ingest", "tables", "a", "b", "--out", "RUN", "--min-interactions", "0"),
        ("evaluate", "RUN", "--split", "train"),
        ("recommend", "RUN", "--input", "a", "--output", "b", "--engine", "abacus"),
        ("recommend", "RUN", "--input", "a", "--output", "b", "--weights", "int4"),
        ("evaluate", "RUN", "--weights", "int4"),
        ("serve", "RUN", "--weights", "int4"),
        ("explain", "RUN", "--input", "a", "--output", "b", "--workers", "8"),
        ("explain", "RUN", "--input", "a", "--output", "b", "--ray-address", "ray://host:1"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_a_message(
    genrec: Genrec, arguments: tuple[str, ...], tiny_copy: Path
) -> None:
    status, out, err = genrec(*(str(tiny_copy) if word == "RUN" else word for word in arguments))
    assert status == 2, err
    assert out == ""
    assert "rror" in err
    assert list(Run.open(tiny_copy).stages) == ["ingest", "embed", "tokenize", "trie", "train"]


def test_the_whole_way_with_configuration_files(genrec: Genrec, tiny_files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tables = (tiny_files / "items.jsonl", tiny_files / "interactions.csv")
    stages = [
        (("ingest", "tables", *tables, "--out", run), "ingest", "embed"),
        (("embed", run), "embed", "tokenize"),
        (("tokenize", run), "tokenize", "train"),
        (("train", run), "train", "evidence"),
        (("evaluate", run), "evaluate", "recommend"),
    ]
    for arguments, stage, following in stages:
        status, out, err = genrec(*arguments, "--config", tiny_files / f"{stage}.yaml")
        assert status == 0, err
        assert f"Next: genrec {following} {run}" in out
    assert list(Run.open(run).stages) == ["ingest", "embed", "tokenize", "trie", "train", "evaluate:test"]
    (tmp_path / "users.jsonl").write_text('{"user_id": "a", "history": ["i0", "i3"]}\n')
    arguments = ("--input", tmp_path / "users.jsonl", "--output", tmp_path / "recs.jsonl", "-k", 4)
    status, out, err = genrec("recommend", run, *arguments)
    assert status == 0, err
    assert "1 of 1 lines served" in out
    answer = json.loads((tmp_path / "recs.jsonl").read_text())
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4]
    status, out, _ = genrec("inspect", run)
    assert status == 0
    assert "6 finished" in out


@pytest.mark.parametrize("stage", ["ingest", "embed", "tokenize", "train", "evaluate"])
def test_a_report_as_json_is_what_the_manifest_keeps(
    genrec: Genrec, stage: str, tiny_copy: Path, tiny_files: Path
) -> None:
    tables = ("tables", tiny_files / "items.jsonl", tiny_files / "interactions.csv", "--out")
    before = tables if stage == "ingest" else ()
    status, out, err = genrec(stage, *before, tiny_copy, "--config", tiny_files / f"{stage}.yaml", "--json")
    assert status == 0, err
    recorded = Run.open(tiny_copy).stages["evaluate:test" if stage == "evaluate" else stage]
    assert json.loads(out) == recorded.report


def test_inspect_prints_json_for_a_run_and_for_an_item(genrec: Genrec, tiny_run: Path) -> None:
    assert "train" in json.loads(genrec("inspect", tiny_run, "--json")[1])
    assert json.loads(genrec("inspect", tiny_run, "i4", "--json")[1])["item_id"] == "i4"
    examples = json.loads(genrec("inspect", tiny_run, "--examples", "--json")[1])["examples"]
    assert [len(example["token_ids"]) for example in examples] == [len(e["trained_on"]) for e in examples]
    assert "A1, " in genrec("inspect", tiny_run, "--examples")[1]
    assert "--examples shows no single item" in genrec("inspect", tiny_run, "i4", "--examples")[2]
    assert "--config is an option of --examples" in genrec("inspect", tiny_run, "--config", "x.yaml")[2]
    status, _, err = genrec("inspect", tiny_run, "nobody")
    assert status == 1
    assert "nobody" in err


def test_a_byte_that_is_not_utf_8_does_not_end_a_conversation(
    genrec: Genrec, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.BytesIO(b"caf\xe9, a western\n\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(said, encoding="utf-8"))
    status, out, err = genrec("chat", tiny_run)
    assert status == 0, err
    assert "1. Film" in out


def test_a_bad_line_of_a_batch_gives_status_1_after_all_others_are_served(
    genrec: Genrec, tiny_run: Path, tmp_path: Path
) -> None:
    lines = ['{"history": ["i0"]}', '{"history": ["nobody"]}', '{"history": ["i1"], "allow": {"genres": "Drama"}}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    arguments = ("recommend", tiny_run, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    status, out, _ = genrec(*arguments)
    assert status == 1
    assert "2 of 3 lines served" in out
    assert "nobody" in out
    status, out, _ = genrec(*arguments, "--json")
    assert status == 1
    assert (json.loads(out)["num_lines"], json.loads(out)["num_errors"]) == (3, 1)
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["items" in answer for answer in answers] == [True, False, True]


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_weights_in_fewer_bits_recommend_and_are_measured(
    genrec: Genrec, tiny_copy: Path, tmp_path: Path, tiny_files: Path, weights: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"history": ["i0", "i3"]}\n')
    scores = {}
    for kept in ("float32", weights):
        arguments = ("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--weights", kept)
        status, _, err = genrec("recommend", tiny_copy, *arguments)
        assert status == 0, err
        items = json.loads((tmp_path / "out.jsonl").read_text())["items"]
        scores[kept] = {item["item_id"]: item["score"] for item in items}
    common = set(scores["float32"]) & set(scores[weights])
    assert len(common) >= 5
    differences = [abs(scores["float32"][item] - scores[weights][item]) for item in common]
    assert 0 < max(differences) < 0.5
    status, _, err = genrec("evaluate", tiny_copy, "--config", tiny_files / "evaluate.yaml", "--weights", weights)
    assert status == 0, err
    assert Run.open(tiny_copy).stages["evaluate:test"].config["weights"] == weights


def test_flags_win_over_the_file_and_the_file_over_the_defaults(
    genrec: Genrec, tiny_copy: Path, tiny_files: Path
) -> None:
    arguments = ("--config", tiny_files / "tokenize.yaml", "--levels", 3, "--seed", 5)
    assert genrec("tokenize", tiny_copy, *arguments, "--item-codes", 30)[0] == 0
    config = Run.open(tiny_copy).stages["tokenize"].config
    assert (config["levels"], config["seed"], config["codebook_size"], config["collisions"]) == (3, 5, 8, "reassign")
    assert config["item_codes"] == 30


def test_keys_that_belong_together_may_be_apart_in_the_file_and_the_flags(tmp_path: Path) -> None:
    (tmp_path / "lora.yaml").write_text("adapter: lora\nrow_epochs: 1\nlearning_rate: 0.0005\n")
    trained = resolve(TrainConfig, tmp_path / "lora.yaml", base="models/small", row_epochs=2)
    assert (trained.adapter, trained.base, trained.row_epochs, trained.learning_rate) == (
        "lora",
        "models/small",
        2,
        5e-4,
    )
    (tmp_path / "sizes.yaml").write_text("codebook_size: [64, 32]\n")
    assert resolve(TokenizeConfig, tmp_path / "sizes.yaml", levels=2).sizes == (64, 32)
    with pytest.raises(ConfigError, match=r"sizes\.yaml and the options given: .*2 sizes for 3 levels"):
        resolve(TokenizeConfig, tmp_path / "sizes.yaml", levels=3)
    with pytest.raises(ConfigError, match=r"sizes\.yaml: .*2 sizes for 4 levels"):
        resolve(TokenizeConfig, tmp_path / "sizes.yaml", levels=None)


def test_precomputed_vectors_and_baselines_can_be_named_on_the_command_line(
    genrec: Genrec, tiny_copy: Path, tiny_files: Path
) -> None:
    own = f"own={tiny_files / 'vectors.npy'}"
    status, out, err = genrec("embed", tiny_copy, "--text", "none", "--behaviour", "none", "--precomputed", own)
    assert status == 0, err
    assert "own: 30 items" in out
    status, _, err = genrec("evaluate", tiny_copy, "--baselines", "popularity, transitions", "--split", "validation")
    assert status == 0, err
    methods = json.loads((tiny_copy / "evaluation" / "validation.json").read_text())["methods"]
    assert [method["name"] for method in methods][1:] == ["popularity", "transitions"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("epochz: 3\n", "epochz: there is no such key"),
        ("epochs: many\n", "epochs"),
        ("- 1\n", "found [1], expected keys"),
        ("a: [\n", "not valid YAML"),
        ("epochs: 2026-13-45\n", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_configuration_file_is_named_with_its_key(
    genrec: Genrec, tiny_copy: Path, tmp_path: Path, content: str | None, expected: str
) -> None:
    file = tmp_path / "train.yaml"
    if content is not None:
        file.write_text(content)
    status, _, err = genrec("train", tiny_copy, "--config", file)
    assert status == 2
    assert str(file) in err.replace("\n", "")
    assert expected in err
    if expected.startswith("epochz"):
        assert "Known keys: base, scratch" in err


@pytest.mark.parametrize(
    ("missing", "verb", "expected"),
    [
        ("ingest", "embed", "genrec ingest"),
        ("embed", "tokenize", "genrec embed"),
        ("tokenize", "train", "genrec tokenize"),
        ("trie", "train", "genrec tokenize"),
        ("train", "evaluate", "genrec train"),
        ("train", "recommend", "genrec train"),
    ],
)
def test_a_missing_stage_names_the_verb_to_run(
    genrec: Genrec, tiny_copy: Path, missing: str, verb: str, expected: str
) -> None:
    manifest = json.loads((tiny_copy / "manifest.json").read_text())
    del manifest["stages"][missing]
    (tiny_copy / "manifest.json").write_text(json.dumps(manifest))
    files = ("--input", tiny_copy / "manifest.json", "--output", tiny_copy / "out") if verb == "recommend" else ()
    status, _, err = genrec(verb, tiny_copy, *files)
    assert status == 1
    assert expected in err


def test_a_missing_stage_is_said_before_anything_heavy_is_imported(tiny_copy: Path) -> None:
    manifest = json.loads((tiny_copy / "manifest.json").read_text())
    manifest["stages"] = {"ingest": manifest["stages"]["ingest"]}
    (tiny_copy / "manifest.json").write_text(json.dumps(manifest))
    verbs = [["tokenize"], ["train"], ["evidence"], ["evaluate"], ["chat"], ["serve"], ["items", "remove", "ids"]]
    verbs += [["export", "--out", "out"], ["recommend", "--input", "in", "--output", "out"]]
    verbs += [["tokenize", "--from", str(tiny_copy)], ["transfer", str(tiny_copy), "--out", "out"]]
    script = (
        "import json, sys\n"
        "from genrec.cli import app\n"
        "from genrec.errors import RunError\n"
        "run, verbs = sys.argv[1], json.loads(sys.argv[2])\n"
        "for words in verbs:\n"
        "    at = 2 if words[0] == 'items' else 1\n"
        "    try:\n"
        "        app([*words[:at], run, *words[at:]], standalone_mode=False)\n"
        "    except RunError as error:\n"
        "        heavy = {'torch', 'transformers', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "        assert not heavy, (words, heavy)\n"
        "        print(words[0], 'first.' in str(error))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(tiny_copy), json.dumps(verbs)], capture_output=True, text=True, check=False
    )
    assert finished.stderr == ""
    assert finished.stdout.splitlines() == [f"{words[0]} True" for words in verbs]


def test_a_view_is_merged_into_recommendations_and_into_the_evaluation(
    genrec: Genrec, tiny_copy: Path, tiny_files: Path, tmp_path: Path
) -> None:
    view = tmp_path / "view"
    shutil.copytree(tiny_copy, view)
    assert genrec("tokenize", view, "--config", tiny_files / "tokenize.yaml", "--seed", 9)[0] == 0
    assert genrec("train", view, "--config", tiny_files / "train.yaml", "--seed", 9)[0] == 0
    users = tmp_path / "users.jsonl"
    users.write_text('{"history": ["i0", "i3"]}\n')
    scores = {}
    for name, runs in {"one": [tiny_copy], "other": [view], "both": [tiny_copy, "--view", view]}.items():
        assert genrec("recommend", *runs, "--input", users, "--output", tmp_path / name, "-k", 28)[0] == 0
        items = json.loads((tmp_path / name).read_text())["items"]
        scores[name] = {item["item_id"]: math.exp(item["score"]) for item in items}
    mean = {item: (scores["one"][item] + scores["other"][item]) / 2 for item in scores["one"]}
    assert scores["both"] == pytest.approx(mean, rel=1e-4)
    alone = genrec("evaluate", tiny_copy, "--baselines", "none", "--config", tiny_files / "evaluate.yaml", "--json")
    merged = genrec(
        "evaluate", tiny_copy, "--baselines", "none", "--config", tiny_files / "evaluate.yaml", "--view", view, "--json"
    )
    assert (alone[0], merged[0]) == (0, 0)
    assert alone[1] != merged[1]


def test_a_training_that_came_to_its_end_is_not_replaced_by_resuming_it(genrec: Genrec, tiny_copy: Path) -> None:
    model = (tiny_copy / "model" / "model.safetensors").read_bytes()
    status, _, err = genrec("train", tiny_copy, "--resume")
    assert status == RunError.exit_status
    assert "has no training to go on with" in err
    assert "Leave out --resume" in err
    assert (tiny_copy / "model" / "model.safetensors").read_bytes() == model
    assert not (tiny_copy / "training" / "checkpoint").exists()
