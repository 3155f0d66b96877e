"""Real sounds, real clips and precomputed audio features all the way: ingest, embed, tokenize, train, recommend.

The users of the sounds and the clips are made up here (each stays within a class), for those sets have none. Those
of SiTunes are real, and so are the songs of which it has no features.
"""

from __future__ import annotations

import csv
import json
import runpy
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from genrec import pipeline
from genrec.config import EmbedConfig, IngestConfig, ScratchConfig, TokenizeConfig, TrainConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.recommender import Recommender
from genrec.run import Run

ROOT = Path(__file__).resolve().parents[2]
TINY = TrainConfig(
    scratch=ScratchConfig(hidden_size=32, layers=1, heads=2, intermediate_size=64, text_vocabulary=320),
    epochs=1,
    batch_tokens=2048,
    max_history_items=8,
    validation_users=10,
    precision="float32",
)


def write_tables(folder: Path, items: Sequence[dict[str, object]], histories: Sequence[Sequence[str]]) -> list[Path]:
    """The two tables; a history is a user's items, oldest first."""
    tables = [folder / "items.jsonl", folder / "interactions.csv"]
    tables[0].write_text("".join(json.dumps(item) + "\n" for item in items))
    rows = [f"u{user},{item}\n" for user, history in enumerate(histories) for item in history]
    tables[1].write_text("user_id,item_id\n" + "".join(rows))
    return tables


def recommend_after_all_stages(run: Run, tables: list[Path], config: EmbedConfig, tokenizer: TokenizeConfig) -> None:
    """Every stage from the tables on; then recommendations that are items of the catalogue, each once."""
    ingest(run, "tables", tables, IngestConfig(min_interactions=1))
    embed(run, config)
    pipeline.tokenize(run, tokenizer)
    pipeline.train(run, TINY)
    recommender = Recommender.load(run.path, beam_width=10)
    item_ids = Catalog.load(run).item_ids
    for history in ([], item_ids[:1], item_ids[:3]):
        found = [item.item_id for item in recommender.recommend(history, k=3)]
        assert len(found) == min(3, len(item_ids) - len(history))
        assert len(set(found)) == len(found)
        assert set(found) <= set(item_ids) - set(history)


@pytest.mark.benchmark_data
def test_sounds_pass_all_stages(data_folder: Path, tmp_path: Path) -> None:
    files = [file for folder in sorted((data_folder / "esc10").glob("0*")) for file in sorted(folder.glob("*.ogg"))[:6]]
    assert len(files) == 60
    for file in files:
        shutil.copyfile(file, tmp_path / file.name)
    items = [{"item_id": file.stem, "title": file.parent.name, "audio": file.name} for file in files]
    rng = np.random.default_rng(0)
    histories = [[files[6 * (user % 10) + row].stem for row in rng.permutation(6)[:5]] for user in range(40)]
    tokenizer = TokenizeConfig(method="residual-kmeans", modalities=("audio",), levels=2, codebook_size=8)
    run = Run.create(tmp_path / "run")
    config = EmbedConfig(behaviour_model=None, text_model=None, audio_model="descriptors")
    recommend_after_all_stages(run, write_tables(tmp_path, items, histories), config, tokenizer)
    assert Embeddings.load(run, "audio", catalog=Catalog.load(run)).mask.all()


@pytest.mark.benchmark_data
def test_clips_pass_all_stages(data_folder: Path, tmp_path: Path) -> None:
    files = [file for file in sorted((data_folder / "video_clips").iterdir()) if file.suffix in {".mp4", ".avi"}]
    assert len(files) == 5
    for file in files:
        shutil.copyfile(file, tmp_path / file.name)
    items = [{"item_id": file.stem, "title": file.stem, "video": file.name} for file in files]
    histories = [[files[(user + step) % 5].stem for step in range(4)] for user in range(20)]
    tokenizer = TokenizeConfig(method="residual-kmeans", modalities=("video",), levels=2, codebook_size=3)
    run = Run.create(tmp_path / "run")
    config = EmbedConfig(behaviour_model=None, text_model=None, video_model="descriptors")
    recommend_after_all_stages(run, write_tables(tmp_path, items, histories), config, tokenizer)
    assert Embeddings.load(run, "video", catalog=Catalog.load(run)).mask.all()


def songs_of(data: Path) -> tuple[list[dict[str, object]], dict[str, list[float]]]:
    """Songs that anybody heard, as items, and the audio features of those that have any, each scaled to unit spread."""
    with (data / "music_metadata" / "music_info_withname.csv").open(encoding="utf-8") as stream:
        known = {str(int(float(row["i_id_c"]))): row for row in csv.DictReader(stream)}
    heard = sorted({item for history in histories_of(data) for item in history}, key=int)
    words = {"i_id_c", "popularity", "general_genre_id", "general_genre", "music", "singer"}
    with_features = [item for item in heard if item in known]
    names = [name for name in known[with_features[0]] if name not in words]
    numbers = np.array([[float(known[item][name]) for name in names] for item in with_features])
    scaled = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)
    items: list[dict[str, object]] = [
        {"item_id": item, "title": known[item]["music"] if item in known else ""} for item in heard
    ]
    return items, dict(zip(with_features, scaled.tolist(), strict=True))


def histories_of(data: Path) -> list[list[str]]:
    """What each of the thirty listeners heard, oldest first."""
    heard: dict[str, list[tuple[int, str]]] = {}
    for stage in ("Stage1", "Stage2", "Stage3"):
        with (data / stage / "interactions.csv").open(encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                heard.setdefault(row["user_id"], []).append((int(row["timestamp"]), row["item_id"]))
    return [[item for _, item in sorted(rows)] for rows in heard.values()]


@pytest.mark.benchmark_data
def test_situnes_passes_all_stages_with_its_missing_rows(data_folder: Path, tmp_path: Path) -> None:
    data = data_folder / "situnes_music"
    items, features = songs_of(data)
    assert (len(items), len(features)) == (307, 298)
    file = tmp_path / "features.jsonl"
    file.write_text("".join(json.dumps({"item_id": item, "vector": row}) + "\n" for item, row in features.items()))
    tables = write_tables(tmp_path, items, histories_of(data))
    tokenizer = TokenizeConfig(method="residual-kmeans", modalities=("audio",), levels=3, codebook_size=16)
    run = Run.create(tmp_path / "run")
    config = EmbedConfig(behaviour_model=None, text_model=None, precomputed={"audio": file})
    recommend_after_all_stages(run, tables, config, tokenizer)
    made = Embeddings.load(run, "audio", catalog=Catalog.load(run))
    assert (len(made.mask), int(made.mask.sum())) == (307, 298)


@pytest.mark.benchmark_data
def test_the_recipe_classifies_sounds_far_above_chance(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in sorted((data_folder / "esc10").glob("0*")):
        shutil.copytree(folder, tmp_path / folder.name, ignore=lambda _, names: sorted(names)[10:])
    monkeypatch.setattr("sys.argv", ["sound.py", str(tmp_path)])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "eval" / "sound.py"), run_name="__main__")
    assert ending.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "| chance | | 10.0% | 10.0% |"
    accuracy = float(lines[-2].split("|")[3].strip(" *%"))
    assert accuracy > 50


def test_the_recipe_says_where_there_are_no_sounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("sys.argv", ["sound.py", str(tmp_path / "empty")])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "eval" / "sound.py"), run_name="__main__")
    assert ending.value.code == 1
    assert "holds no folders with .ogg files" in capsys.readouterr().err
