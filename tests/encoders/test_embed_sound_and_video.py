"""`genrec embed --audio --video`: files of a catalogue, broken ones among them, through the real stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from genrec.config import EmbedConfig, IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.encoders.audio import audio_encoder
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.encoders.media import MediaFile
from genrec.encoders.video import video_encoder
from genrec.errors import ConfigError, MissingDependencyError, UnreadableInputError
from genrec.progress import SILENT
from genrec.run import Run

BROKEN_SOUNDS = {"text.wav": b"words\n" * 50, "empty.ogg": b"", "half.flac": b"fLaC", "half.mp3": b"\xff\xfb\x90"}
BROKEN_CLIPS = {"text.mp4": b"words\n" * 50, "empty.mkv": b"", "half.avi": b"RIFF0000AVI LIST"}


def write_clip(file: Path, brightness: int) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            pixels = np.full((48, 64, 3), brightness + number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def media_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of ten items: four with whole files, four with broken ones, two with none. For `embed` only."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(folder / f"{number}.ogg", rng.uniform(-0.3, 0.3, 8000 * (number + 1)), 16_000)
        write_clip(folder / f"{number}.mp4", 60 * number)
    for name, content in {**BROKEN_SOUNDS, **BROKEN_CLIPS}.items():
        (folder / name).write_bytes(content)
    sounds = [f"{number}.ogg" for number in range(3)] + ["0.ogg", *BROKEN_SOUNDS, None, None]
    clips = [f"{number}.mp4" for number in range(3)] + ["0.mp4", *BROKEN_CLIPS, "0.ogg", None, None]
    rows = [
        {"item_id": f"i{row}", "title": f"Song {row}", "audio": sound, "video": clip}
        for row, (sound, clip) in enumerate(zip(sounds, clips, strict=True))
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "interactions.csv").write_text("user_id,item_id\nu,i0\nu,i1\nu,i2\n")
    run = Run.create(folder / "run")
    tables = [folder / "items.jsonl", folder / "interactions.csv"]
    ingest(run, "tables", tables, IngestConfig(min_interactions=1))
    return run


def test_broken_files_among_good_ones_are_all_named_and_stop_nothing(media_run: Run) -> None:
    config = EmbedConfig(
        behaviour_model=None, text_model=None, audio_model="descriptors", video_model="descriptors", clip_batch_size=2
    )
    report = embed(media_run, config)
    for modality, broken in (("audio", list(BROKEN_SOUNDS)), ("video", [*BROKEN_CLIPS, "0.ogg"])):
        facts = report.facts["modalities"][modality]
        assert (facts["num_items"], facts["missing"], facts["unreadable"], facts["encoded_now"]) == (10, 6, 4, 3)
        made = Embeddings.load(media_run, modality, catalog=Catalog.load(media_run))
        assert made.mask.tolist() == [True] * 4 + [False] * 6
        assert (made.vectors[0] == made.vectors[3]).all()
        assert (made.vectors[0] != made.vectors[1]).any()
        assert made.model == "classical descriptors, no learned weights"
        lines = (media_run.path / "embeddings" / f"{modality}.problems.jsonl").read_text().splitlines()
        assert [json.loads(line)["file"] for line in lines] == broken
        assert all(any(f"({name})" in word for word in report.words) for name in broken)
    again = embed(media_run, config).facts["modalities"]
    assert (again["audio"]["encoded_now"], again["video"]["encoded_now"]) == (0, 0)


def test_the_command_line_takes_both(media_run: Run, genrec: Callable[..., object]) -> None:
    done = genrec(
        "embed",
        media_run.path,
        "--text",
        "none",
        "--behaviour",
        "none",
        "--audio",
        "descriptors",
        "--video",
        "descriptors",
    )
    assert done.status == 0, done.err
    assert "audio: 10 items, 6 of them without a vector, width 224" in done.out
    assert "video: 10 items, 6 of them without a vector, width 436" in done.out


def test_what_is_longer_than_the_options_allow_is_unreadable(media_run: Run) -> None:
    config = EmbedConfig(
        behaviour_model=None,
        audio_model="descriptors",
        max_audio_seconds=1.2,
        video_model="descriptors",
        max_video_seconds=0.8,
    )
    folder = media_run.path.parent
    with pytest.raises(UnreadableInputError, match=r"longer than the limit of 1\.2 s"):
        audio_encoder(config, progress=SILENT).read(MediaFile(folder, "2.ogg"))
    with pytest.raises(UnreadableInputError, match=r"longer than the limit of 0\.8 s"):
        video_encoder(config, progress=SILENT).read(MediaFile(folder, "2.mp4"))


def test_a_file_and_a_model_of_one_name_are_refused(media_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'audio' is asked for twice"):
        embed(
            media_run,
            EmbedConfig(behaviour_model=None, audio_model="descriptors", precomputed={"audio": tmp_path / "x.npy"}),
        )


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="extra `audio`"):
        audio_encoder(EmbedConfig(behaviour_model=None, audio_model="descriptors"), progress=SILENT)
