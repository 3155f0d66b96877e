"""Clips to vectors: video models as tiny real checkpoints loaded as a hub model is, image encoders frame by frame."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    VideoMAEConfig,
    VideoMAEImageProcessorPil,
    VideoMAEModel,
    XCLIPConfig,
    XCLIPModel,
    XCLIPTextConfig,
    XCLIPVisionConfig,
)

from genrec.config import EmbedConfig
from genrec.encoders.clips import ClipLimits, read_frames
from genrec.encoders.image_descriptors import ImageDescriptors
from genrec.encoders.media import MediaFile
from genrec.encoders.video import video_encoder
from genrec.encoders.video_models import FrameEncoder, VideoEncoder
from genrec.encoders.video_motion import MOTION_WIDTH, motion
from genrec.errors import ModelError
from genrec.progress import SILENT

LIMITS = ClipLimits()
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PIXELS = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}


@pytest.fixture(scope="session")
def video_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VideoMAE of four frames, an X-CLIP of eight and a CLIP image model, of a few thousand random weights each."""
    return save_video_models(tmp_path_factory.mktemp("video-models"))


def save_video_models(folder: Path) -> Path:
    torch.manual_seed(0)
    shape = {"image_size": 16, "patch_size": 8}
    VideoMAEModel(VideoMAEConfig(**SMALL, **shape, num_frames=4)).save_pretrained(folder / "videomae")
    VideoMAEImageProcessorPil(**PIXELS).save_pretrained(folder / "videomae")
    vision = XCLIPVisionConfig(
        **SMALL, **shape, num_frames=8, mit_hidden_size=12, mit_intermediate_size=24, mit_num_attention_heads=2
    )
    text = XCLIPTextConfig(**SMALL, vocab_size=40, max_position_embeddings=8)
    config = XCLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12, prompt_num_attention_heads=2
    )
    XCLIPModel(config).save_pretrained(folder / "xclip")
    VideoMAEImageProcessorPil(**PIXELS).save_pretrained(folder / "xclip")  # as the published X-CLIP models
    CLIPVisionModel(CLIPVisionConfig(**SMALL, **shape)).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(**PIXELS).save_pretrained(folder / "clip")
    return folder


