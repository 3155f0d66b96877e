"""A tokenizer and a model of one small catalogue on another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from genrec import pipeline
from genrec.catalogue_changes import remove_items
from genrec.config import (
    EmbedConfig,
    EvaluateConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
    TransferConfig,
    load_config,
)
from genrec.data.ingest import ingest
from genrec.encoders.embed import embed
from genrec.errors import ConfigError, ModelError, RunError
from genrec.progress import SILENT, Task
from genrec.recommender import Recommender
from genrec.run import Run, file_checksum, write_json
from genrec.transfer import transfer
from genrec.vocabulary import SidVocabulary

Genrec = Callable[..., "tuple[int, str, str]"]
EVALUATION = EvaluateConfig(baselines=("popularity", "hybrid"), cutoffs=(5, 10), beam_width=30)
VARIANTS = ["zero-shot", "fine-tuned", "scratch-shared-ids", "scratch-own-ids"]


def settings(tiny_files: Path, **changes: object) -> TransferConfig:
    train = load_config(TrainConfig, tiny_files / "train.yaml")
    given = {"train": train, "epochs": 1, "same_encoder": True, "evaluate": EVALUATION}
    return TransferConfig.model_validate(given | changes)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded run of 24 other items of the same three genres, and 24 users, ten of whose ids tiny_run has."""
    folder = tmp_path_factory.mktemp("target")
    rows = [(user, step, 3 * ((user + step) % 8) + user % 3) for user in range(24) for step in range(5)]
    items = "".join(json.dumps({"item_id": f"j{n}", "title": f"Song {n}"}) + "\n" for n in range(24))
    (folder / "items.jsonl").write_text(items)
    pairs = "".join(f"u{user + 30},j{item},{100 * user + step}\n" for user, step, item in rows)
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + pairs)
    vectors = np.eye(8)[np.arange(24) % 3] + 0.3 * np.random.default_rng(1).normal(size=(24, 8))
    np.save(folder / "vectors.npy", vectors.astype(np.float32))
    run = Run.create(folder / "run")
    ingest(run, "tables", [folder / "items.jsonl", folder / "interactions.csv"], IngestConfig(min_interactions=1))
    embed(run, EmbedConfig(behaviour_model=None, text_model=None, precomputed={"text": folder / "vectors.npy"}))
    return run.path


