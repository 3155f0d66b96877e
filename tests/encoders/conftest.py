"""Tiny real checkpoints of vision models, pictures drawn on the spot, and runs whose items have files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from genrec.run import Run, StageReport

VISION_MODELS = ("clip", "siglip", "siglip2", "dinov2", "vit")
_LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_VISION = {**_LAYERS, "intermediate_size": 32, "image_size": 32, "patch_size": 8}
_TEXT = {
    **_LAYERS,
    "intermediate_size": 32,
    "vocab_size": 64,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def _vision_models() -> dict[str, tuple[PreTrainedModel, object]]:
    """Models and their image processors. The ViT is a classifier: its folder has no weights of a pooler."""
    square, edge = {"height": 32, "width": 32}, {"shortest_edge": 36}
    return {
        "clip": (
            CLIPModel(CLIPConfig(vision_config=_VISION, text_config=_TEXT, projection_dim=12)),
            CLIPImageProcessorPil(size=edge, crop_size=square),
        ),
        "siglip": (
            SiglipModel(SiglipConfig(vision_config=_VISION, text_config=_TEXT)),
            SiglipImageProcessorPil(size=square),
        ),
        "siglip2": (
            Siglip2Model(Siglip2Config(vision_config={**_VISION, "num_patches": 16}, text_config=_TEXT)),
            Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16),
        ),
        "dinov2": (
            Dinov2Model(Dinov2Config(**_LAYERS, mlp_ratio=2, image_size=32, patch_size=8)),
            BitImageProcessorPil(size=edge, crop_size=square),
        ),
        "vit": (ViTForImageClassification(ViTConfig(**_VISION)), ViTImageProcessorPil(size=square)),
    }


@pytest.fixture(scope="session")
def vision_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model folder per name of VISION_MODELS: a few thousand random weights each."""
    folder = tmp_path_factory.mktemp("vision")
    torch.manual_seed(0)
    made = _vision_models()
    assert tuple(made) == VISION_MODELS
    for name, (model, processor) in made.items():
        with torch.no_grad():  # as they are initialised, small models answer almost the same to every picture
            for parameter in model.parameters():
                parameter.normal_(std=0.8)
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)  # type: ignore[attr-defined]
    return folder


def _draw(path: Path, seed: int, size: tuple[int, int] = (40, 56)) -> Path:
    """A picture of eight coloured rectangles and some noise, the same for the same seed."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), rng.integers(0, 256, 3))
    for _ in range(8):
        top, left = rng.integers(0, size[1] - 4), rng.integers(0, size[0] - 4)
        pixels[top : top + rng.integers(4, 30), left : left + rng.integers(4, 30)] = rng.integers(0, 256, 3)
    noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy).save(path)
    return path


@pytest.fixture(scope="session")
def draw() -> Callable[..., Path]:
    """`draw(path, seed)` makes a picture and returns its path."""
    return _draw


MediaRun = Callable[[Sequence[str | None]], Run]


@pytest.fixture
def image_run(tmp_path: Path) -> MediaRun:
    """`image_run(["a.png", None])`: a run of two items with these images, relative to `tmp_path / "media"`."""

    def make(names: Sequence[str | None]) -> Run:
        run = Run.create(tmp_path / "run")
        item_ids = [f"i{row}" for row in range(len(names))]
        items = run.path / "items.parquet"
        pl.DataFrame({"item_id": item_ids, "title": item_ids, "image": names}).write_parquet(items)
        ingested = StageReport("ingest", {"media_root": str((tmp_path / "media").resolve())}, [])
        run.record(ingested, config={}, seed=0, inputs=[], outputs=[items], started=run.begin())
        return run

    return make