def moving_clip(folder: Path, name: str, *, seed: int, step: int = 2, num_frames: int = 24) -> MediaFile:
    """A coloured square that moves `step` pixels per frame over noise that stands still."""
    rng = np.random.default_rng(seed)
    ground, colour = rng.integers(0, 120, (48, 64, 3), dtype=np.uint8), rng.integers(120, 256, 3, dtype=np.uint8)
    with av.open(str(folder / name), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            pixels = ground.copy()
            left = step * number % 48
            pixels[16:32, left : left + 16] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return MediaFile(folder, name)


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Equal up to what bfloat16 rounds differently in another batch, where the CPU has it."""
    np.testing.assert_allclose(found, expected, atol=3e-2 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["videomae", "xclip", "clip", "descriptors"])
def test_a_batch_of_clips_encodes_like_each_alone(video_models: Path, tmp_path: Path, name: str) -> None:
    model = name if name == "descriptors" else str(video_models / name)
    encoder = video_encoder(EmbedConfig(video_model=model), progress=SILENT)
    assert isinstance(encoder, VideoEncoder) == (name in {"videomae", "xclip"})
    files = [moving_clip(tmp_path, f"{seed}.mp4", seed=seed) for seed in range(5)]
    batch = encoder.encode([encoder.read(file) for file in files])
    assert batch.shape == (5, encoder.width)
    assert batch.dtype == np.float32
    for vector, file in zip(batch, files, strict=True):
        assert_close(vector, encoder.encode([encoder.read(file)])[0])
    assert len(np.unique(batch, axis=0)) == 5


@pytest.mark.benchmark_data
@pytest.mark.parametrize("name", ["videomae", "xclip", "clip"])
def test_real_clips_are_told_apart_by_every_kind_of_model(video_models: Path, data_folder: Path, name: str) -> None:
    encoder = video_encoder(EmbedConfig(video_model=str(video_models / name)), progress=SILENT)
    folder = data_folder / "video_clips"
    clips = [file.name for file in sorted(folder.iterdir()) if file.suffix in {".mp4", ".avi"}]
    made = encoder.encode([encoder.read(MediaFile(folder.resolve(), clip)) for clip in clips])
    assert made.shape == (5, encoder.width)
    assert np.isfinite(made).all()
    assert len(np.unique(made.round(3), axis=0)) == 5


def by_hand(folder: Path, file: MediaFile, *, count: int) -> torch.Tensor:
    """Pixels (1, F, 3, 16, 16) of a clip as its processor makes them."""
    frames = read_frames(file.locate(), count=count, limits=LIMITS)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels: torch.Tensor = processor(images=[list(frames)], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, count, 3, 16, 16)
    return pixels


def test_the_vector_of_a_video_model_is_the_one_computed_by_hand(video_models: Path, tmp_path: Path) -> None:
    file = moving_clip(tmp_path, "clip.mp4", seed=0)
    with torch.no_grad():
        mae = VideoMAEModel.from_pretrained(video_models / "videomae")
        states = mae(by_hand(video_models / "videomae", file, count=4)).last_hidden_state
        clip = XCLIPModel.from_pretrained(video_models / "xclip")
        features = clip.get_video_features(by_hand(video_models / "xclip", file, count=8)).pooler_output
    for name, count, expected in (("videomae", 4, states[0].mean(dim=0)), ("xclip", 8, features[0])):
        encoder = VideoEncoder(str(video_models / name), num_frames=count, limits=LIMITS)
        assert_close(encoder.encode([encoder.read(file)])[0], expected.numpy())


def test_frame_by_frame_the_vector_is_the_mean_of_the_frames_then_the_motion(tmp_path: Path) -> None:
    pictures = ImageDescriptors(max_megapixels=1)
    encoder = FrameEncoder(pictures, with_motion=True, limits=LIMITS)
    file = moving_clip(tmp_path, "clip.mp4", seed=1)
    frames = read_frames(file.locate(), count=8, limits=LIMITS)
    expected = pictures.encode([pictures.prepare(Image.fromarray(frame)) for frame in frames]).mean(axis=0)
    vector = encoder.encode([encoder.read(file)])[0]
    np.testing.assert_allclose(vector[: pictures.width], expected, atol=1e-6)
    np.testing.assert_array_equal(vector[pictures.width :], motion(frames))
    assert FrameEncoder(pictures, with_motion=False, limits=LIMITS).width == pictures.width


def test_motion_is_zero_where_nothing_moves_and_grows_with_what_does(tmp_path: Path) -> None:
    still, moving = (
        motion(read_frames(moving_clip(tmp_path, f"{step}.mp4", seed=2, step=step).locate(), count=8, limits=LIMITS))
        for step in (0, 2)
    )
    assert still.shape == (MOTION_WIDTH,) == (20,)
    assert np.abs(still).max() < 0.02
    assert (moving[:4] > 2 * np.abs(still).max()).all()
    rows = moving[4:].reshape(4, 4).sum(axis=1)
    assert rows[1:3].min() > 2 * rows[[0, 3]].max()  # the square moves in the middle
    frames = [np.full((32, 32, 3), 255 * (number % 2), dtype=np.uint8) for number in range(5)]
    scale = 0.2 * np.sqrt(20)
    np.testing.assert_allclose(motion(frames) * scale, [1, 0, 1, 1] + [1] * 16, atol=1e-6)


def test_a_video_model_without_its_processor_is_refused(video_models: Path, tmp_path: Path) -> None:
    VideoMAEModel.from_pretrained(video_models / "videomae").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"image processor of the video encoder.*cannot be loaded.*`descriptors`"):
        video_encoder(EmbedConfig(video_model=str(tmp_path)), progress=SILENT)
    with pytest.raises(ModelError, match="'no-such/model' cannot be loaded"):
        video_encoder(EmbedConfig(video_model="no-such/model"), progress=SILENT)
