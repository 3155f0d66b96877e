"""train/pretrain_base.py: a small base that learns, goes on after a stop, says that it is small, and can be adapted."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from genrec import pipeline
from genrec.config import EvaluateConfig, PretrainConfig, load_config
from genrec.data.text_source import TextSource
from genrec.errors import DataError, RunError
from genrec.run import Run
from genrec.training import pretraining
from genrec.training.adapters import train_rows
from tests.training.test_adapters import settings

ROOT = Path(__file__).resolve().parents[2]
SHAPE = "{hidden_size: 64, layers: 1, heads: 2, intermediate_size: 64, text_vocabulary: 330}"


def recipe(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["pretrain_base.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "train" / "pretrain_base.py"), run_name="__main__")
    return int(ending.value.code or 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pretrain.yaml"
    path.write_text(
        f"shape: {SHAPE}\nblock_tokens: 32\nepochs: 3\nbatch_tokens: 256\nheld_out_share: 0.2\nprecision: float32\n"
        "learning_rate: 0.01\ncheckpoint_seconds: 0\n"
    )
    return path


def test_a_base_is_made_from_a_run_says_that_it_is_small_and_takes_an_adapter(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    config: Path,
    tiny_copy: Path,
    tmp_path: Path,
):
    out = tmp_path / "base"
    assert recipe(monkeypatch, "--out", out, "--run", tiny_copy, "--config", config) == 0
    said = capsys.readouterr().out
    assert "a small base" in said
    assert "a stand-in for a language model, not one" in (out / "README.md").read_text()
    facts = json.loads((out / "pretraining.json").read_text())
    perplexities = [entry["perplexity"] for entry in facts["history"]]
    assert facts["held_out_perplexity"] == pytest.approx(min(perplexities))
    assert perplexities[-1] < perplexities[0] < 330  # a guess has the vocabulary's size
    assert len(AutoTokenizer.from_pretrained(out)) <= 330
    assert AutoModelForCausalLM.from_pretrained(out).config.model_type == "qwen3"
    report = pipeline.train(Run(tiny_copy), settings(out, adapter="lora", row_epochs=1))
    assert report.facts["num_trained"] < report.facts["num_parameters"]


def test_stopped_and_resumed_it_is_the_same_base(
    monkeypatch: pytest.MonkeyPatch, config: Path, tiny_run: Path, tmp_path: Path
):
    options = ("--run", tiny_run, "--config", config)
    assert recipe(monkeypatch, "--out", tmp_path / "whole", *options) == 0
    validate, seen = pretraining.text_likelihood, []

    def stop_at_second(*arguments: object, **named: object) -> object:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return validate(*arguments, **named)

    how = load_config(PretrainConfig, config)
    with monkeypatch.context() as patched:
        patched.setattr(pretraining, "text_likelihood", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            pretraining.pretrain([], [Run(tiny_run)], how, out=tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    assert recipe(monkeypatch, "--out", tmp_path / "parts", *options, "--resume") == 0
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(RunError, match=r"parts is finished"):
        pretraining.pretrain([], [Run(tiny_run)], how, out=tmp_path / "parts", resume=True)


def test_an_epoch_may_be_a_draw(config: Path, tiny_run: Path, tmp_path: Path):
    shorter = load_config(PretrainConfig, config).model_copy(update={"epoch_tokens": 64, "epochs": 1})
    report = pretraining.pretrain([], [Run(tiny_run)], shorter, out=tmp_path / "base")
    assert report.facts["tokens_read"] == 64 < report.facts["num_tokens"]


def test_what_cannot_be_is_said_in_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_run: Path
):
    assert recipe(monkeypatch, "--out", tmp_path / "base", "--text", tmp_path / "no.txt") == 1
    assert "no.txt is not a file" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("keep me")
    assert recipe(monkeypatch, "--out", tmp_path, "--run", tiny_run) == 1
    assert "no base that was made here" in capsys.readouterr().err


def test_trained_rows_of_a_tied_base_serve_both_ends(tiny_run: Path, config: Path, tmp_path: Path):
    pretraining.pretrain([], [Run(tiny_run)], load_config(PretrainConfig, config), out=tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    train_rows(model, [1, 2])
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(trained) == 1


def test_one_document_alone_is_refused_with_what_to_give(config: Path, tmp_path: Path):
    (tmp_path / "book.txt").write_text("A whole book on one line.")
    source = TextSource.parse(str(tmp_path / "book.txt"))
    with pytest.raises(DataError, match=r"one document.*every line of a file is one"):
        pretraining.pretrain([source], [], load_config(PretrainConfig, config), out=tmp_path / "base")


def test_what_learns_beside_a_base_is_compared_on_the_splits_asked_for_and_trained_once(
    config: Path, tiny_copy: Path, tmp_path: Path
):
    base, out = tmp_path / "base", tmp_path / "out"
    pretraining.pretrain([], [Run(tiny_copy)], load_config(PretrainConfig, config), out=base)
    pipeline.evaluate(Run(tiny_copy), EvaluateConfig(baselines=("popularity",)))  # of which no row may know
    adapters = runpy.run_path(str(ROOT / "eval" / "adapters.py"))
    short = {"epochs": 1, "validate_every": 1, "precision": "float32"}
    lora = {**short, "adapter": "lora", "lora": {"rank": 4, "alpha": 8}}

    def rows(name: str, options: dict[str, Any], *splits: str) -> list[dict[str, Any]]:
        made = adapters["measure"](tiny_copy, str(base), out, name=name, options=options, seed=1, splits=splits)
        return list(made)

    found = rows("full", short, "validation", "test") + rows("lora-4", lora, "test")
    assert [(row["name"], row["split"]) for row in found] == [
        ("full", "validation"),
        ("full", "test"),
        ("lora-4", "test"),
    ]
    assert found[2]["num_trained"] < found[0]["num_trained"] == found[0]["num_parameters"]
    lines = adapters["table"](found)
    assert [line.split(" | ")[5] for line in lines[2:4]] == ["100.0%", "100.0%"]
    trained = (out / "lora-4-1" / "manifest.json").read_bytes()
    again = rows("lora-4", lora, "test")
    assert (again, trained) == (found[2:], (out / "lora-4-1" / "manifest.json").read_bytes())
    assert rows("lora-4", {**lora, "learning_rate": 0.01}, "test")[0]["history"] != found[2]["history"]
    weights = load_file(base / "model.safetensors")
    save_file({name: weight * 1.1 for name, weight in weights.items()}, base / "model.safetensors", {"format": "pt"})
    assert rows("full", short, "test")[0]["history"] != found[1]["history"]  # the base was made anew