@pytest.fixture(scope="module")
def made(tiny_run: Path, tiny_files: Path, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished transfer, for reading only."""
    out = tmp_path_factory.mktemp("transfer") / "out"
    transfer(Run(tiny_run), Run(target), settings(tiny_files), out=out)
    return out


class Stopping:
    """Progress of someone who presses Ctrl-C at the line that starts with `at`."""

    def __init__(self, at: str) -> None:
        self.at, self.lines = at, list[str]()

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self.at and line.startswith(self.at):
            raise KeyboardInterrupt

    @contextmanager
    def track(self, label: str, total: int, unit: str) -> Iterator[Task]:
        with SILENT.track(label, total, unit) as task:
            yield task


def test_a_source_on_its_own_catalogue_is_its_own_evaluation(
    tiny_run: Path, tiny_copy: Path, tiny_files: Path, tmp_path: Path
) -> None:
    pipeline.evaluate(Run(tiny_copy), EVALUATION)
    expected = json.loads((tiny_copy / "evaluation" / "test.json").read_text())
    report = transfer(Run(tiny_run), Run(tiny_run), settings(tiny_files, own_tokenizer=False), out=tmp_path / "out")
    for name in ("semantic_ids/codes.npy", "model/model.safetensors"):
        assert file_checksum(tmp_path / "out" / "zero-shot" / name) == file_checksum(tiny_run / name)
    for entry in expected["methods"]:
        row = report.facts["rows"]["zero-shot" if entry["name"] == "model" else entry["name"]]
        for metric in ("recall@10", "ndcg@10"):
            assert row[metric] == entry["metrics"][metric]
        assert row["coverage"] == entry["coverage"]
    assert (report.facts["shared_users"], report.facts["shared_items"]) == (40, 30)
    assert report.facts["skipped"] == {"scratch-own-ids": "it was not asked for."}


def test_every_variant_is_a_run_and_neither_source_nor_target_changes(
    tiny_run: Path, tiny_files: Path, target: Path, tmp_path: Path
) -> None:
    def contents(run: Path) -> dict[str, str]:
        return {
            str(file): file_checksum(file) for file in run.rglob("*") if file.is_file() and tmp_path not in file.parents
        }

    before = contents(tiny_run) | contents(target)
    report = transfer(Run(tiny_run), Run(target), settings(tiny_files), out=tmp_path / "out")
    assert contents(tiny_run) | contents(target) == before
    assert set(report.facts["rows"]) == {*VARIANTS, "popularity", "hybrid"}
    for variant in VARIANTS:
        run = Run.open(tmp_path / "out" / variant)
        for stage in ("ingest", "embed", "tokenize", "trie", "train", "evaluate:test"):
            run.require(stage)
        assert len(Recommender.load(run.path, beam_width=30).recommend(["j0"], k=5)) == 5
    # The source's semantic IDs hold in all runs with its tokenizer; items' own tokens are made for each catalogue.
    source = SidVocabulary.load(tiny_run / "model")
    for variant in VARIANTS[:2]:
        assert SidVocabulary.load(tmp_path / "out" / variant / "model").of_catalogue(()) == source.of_catalogue(())
    untrained, further = (Recommender.load(tmp_path / "out" / variant).live.own_tokens for variant in VARIANTS[:2])
    assert untrained is None
    assert further is not None
    for variant in VARIANTS[:3]:
        facts = json.loads((tmp_path / "out" / variant / "semantic_ids" / "semantic_ids.json").read_text())
        assert tuple(facts["codebook_sizes"]) == source.codebook_sizes == (8, 8)
    own = SidVocabulary.load(tmp_path / "out" / "scratch-own-ids" / "model")
    assert own.tokenizer_checksum != source.tokenizer_checksum


def test_the_reports_agree_and_say_what_is_above_what(made: Path, target: Path) -> None:
    content = json.loads((made / "transfer.json").read_text())
    text = (made / "transfer.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(table) == 1 + len(content["rows"]) == 7
    ndcg = {row["method"]["name"]: row["method"]["metrics"]["ndcg@10"]["value"] for row in content["rows"]}
    names = [line.split("|")[1].strip() for line in table[1:]]
    assert [ndcg[name] for name in names] == sorted(ndcg.values(), reverse=True)
    for entry in content["differences"]:
        assert entry["ndcg"]["value"] == pytest.approx(ndcg[entry["first"]] - ndcg[entry["second"]])
        assert entry["ndcg"]["low"] <= entry["ndcg"]["value"] <= entry["ndcg"]["high"]
    pairs = {(entry["first"], entry["second"]) for entry in content["differences"]}
    assert ("fine-tuned", "scratch-shared-ids") in pairs
    assert {(variant, "popularity") for variant in VARIANTS} <= pairs
    assert "Zero-shot is " in text
    assert "10 of the target's 24 users and 0 of its 24 items" in text
    assert (made / "transfer.svg").read_text().startswith("<svg")
    assert str(target) in text


def test_removed_items_are_nobodys_next_item_in_the_paired_figures_either(
    tiny_run: Path, tiny_files: Path, target: Path, tmp_path: Path
) -> None:
    less = Path(shutil.copytree(target, tmp_path / "less"))
    pipeline.tokenize(Run(less), load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    (tmp_path / "gone.txt").write_text("j3\nj4\nj5\n")
    remove_items(Run(less), tmp_path / "gone.txt", when="2026-01-01T00:00:00+00:00")
    evaluation = EVALUATION.model_copy(update={"max_users": 8})
    given = settings(tiny_files, evaluate=evaluation, own_tokenizer=False)
    transfer(Run(tiny_run), Run(less), given, out=tmp_path / "out")
    for variant in VARIANTS[:3]:
        folder = tmp_path / "out" / variant
        report = json.loads((folder / "evaluation" / "test.json").read_text())
        (model,) = [method for method in report["methods"] if method["name"] == "model"]
        assert np.load(folder / "ndcg.npy").mean() == pytest.approx(model["metrics"]["ndcg@10"]["value"])


def test_a_killed_transfer_goes_on_where_it_stopped(
    tiny_run: Path, tiny_files: Path, target: Path, made: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "out", settings(tiny_files)
    with pytest.raises(KeyboardInterrupt):  # within the second variant: its codes are there, its model is not
        transfer(Run(tiny_run), Run(target), config, out=out, progress=Stopping("epoch 1/1"))
    assert sorted(path.name for path in out.iterdir()) == [".writer.lock", "fine-tuned", "zero-shot"]
    assert list(Run(out / "fine-tuned").stages) == ["ingest", "embed", "tokenize", "trie"]
    first = (out / "zero-shot" / "manifest.json").stat()
    listening = Stopping("")
    transfer(Run(tiny_run), Run(target), config, out=out, progress=listening)
    assert (out / "zero-shot" / "manifest.json").stat() == first  # not written again
    assert any(line.startswith("  finished before") for line in listening.lines)
    assert any(line.startswith("  goes on") for line in listening.lines)
    undisturbed, resumed = (json.loads((place / "transfer.json").read_text()) for place in (made, out))
    for content in (undisturbed, resumed):
        for row in content["rows"]:
            row["training_seconds"] = row["method"]["seconds"] = 0
    assert undisturbed == resumed


def test_only_what_changed_is_made_again(
    tiny_run: Path, tiny_files: Path, target: Path, made: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    listening = Stopping("[3/4]")
    with pytest.raises(KeyboardInterrupt):
        transfer(Run(tiny_run), Run(target), settings(tiny_files, epochs=2), out=out, progress=listening)
    assert listening.lines[1].startswith("  finished before")  # zero-shot has no epochs
    assert "made again" in listening.lines[3]
    (out / "zero-shot" / "evaluation" / "test.json").write_text("{}")
    listening = Stopping("[2/4]")
    with pytest.raises(KeyboardInterrupt):
        transfer(Run(tiny_run), Run(target), settings(tiny_files), out=out, progress=listening)
    assert "goes on" in listening.lines[1]


def test_a_kill_after_a_change_of_settings_leaves_no_old_model_under_the_new_name(
    tiny_run: Path, tiny_files: Path, target: Path, made: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    changed = settings(tiny_files, epochs=3, own_tokenizer=False)
    with pytest.raises(KeyboardInterrupt):
        transfer(Run(tiny_run), Run(target), changed, out=out, progress=Stopping("epoch 1/3"))
    assert "train" not in Run(out / "fine-tuned").stages
    transfer(Run(tiny_run), Run(target), changed, out=out)
    for variant in ("fine-tuned", "scratch-shared-ids"):
        assert Run(out / variant).require("train").config["epochs"] == 3
    assert [path.name for path in out.glob(".*")] == [".writer.lock"]


def test_training_goes_on_from_a_base_with_the_same_tokenizer_only(
    tiny_run: Path, tiny_copy: Path, tiny_files: Path
) -> None:
    config = load_config(TrainConfig, tiny_files / "train.yaml")
    run = Run(tiny_copy)
    # A step too small to see: what the base knew is still there, in every row.
    still = config.model_copy(update={"base": str(tiny_run), "epochs": 1, "learning_rate": 1e-12})
    pipeline.train(run, still)
    before, after = (load_file(path / "model" / "model.safetensors") for path in (tiny_run, tiny_copy))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        np.testing.assert_allclose(after[name], weight, atol=1e-6)
    by_folder = config.model_copy(update={"base": str(tiny_run / "model"), "epochs": 1})
    report = pipeline.train(run, by_folder)
    assert report.facts["best_epoch"] == 1
    tokens = run.stages["tokenize"].config
    pipeline.tokenize(run, pipeline.TokenizeConfig(**{**tokens, "seed": 9}))
    with pytest.raises(ModelError, match="already has semantic-ID tokens of another item tokenizer"):
        pipeline.train(run, by_folder)
    pipeline.tokenize_from(run, Run(tiny_run))
    assert pipeline.train(run, by_folder).facts["epochs"] == 1


def test_what_could_only_fail_later_is_refused_first(
    tiny_run: Path, tiny_copy: Path, tiny_files: Path, target: Path, tmp_path: Path
) -> None:
    source, out = Run(tiny_copy), tmp_path / "out"
    with pytest.raises(RunError, match=r"tokenizer of vectors\.npy"):
        transfer(source, Run(target), settings(tiny_files, same_encoder=False), out=out)
    knowing = load_config(TrainConfig, tiny_files / "train.yaml").model_copy(update={"base": str(tiny_run)})
    with pytest.raises(ConfigError, match="knows semantic IDs already"):
        transfer(source, Run(target), settings(tiny_files, train=knowing), out=out)
    with pytest.raises(ConfigError, match="is where a variant would be made"):
        transfer(Run.create(tmp_path / "fine-tuned"), Run(target), settings(tiny_files), out=tmp_path)
    with pytest.raises(RunError, match="no stage 'ingest'"):
        transfer(source, Run.create(tmp_path / "empty"), settings(tiny_files), out=out)
    file = tiny_copy / "model" / "semantic_id_vocabulary.json"
    old = json.loads(file.read_text())
    del old["tokenizer_checksum"]
    write_json(file, old)
    manifest = json.loads((tiny_copy / "manifest.json").read_text())
    manifest["stages"]["train"]["outputs"]["model/semantic_id_vocabulary.json"] = file_checksum(file)
    write_json(tiny_copy / "manifest.json", manifest)
    with pytest.raises(ModelError, match="checksum unknown") as caught:
        transfer(source, Run(target), settings(tiny_files), out=out)
    assert f"genrec train {tiny_copy}" in caught.value.hint
    assert not out.exists()


def test_the_command_prints_the_table_and_leaves_out_a_row_that_cannot_be(
    genrec: Genrec, tiny_run: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "transfer.yaml").write_text(
        "tokenize: {method: residual-kmeans, codebook_size: 64, levels: 2}\n"
        "evaluate: {baselines: [popularity], cutoffs: [10], beam_width: 24}\n"
    )
    # Without a section `train` the target is trained as the source was: `--epochs` alone is changed.
    arguments = ("transfer", tiny_run, target, "--epochs", 1, "--same-encoder", "--out", tmp_path / "out")
    status, out, err = genrec(*arguments, "--config", tmp_path / "transfer.yaml")
    assert status == 0, err
    assert "scratch-own-ids is not in the table: 24 items cannot fill a codebook of 64 codes" in out
    assert f"Report: {tmp_path / 'out' / 'transfer.md'}" in out
    trained = Run(tmp_path / "out" / "fine-tuned").stages["train"].config
    assert (trained["epochs"], trained["scratch"]["hidden_size"]) == (1, 32)
    status, printed, err = genrec(*arguments, "--config", tmp_path / "transfer.yaml", "--json")
    assert status == 0, err
    assert set(json.loads(printed)["rows"]) == {"zero-shot", "fine-tuned", "scratch-shared-ids", "popularity"}
    assert "finished before" in err
