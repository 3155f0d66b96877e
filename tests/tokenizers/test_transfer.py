"""One run's items under another run's frozen tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec import pipeline
from genrec.config import EmbedConfig, IngestConfig, TokenizeConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.errors import ConfigError, DataError, RunError
from genrec.run import Run, StageReport, file_checksum
from genrec.tokenizers.codes import SemanticIds
from genrec.tokenizers.stage import encode_items, load_fusion

Genrec = Callable[..., "tuple[int, str, str]"]


def embedded(run: Path, vectors: np.ndarray, *, name: str = "text") -> Run:
    """The run with other vectors, and no codes."""
    file = run.parent / f"{name}-of-{run.name}.npy"
    np.save(file, vectors.astype(np.float32))
    embed(Run(run), EmbedConfig(behaviour_model=None, text_model=None, precomputed={name: file}))
    return Run(run)


def codes_of(run: Run) -> SemanticIds:
    return SemanticIds.load(run, catalog=Catalog.load(run))


def encoded_by(source: Run, run: Run) -> np.ndarray:
    """Codes of a run's items by a source's tokenizer, with all modalities but text missing."""
    widths = dict(zip(load_fusion(source).names, load_fusion(source).widths, strict=True))
    vectors = {name: np.zeros((30, width), np.float32) for name, width in widths.items()}
    vectors["text"] = Embeddings.load(run, "text", catalog=Catalog.load(run)).vectors
    return encode_items(source, vectors, {name: np.full(30, name == "text") for name in widths})


def test_a_source_encodes_its_own_catalogue_as_it_did(tiny_run: Path, tiny_copy: Path) -> None:
    run, source = Run(tiny_copy), Run(tiny_run)
    shutil.rmtree(tiny_copy / "semantic_ids")
    pipeline.tokenize_from(run, source, collisions="shared")
    np.testing.assert_array_equal(codes_of(run).codes, encoded_by(source, run))
    pipeline.tokenize_from(run, source)  # with the source's own policy
    for name in ("codes.npy", "semantic_ids.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer.safetensors"):
        assert file_checksum(tiny_copy / "semantic_ids" / name) == file_checksum(tiny_run / "semantic_ids" / name)
    # Codes that changed on the way have made the model stale.
    assert list(run.stages) == ["ingest", "embed", "tokenize", "trie"]


def test_codes_of_one_catalogues_own_items_do_not_travel(tiny_run: Path, tiny_copy: Path) -> None:
    pipeline.tokenize(Run(tiny_copy), TokenizeConfig(method="item-id"))
    with pytest.raises(ConfigError, match=r"one code for each of its own items.* says nothing about those"):
        pipeline.tokenize_from(Run(tiny_run), Run(tiny_copy))


def test_the_run_stands_alone_and_its_health_speaks_of_its_own_items(tiny_run: Path, tiny_copy: Path) -> None:
    target = embedded(tiny_copy, np.random.default_rng(5).normal(size=(30, 8)))
    report = pipeline.tokenize_from(target, Run(tiny_run), same_encoder=True)
    assert codes_of(target).codebook_sizes == codes_of(Run(tiny_run)).codebook_sizes
    assert len(np.unique(codes_of(target).codes, axis=0)) == 30
    # These vectors are not those that the tokenizer learned from, and the report says how ill they fit.
    theirs = json.loads((tiny_run / "semantic_ids" / "health.json").read_text())
    assert report.facts["reconstruction"]["text"][-1] > 2 * theirs["reconstruction"]["text"][-1]
    assert report.facts["tokenized_from"] == str(tiny_run)
    assert any("on your word" in line for line in report.words)
    assert not any("far apart" in line for line in report.words)
    np.testing.assert_array_equal(encoded_by(target, target), encoded_by(Run(tiny_run), target))
    for stage in ("tokenize", "trie"):
        target.require(stage)
    assert target.stages["tokenize"].config["codebook_size"] == 8


def test_crowded_items_spread_and_the_codebooks_do_not_grow(tiny_run: Path, tiny_copy: Path) -> None:
    crowd = 0.01 * np.random.default_rng(0).normal(size=(30, 8)) + np.eye(8)[0]
    target = embedded(tiny_copy, crowd)
    report = pipeline.tokenize_from(target, Run(tiny_run), same_encoder=True)
    ids = codes_of(target)
    assert ids.codebook_sizes == (8, 8)
    assert len(np.unique(ids.codes, axis=0)) == 30
    assert report.facts["moved_prefixes"] > 0
    assert any("sibling prefix" in line for line in report.words)
    # All of them are next to one point, and what the codes say of it is further off than they are from each other.
    assert report.facts["reconstruction"]["text"][-1] > 1.0
    assert any("far apart" in line for line in report.words)


def test_behaviour_does_not_travel_and_is_guessed_from_what_the_items_are(
    tiny_run: Path, tiny_copy: Path, tiny_files: Path
) -> None:
    source = Run(shutil.copytree(tiny_run, tiny_copy.parent / "source"))
    text = EmbedConfig(behaviour_model=None, text_model=None, precomputed={"text": tiny_files / "vectors.npy"})
    used = text.model_copy(update={"behaviour_model": "ppmi-svd", "behaviour_width": 4})
    embed(source, used)
    joint = TokenizeConfig(method="residual-kmeans", levels=2, codebook_size=8, item_codes=0, collisions="shared")
    pipeline.tokenize(source, joint)
    assert load_fusion(source).names == ("text", "behaviour")
    own = codes_of(source).codes
    target = Run(tiny_copy)
    pipeline.tokenize_from(target, source)  # it has no behaviour vectors at all
    without = codes_of(target).codes
    np.testing.assert_array_equal(without, encoded_by(source, target))
    assert not np.array_equal(without, own)
    changed = pl.read_csv(tiny_files / "interactions.csv").with_columns(item_id=pl.col("item_id").reverse())
    changed.write_csv(tiny_copy.parent / "other.csv")
    tables = [tiny_files / "items.jsonl", tiny_copy.parent / "other.csv"]
    ingest(target, "tables", tables, IngestConfig(min_interactions=1))
    embed(target, used)  # of other histories: other axes
    report = pipeline.tokenize_from(target, source)
    np.testing.assert_array_equal(codes_of(target).codes, without)
    assert report.facts["guessed_modalities"] == ["behaviour"]
    assert any("behaviour do not travel" in line for line in report.words)
    # The same histories gave the same vectors, so a source that reads its own behaviour keeps its codes.
    same = Run(shutil.copytree(source.path, tiny_copy.parent / "same"))
    assert pipeline.tokenize_from(same, source).facts["guessed_modalities"] == []
    np.testing.assert_array_equal(codes_of(same).codes, own)
    pipeline.tokenize(source, joint.model_copy(update={"modalities": ("behaviour",)}))
    with pytest.raises(RunError, match="Behaviour alone does not travel"):
        pipeline.tokenize_from(target, source)


def test_behaviour_left_from_an_earlier_embedding_is_not_taken_for_the_runs_own(
    tiny_run: Path, tiny_copy: Path, tiny_files: Path
) -> None:
    text = EmbedConfig(behaviour_model=None, text_model=None, precomputed={"text": tiny_files / "vectors.npy"})
    source = Run(shutil.copytree(tiny_run, tiny_copy.parent / "source"))
    for run in (source, Run(tiny_copy)):
        embed(run, text.model_copy(update={"behaviour_model": "ppmi-svd", "behaviour_width": 4}))
    embed(Run(tiny_copy), text)
    joint = TokenizeConfig(method="residual-kmeans", levels=2, codebook_size=8, item_codes=0)
    pipeline.tokenize(source, joint)
    report = pipeline.tokenize_from(Run(tiny_copy), source)
    assert report.facts["guessed_modalities"] == ["behaviour"]


def test_more_items_than_ids_are_refused(tiny_run: Path, tiny_copy: Path) -> None:
    source = Run(shutil.copytree(tiny_run, tiny_copy.parent / "source"))
    few = TokenizeConfig(method="residual-kmeans", levels=1, codebook_size=4, item_codes=0, collisions="shared")
    pipeline.tokenize(source, few)
    with pytest.raises(DataError, match="30 items are more than the 4 semantic IDs"):
        pipeline.tokenize_from(Run(tiny_copy), source, collisions="reassign")
    pipeline.tokenize_from(Run(tiny_copy), source)
    assert codes_of(Run(tiny_copy)).codebook_sizes == (4,)


def test_vectors_of_another_encoder_or_width_are_refused_by_name(tiny_run: Path, tiny_copy: Path) -> None:
    source = Run(tiny_run)
    other = embedded(tiny_copy, np.ones((30, 8)))
    with pytest.raises(RunError) as caught:
        pipeline.tokenize_from(other, source)
    assert "text-of-run.npy (revision" in caught.value.message
    assert "tokenizer of vectors.npy (revision" in caught.value.message
    assert "--same-encoder" in caught.value.hint
    wide = embedded(tiny_copy, np.ones((30, 9)))
    with pytest.raises(RunError, match=r"width 9.*width 8") as caught:
        pipeline.tokenize_from(wide, source, same_encoder=True)  # no word helps against another width
    assert "--same-encoder" not in caught.value.hint
    shutil.rmtree(tiny_copy / "embeddings")
    with pytest.raises(RunError, match=rf"no vectors of modality 'text', which the tokenizer of {tiny_run}"):
        pipeline.tokenize_from(embedded(tiny_copy, np.ones((30, 8)), name="image"), source)
    assert list(Run(tiny_copy).stages) == ["ingest", "embed"]


def test_what_a_runs_own_alignment_made_does_not_travel(tiny_run: Path, tiny_copy: Path) -> None:
    source = Run(shutil.copytree(tiny_run, tiny_copy.parent / "source"))
    text = Embeddings.load(source, "text", catalog=Catalog.load(source))
    for run, revision in ((source, "heads of one"), (Run(tiny_copy), "heads of the other")):
        made = replace(text, modality="aligned", model="alignment", revision=revision)
        report, written = StageReport("align", {"modalities": ["aligned"]}, []), made.save(run)
        run.record(report, config={}, seed=0, inputs=[], outputs=written, started=run.begin())
    pipeline.tokenize(source, TokenizeConfig(modalities=("aligned",), levels=2, codebook_size=4))
    for same_encoder in (False, True):
        with pytest.raises(RunError, match="no other catalogue has vectors in that space") as caught:
            pipeline.tokenize_from(Run(tiny_copy), source, same_encoder=same_encoder)
        assert "--modalities text" in caught.value.hint


def test_a_run_is_not_its_own_source_and_a_changed_source_is_none(tiny_run: Path, tiny_copy: Path) -> None:
    with pytest.raises(ConfigError, match="from itself"):
        pipeline.tokenize_from(Run(tiny_copy), Run(tiny_copy))
    damaged = Run(tiny_copy)
    (tiny_copy / "semantic_ids" / "tokenizer" / "tokenizer.json").write_text("{}")
    copy = Run(shutil.copytree(tiny_run, tiny_copy.parent / "third"))
    with pytest.raises(RunError, match="not what stage 'tokenize' wrote"):
        pipeline.tokenize_from(copy, damaged)


def test_the_command_takes_the_tokenizer_and_refuses_to_change_it(
    genrec: Genrec, tiny_run: Path, tiny_copy: Path
) -> None:
    status, out, err = genrec("tokenize", tiny_copy, "--from", tiny_run, "--collisions", "shared")
    assert status == 0, err
    assert f"The tokenizer of {tiny_run}, frozen" in out
    assert f"Next: genrec train {tiny_copy}" in out
    recorded = Run(tiny_copy).stages["tokenize"]
    assert (recorded.config["collisions"], recorded.config["levels"]) == ("shared", 2)
    assert json.loads(genrec("tokenize", tiny_copy, "--from", tiny_run, "--json")[1])["tokenized_from"] == str(tiny_run)
    for wrong in (
        ("--from", tiny_run, "--levels", 3),
        ("--from", tiny_run, "--collisions", "no-such-policy"),
        ("--same-encoder",),
    ):
        status, _, err = genrec("tokenize", tiny_copy, *wrong)
        assert status == 2, err
    assert "error" in err
