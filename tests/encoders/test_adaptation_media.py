"""Encoders of pictures, sounds and clips that learn: on tiny real checkpoints, and in a run that has all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from genrec import pipeline
from genrec.catalogue_changes import add_items, update_items
from genrec.config import AlignConfig, EmbedConfig, IngestConfig, TokenizeConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.encoders.adaptation import TrainableEncoder, adapt, trained_weights
from genrec.encoders.alignment import align
from genrec.encoders.audio_models import AudioEncoder
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed, read_problems
from genrec.encoders.media import MediaFile
from genrec.encoders.sounds import SoundLimits
from genrec.encoders.video import video_encoder
from genrec.encoders.vision import VisionEncoder
from genrec.errors import ConfigError
from genrec.progress import SILENT
from genrec.run import Run
from tests.encoders.test_audio_models import SAVERS
from tests.encoders.test_video_models import moving_clip, save_video_models

WHEN = "2026-01-02T03:04:05+00:00"
RATE = 16_000
NUM_ITEMS, KINDS = 18, 3
MEDIA = ("image", "audio", "video")
QUICK = AlignConfig(
    width=8,
    hidden_width=8,
    steps=12,
    batch_size=12,
    encoder_steps=3,
    encoder_batch_size=6,
    encoder_learning_rate=1e-2,
    lora_rank=2,
    unfreeze="lora",
    held_out_share=0.2,
)
Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def sound_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound-models")
    torch.manual_seed(0)
    for name in ("clap", "whisper", "ast", "wav2vec2"):
        SAVERS[name](folder / name)
    return folder


@pytest.fixture(scope="module")
def clip_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_video_models(tmp_path_factory.mktemp("clip-models"))


def hum(folder: Path, name: str, seed: int, seconds: float = 1.5) -> MediaFile:
    """A tone whose pitch is that of the seed's kind, and some noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    samples = 0.5 * np.sin(2 * np.pi * (220 << (seed % KINDS)) * time) + 0.05 * rng.normal(size=len(time))
    soundfile.write(folder / name, samples.astype(np.float32), RATE)
    return MediaFile(folder, name)


