"""The stage `align` on runs whose answer is known: two views of one hidden factor, users who walk among near items."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from genrec.config import AlignConfig, EmbedConfig, TokenizeConfig
from genrec.data.catalog import Catalog
from genrec.data.splits import COLD_ITEMS
from genrec.encoders.alignment import align
from genrec.encoders.alignment_heads import load_alignment
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.errors import ConfigError, RunError
from genrec.pipeline import tokenize
from genrec.run import Run, StageReport, file_checksum

NUM_ITEMS, LATENT, NUM_USERS = 240, 6, 120
QUICK = AlignConfig(width=32, hidden_width=32, steps=120, batch_size=96, validate_every=20, learning_rate=3e-3)


def hidden_factor() -> NDArray[np.float64]:
    return np.random.default_rng(7).normal(size=(NUM_ITEMS, LATENT))


def views(folder: Path) -> dict[str, Path]:
    """Two modalities: rotations of the hidden factor with noise; the second is missing for every tenth item."""
    rng = np.random.default_rng(1)
    files = {}
    for name in ("sight", "sound"):
        rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
        vectors = np.pad(hidden_factor(), ((0, 0), (0, 12 - LATENT))) @ rotation
        vectors += 0.1 * rng.normal(size=vectors.shape)
        rows = {"item_id": [f"i{row}" for row in range(NUM_ITEMS)], "vector": vectors.astype(np.float32).tolist()}
        table = pl.DataFrame(rows)
        if name == "sound":
            table = table.filter(pl.int_range(pl.len()) % 10 != 3)
        files[name] = folder / f"{name}.parquet"
        table.write_parquet(files[name])
    return files


def walks() -> list[dict[str, object]]:
    """Each user steps to one of the five nearest items; the last two steps are validation and test."""
    rng = np.random.default_rng(2)
    points = hidden_factor()
    near = np.argsort(((points[:, None] - points[None]) ** 2).sum(axis=2), axis=1)[:, 1:6]
    rows: list[dict[str, object]] = []
    for user in range(NUM_USERS):
        item = int(rng.integers(NUM_ITEMS))
        for step in range(12):
            split = "train" if step < 10 else ("validation", "test")[step - 10]
            rows.append({"user_id": f"u{user}", "item_id": f"i{item}", "position": step, "split": split})
            item = int(near[item, rng.integers(5)])
    return rows


def make_run(
    folder: Path, rows: list[dict[str, object]], files: dict[str, Path], cold: Sequence[int] = (), kind: int = 0
) -> Run:
    """`cold` items are held out of training; where `kind` is 1 they have another genre."""
    run = Run.create(folder)
    kinds = [["round", "angular"][int(value > 0)] for value in hidden_factor()[:, 0]]
    for row in cold:
        kinds[row] = ["round", "angular"][kind]
    ids = [f"i{row}" for row in range(NUM_ITEMS)]
    pl.DataFrame({"item_id": ids, "title": ids, "genres": [[kind] for kind in kinds]}).write_parquet(
        folder / "items.parquet"
    )
    pl.DataFrame(rows).write_parquet(folder / "splits.parquet")
    outputs = [folder / "items.parquet", folder / "splits.parquet"]
    if cold:
        outputs.append(folder / COLD_ITEMS)
        pl.DataFrame({"item_id": [ids[row] for row in cold]}).write_parquet(outputs[-1])
    run.record(StageReport("ingest", {}, []), config={}, seed=0, inputs=[], outputs=outputs, started=run.begin())
    embed(run, EmbedConfig(behaviour_model=None, text_model=None, precomputed=files))
    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return views(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path]) -> Path:
    return make_run(tmp_path_factory.mktemp("alignment") / "run", walks(), files).path


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory, untouched: Path) -> tuple[Run, StageReport]:
    run = Run.open(shutil.copytree(untouched, tmp_path_factory.mktemp("aligned") / "run"))
    return run, align(run, QUICK)


@pytest.fixture
def copy(untouched: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(untouched, tmp_path / "run"))


def answers(report: StageReport) -> dict[str, tuple[float | None, float]]:
    return {answer["question"]: (answer["before"], answer["after"]) for answer in report.facts["retrieval"]}


def vectors_of(run: Run, modality: str) -> Embeddings:
    return Embeddings.load(run, modality, catalog=Catalog.load(run))


def outputs(run: Run) -> dict[str, str]:
    return {name: sum_ for name, sum_ in run.require("align").outputs.items()}


def test_two_views_of_one_factor_find_each_other_and_near_items(aligned: tuple[Run, StageReport]):
    found = answers(aligned[1])
    for question in ("sound of the same item, by sight", "sight of the same item, by sound"):
        before, after = found[question]
        assert before is not None
        assert before < 0.3
        assert after > 0.9
    assert found["item used next, by all"][1] > 0.5
    heads = aligned[1].facts["training"]["heads"]
    assert heads["held_out_loss_after"] < heads["held_out_loss_before"]
    assert any("sound of the same item, by sight: recall@10" in line for line in aligned[1].words)


def test_every_item_with_any_modality_has_an_aligned_vector_of_length_one(aligned: tuple[Run, StageReport]):
    run = aligned[0]
    fused, sight, sound = (vectors_of(run, name) for name in ("aligned", "aligned-sight", "aligned-sound"))
    assert fused.mask.all()
    assert (~sound.mask).sum() == NUM_ITEMS // 10
    assert (sound.vectors[~sound.mask] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(fused.vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(fused.vectors[~sound.mask], sight.vectors[~sound.mask], atol=1e-6)
    total = sight.vectors + sound.vectors
    np.testing.assert_allclose(fused.vectors, total / np.linalg.norm(total, axis=1, keepdims=True), atol=1e-6)


def test_a_new_item_is_projected_as_the_stage_projected_the_same_vectors(aligned: tuple[Run, StageReport]):
    run = aligned[0]
    made = {name: vectors_of(run, name) for name in ("sight", "sound")}
    rows = np.array([5, 3, 77])  # item 3 has no sound
    fused, mask = load_alignment(run).project(
        {name: one.vectors[rows] for name, one in made.items()}, {name: one.mask[rows] for name, one in made.items()}
    )
    np.testing.assert_allclose(fused, vectors_of(run, "aligned").vectors[rows], atol=1e-6)
    assert mask.all()
    nothing, none = load_alignment(run).project({"sight": made["sight"].vectors[:1]}, {"sight": np.zeros(1, bool)})
    assert not none.any()
    assert (nothing == 0).all()
    with pytest.raises(ConfigError, match="does not know modality 'smell'"):
        load_alignment(run).project_modality("smell", np.zeros((1, 12), np.float32))
    with pytest.raises(ConfigError, match=r"expected \(N, 12\)"):
        load_alignment(run).project_modality("sight", np.zeros((1, 11), np.float32))


def test_the_same_seed_writes_the_same_files_and_another_seed_others(aligned: tuple[Run, StageReport], copy: Run):
    align(copy, QUICK)
    assert outputs(copy) == outputs(aligned[0])
    align(copy, QUICK.model_copy(update={"seed": 1}))
    assert outputs(copy)["embeddings/aligned.npy"] != outputs(aligned[0])["embeddings/aligned.npy"]


def test_validation_and_test_interactions_change_nothing(
    aligned: tuple[Run, StageReport], files: dict[str, Path], tmp_path: Path
):
    rng = np.random.default_rng(3)
    rows = [row if row["split"] == "train" else {**row, "item_id": f"i{rng.integers(NUM_ITEMS)}"} for row in walks()]
    assert rows != walks()
    run = make_run(tmp_path / "run", rows, files)
    report = align(run, QUICK)
    assert outputs(run) == outputs(aligned[0])
    assert report.facts == aligned[1].facts
    changed = [row if row["position"] != 3 else {**row, "item_id": f"i{rng.integers(NUM_ITEMS)}"} for row in walks()]
    run = make_run(tmp_path / "other", changed, files)
    align(run, QUICK)
    assert outputs(run)["alignment/heads.safetensors"] != outputs(aligned[0])["alignment/heads.safetensors"]


@pytest.mark.parametrize("model", ["spectral", "sequential"])
def test_behaviour_vectors_know_training_histories_alone(model: str, files: dict[str, Path], tmp_path: Path):
    rng = np.random.default_rng(3)
    rows = walks()
    later = [row if row["split"] == "train" else {**row, "item_id": f"i{rng.integers(NUM_ITEMS)}"} for row in rows]
    earlier = [row if row["position"] != 3 else {**row, "item_id": f"i{rng.integers(NUM_ITEMS)}"} for row in rows]
    made = []
    for number, changed in enumerate((rows, later, earlier)):
        run = make_run(tmp_path / str(number), changed, files)
        embed(run, EmbedConfig(text_model=None, behaviour_model=model, behaviour_width=8))
        made.append((run.path / "embeddings" / "behaviour.npy").read_bytes())
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("objective", ["contrastive", "reconstructive", "autoregressive"])
def test_held_out_items_teach_nothing_and_are_aligned_all_the_same(objective: str, tmp_path: Path):
    cold = list(range(0, NUM_ITEMS, 8))
    rows = [row for row in walks() if int(str(row["item_id"])[1:]) not in cold]
    config = QUICK.model_copy(update={"objective": objective, "steps": 40})
    heads, aligned = [], []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = views(folder)
        if number:  # the held-out items look and sound like nothing before
            for file in files.values():
                table = pl.read_parquet(file)
                is_cold = pl.col("item_id").is_in([f"i{row}" for row in cold])
                other = pl.col("vector").list.eval(pl.element() * -3.0 + 5.0)
                table.with_columns(vector=pl.when(is_cold).then(other).otherwise("vector")).write_parquet(file)
        run = make_run(folder / "run", rows, files, cold, kind=number)
        align(run, config)
        heads.append(outputs(run)["alignment/heads.safetensors"])
        aligned.append(vectors_of(run, "aligned"))
    assert heads[0] == heads[1]
    warm = np.setdiff1d(np.arange(NUM_ITEMS), cold)
    np.testing.assert_array_equal(aligned[0].vectors[warm], aligned[1].vectors[warm])
    assert aligned[0].mask[cold].all()
    assert (aligned[0].vectors[cold] != aligned[1].vectors[cold]).any(axis=1).all()


@pytest.mark.parametrize("objective", ["reconstructive", "autoregressive"])
def test_the_other_objectives_learn_what_they_are_about(copy: Run, objective: str):
    report = align(copy, QUICK.model_copy(update={"objective": objective}))
    heads = report.facts["training"]["heads"]
    assert heads["held_out_loss_after"] < 0.8 * heads["held_out_loss_before"]
    if objective == "autoregressive":
        assert answers(report)["item used next, by all"][1] > 0.3
    copy.require("align")


def test_aligned_vectors_are_tokenized_like_any_other_and_new_embeddings_make_them_stale(copy: Run):
    with pytest.raises(RunError, match="genrec embed RUN --align"):
        tokenize(copy, TokenizeConfig(method="residual-kmeans", modalities=("aligned",), levels=2, codebook_size=8))
    align(copy, QUICK.model_copy(update={"steps": 5}))
    tokenize(copy, TokenizeConfig(method="residual-kmeans", modalities=("aligned",), levels=2, codebook_size=8))
    assert {"align", "tokenize", "trie"} <= set(copy.stages)
    file = copy.path.parent / "other.npy"
    np.save(file, np.random.default_rng(5).normal(size=(NUM_ITEMS, 12)).astype(np.float32))
    record = copy.require("embed").config["precomputed"]
    embed(
        copy,
        EmbedConfig(
            behaviour_model=None, text_model=None, precomputed={name: Path(path) for name, path in record.items()}
        ),
    )
    assert "align" in copy.stages  # nothing has changed
    embed(copy, EmbedConfig(behaviour_model=None, text_model=None, precomputed={**record, "sight": file}))
    assert not {"align", "tokenize", "trie"} & set(copy.stages)
    for read in (lambda: load_alignment(copy), lambda: vectors_of(copy, "aligned-sight")):
        with pytest.raises(RunError, match="no stage 'align'"):
            read()


def test_files_that_a_killed_alignment_left_behind_are_not_used(copy: Run):
    align(copy, QUICK.model_copy(update={"steps": 5}))
    file = copy.path / "embeddings" / "aligned.npy"
    np.save(file, np.load(file)[::-1].copy())
    with pytest.raises(RunError, match=r"not what stage 'align' wrote .* Run `genrec embed RUN --align"):
        vectors_of(copy, "aligned-sight")


def test_what_cannot_be_aligned_is_refused(copy: Run, files: dict[str, Path]):
    embed(copy, EmbedConfig(behaviour_model=None, text_model=None, precomputed={"sight": files["sight"]}))
    nothing = QUICK.model_copy(update={"behaviour_weight": 0.0})
    with pytest.raises(ConfigError, match="There is nothing to align"):
        align(copy, nothing)
    with pytest.raises(ConfigError, match="needs items with two modalities"):
        align(copy, QUICK.model_copy(update={"objective": "reconstructive"}))
    embed(copy, EmbedConfig(behaviour_model=None, text_model=None, precomputed={"aligned-x": files["sight"]}))
    with pytest.raises(ConfigError, match="has a name that align writes"):
        align(copy, QUICK)
    assert "align" not in copy.stages


def test_the_command_keeps_the_vectors_of_the_run_and_aligns_them(
    copy: Run, genrec: Callable[..., object], aligned: tuple[Run, StageReport], tmp_path: Path
):
    options = tmp_path / "align.yaml"
    options.write_text(json.dumps(QUICK.model_dump(mode="json", exclude={"unfreeze"})))
    finished = genrec("embed", copy.path, "--align", "--align-config", options)
    assert finished.status == 0
    assert "--modalities aligned" in finished.out
    assert outputs(copy) == outputs(aligned[0])
    assert file_checksum(copy.path / "embeddings/sight.npy") == copy.stages["embed"].outputs["embeddings/sight.npy"]
    refused = genrec("embed", copy.path, "--align-config", options)
    assert refused.status == 2
    assert "Give --align too" in refused.err