def check_family(encoder: Any, values: list[Any], family: str) -> None:
    """It starts as what it was, `pooled` is what `encode` gives, and a step changes what it should and no more."""
    plain = encoder.encode(values)
    torch.manual_seed(1)
    count = adapt(encoder, family, lora_rank=2, prompt_tokens=2)
    learning = trained_weights(encoder)
    assert count == sum(weight.numel() for weight in learning.values()) > 0
    with torch.no_grad():
        pooled = encoder.pooled(encoder.batch(values)).numpy()
    tolerance = 3e-2 * np.abs(plain).max()  # bfloat16 rounds by batch
    np.testing.assert_allclose(pooled, encoder.encode(values), atol=tolerance)
    if family != "prompt":
        np.testing.assert_allclose(pooled, plain, atol=tolerance)
    frozen = {
        name: weight.detach().clone() for name, weight in encoder.module.named_parameters() if name not in learning
    }
    before = {name: weight.detach().clone() for name, weight in learning.items()}
    optimizer = torch.optim.SGD(list(learning.values()), lr=10.0)
    for _ in range(2):
        vectors = encoder.pooled(encoder.batch(values))
        (vectors * torch.arange(vectors.numel()).reshape(vectors.shape)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert any(not torch.equal(weight, before[name]) for name, weight in learning.items())
    after = dict(encoder.module.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in frozen.items())
    assert not np.allclose(encoder.encode(values), pooled, atol=1e-6)


@pytest.mark.parametrize("family", ["lora", "ia3", "full"])
@pytest.mark.parametrize("name", ["clap", "whisper", "ast", "wav2vec2"])
def test_an_audio_model_learns(sound_models: Path, tmp_path: Path, name: str, family: str) -> None:
    encoder = AudioEncoder(str(sound_models / name), limits=SoundLimits())
    files = [hum(tmp_path, f"{seed}.wav", seed, seconds=0.6 + seed) for seed in range(3)]  # of one window and of more
    check_family(encoder, [encoder.read(file) for file in files], family)


@pytest.mark.parametrize("family", ["lora", "ia3", "prompt", "full"])
@pytest.mark.parametrize("name", ["videomae", "xclip", "clip"])
def test_a_video_model_learns(clip_models: Path, tmp_path: Path, name: str, family: str) -> None:
    encoder = video_encoder(EmbedConfig(video_model=str(clip_models / name)), progress=SILENT)
    files = [moving_clip(tmp_path, f"{seed}.mp4", seed=seed, num_frames=12) for seed in range(3)]
    check_family(encoder, [encoder.read(file) for file in files], family)


@pytest.mark.parametrize("family", ["lora", "ia3", "prompt", "full"])
@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_a_vision_model_learns(vision_models: Path, draw: Draw, tmp_path: Path, name: str, family: str) -> None:
    encoder: TrainableEncoder = VisionEncoder(str(vision_models / name), max_megapixels=1)
    files = [draw(tmp_path / f"{seed}.png", seed) for seed in range(4)]
    check_family(encoder, [encoder.read(MediaFile(tmp_path, file.name)) for file in files], family)


@pytest.fixture
def seen_and_heard(
    vision_models: Path, sound_models: Path, clip_models: Path, draw: Draw, tmp_path: Path
) -> Callable[..., Run]:
    """A run whose items have a picture, a sound and a clip each, but for one of each kind of file."""

    def make(**models: str) -> Run:
        rows = []
        for item in range(NUM_ITEMS):
            draw(tmp_path / f"{item}.png", item)
            hum(tmp_path, f"{item}.wav", item)
            moving_clip(tmp_path, f"{item}.mp4", seed=item % KINDS, num_frames=8)
            files = {"image": f"{item}.png", "audio": f"{item}.wav", "video": f"{item}.mp4"}
            if item < len(MEDIA):
                del files[MEDIA[item]]
            rows.append({"item_id": f"i{item}", "title": f"Item {item}", **files})
        (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        log = [f"u{user},i{(user + KINDS * step) % NUM_ITEMS}\n" for user in range(36) for step in range(5)]
        (tmp_path / "log.csv").write_text("user_id,item_id\n" + "".join(log))
        run = Run.create(tmp_path / "run")
        ingest(run, "tables", [tmp_path / "items.jsonl", tmp_path / "log.csv"], IngestConfig(min_interactions=1))
        kinds = {
            "image_model": str(vision_models / "clip"),
            "audio_model": str(sound_models / "clap"),
            "video_model": str(clip_models / "videomae"),
        }
        embed(run, EmbedConfig(text_model=None, behaviour_model=None, **(kinds | models)))
        return run

    return make


def vectors_of(run: Run, modality: str) -> Embeddings:
    return Embeddings.load(run, modality, catalog=Catalog.load(run))


def test_pictures_sounds_and_clips_are_aligned_with_their_encoders_and_new_items_follow(
    seen_and_heard: Callable[..., Run], draw: Draw, tmp_path: Path
) -> None:
    run = seen_and_heard()
    report = align(run, QUICK)
    assert set(report.facts["adapted"]) == set(MEDIA)
    for modality in MEDIA:
        facts = report.facts["adapted"][modality]
        assert 0 < facts["num_trained"] < facts["num_weights"]
        old, new = vectors_of(run, modality), vectors_of(run, f"adapted-{modality}")
        assert new.mask.tolist() == old.mask.tolist() == [item != MEDIA.index(modality) for item in range(NUM_ITEMS)]
        assert not np.allclose(old.vectors, new.vectors, atol=1e-5)
    codes = TokenizeConfig(method="residual-kmeans", levels=2, codebook_size=4, modalities=("aligned",))
    pipeline.tokenize(run, codes)
    before = {name: vectors_of(run, name) for name in ("aligned", *(f"adapted-{one}" for one in MEDIA))}

    # One that is i7 once more, one of which nothing but a broken sound and a broken clip are there.
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    new = [
        {"item_id": "like", "title": "Like", "image": "7.png", "audio": "7.wav", "video": "7.mp4"},
        {"item_id": "none", "title": "None", "audio": "broken.wav", "video": "broken.mp4"},
    ]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in new))
    report = add_items(run, tmp_path / "new.jsonl", when=WHEN)
    assert report.facts["unreadable"] == {"audio": 1, "video": 1}
    assert any("none (broken.wav): is not a sound" in word for word in report.words)
    assert [problem["item_id"] for problem in read_problems(run, "audio")] == ["none"]
    run.require("embed")  # its list of problems is vouched for
    for name, old in before.items():
        now = vectors_of(run, name)
        np.testing.assert_array_equal(now.vectors[:NUM_ITEMS], old.vectors)
        np.testing.assert_allclose(now.vectors[NUM_ITEMS], old.vectors[7], atol=2e-2)
        assert now.mask[NUM_ITEMS:].tolist() == [True, False]

    # Its sound is mended: the list has nothing to name any more, and that of the clips still has.
    hum(tmp_path, "whole.wav", 4)
    (tmp_path / "new.jsonl").write_text(json.dumps({"item_id": "none", "audio": "whole.wav"}) + "\n")
    update_items(run, tmp_path / "new.jsonl", when=WHEN)
    assert read_problems(run, "audio") == []
    assert [problem["file"] for problem in read_problems(run, "video")] == ["broken.mp4"]
    assert vectors_of(run, "adapted-audio").mask[-1]


def test_descriptors_stay_as_they_are_beside_an_encoder_that_learns(seen_and_heard: Callable[..., Run]) -> None:
    run = seen_and_heard(image_model="descriptors", audio_model="descriptors")
    report = align(run, QUICK)
    assert list(report.facts["adapted"]) == ["video"]
    assert any("audio stays as it was embedded: it has no model that lora could train." in one for one in report.words)
    with_nothing = EmbedConfig(text_model=None, behaviour_model=None, audio_model="descriptors")
    embed(run, with_nothing)
    with pytest.raises(ConfigError, match="finds no encoder that can learn"):
        align(run, QUICK)
