"""Vision models in real, tiny checkpoints, and images on their way through the stage `embed`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModel, CLIPImageProcessorPil, CLIPProcessor, PreTrainedTokenizerFast

from genrec.config import EmbedConfig
from genrec.data.catalog import Catalog
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.encoders.image_descriptors import ImageDescriptors
from genrec.encoders.media import MediaFile
from genrec.encoders.vision import SentenceImageEncoder, VisionEncoder, load_vision_encoder
from genrec.errors import DataError, ModelError
from genrec.run import Run

WIDTHS = {"clip": 12, "siglip": 16, "siglip2": 16, "dinov2": 16, "vit": 16}
Draw = Callable[..., Path]
MediaRun = Callable[[Sequence[str | None]], Run]
DESCRIPTORS = EmbedConfig(behaviour_model=None, text_model=None, image_model="descriptors", batch_size=4)


def pictures(folder: Path, draw: Draw, number: int) -> list[MediaFile]:
    """Pictures of different proportions."""
    made = [draw(folder / f"{seed}.png", seed, size=(30 + 9 * seed, 40)) for seed in range(number)]
    return [MediaFile(folder.resolve(), path.name) for path in made]


def encode(encoder: Any, files: Sequence[MediaFile]) -> np.ndarray:
    return encoder.encode([encoder.read(file) for file in files])


@pytest.mark.parametrize("name", list(WIDTHS))
def test_a_batch_of_images_encodes_like_each_image_alone(
    name: str, vision_models: Path, tmp_path: Path, draw: Draw
) -> None:
    encoder = load_vision_encoder(str(vision_models / name), max_megapixels=1)
    assert isinstance(encoder, VisionEncoder)
    assert (encoder.width, encoder.model) == (WIDTHS[name], name)
    files = pictures(tmp_path, draw, 5)
    together = encode(encoder, files)
    alone = np.concatenate([encode(encoder, [file]) for file in files])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    distances = np.linalg.norm(together[:, None] - alone[None, :], axis=2)
    same, different = distances.diagonal(), distances[~np.eye(5, dtype=bool)]
    # bfloat16 rounds by batch where the CPU has it; two pictures are much further apart.
    assert same.max() < 2e-2
    assert different.min() > 2 * same.max()


def test_vectors_are_what_the_model_itself_gives(vision_models: Path, tmp_path: Path, draw: Draw) -> None:
    (file,) = pictures(tmp_path, draw, 1)
    pixels = CLIPImageProcessorPil.from_pretrained(vision_models / "clip")(
        images=[Image.open(file.locate())], return_tensors="pt"
    )["pixel_values"]
    model = AutoModel.from_pretrained(vision_models / "clip").eval()
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0]
        made = encode(load_vision_encoder(str(vision_models / "clip"), max_megapixels=1), [file])[0]
        assert torch.cosine_similarity(expected, torch.from_numpy(made), dim=0) > 0.999
        states = AutoModel.from_pretrained(vision_models / "vit").eval()
        encoder = load_vision_encoder(str(vision_models / "vit"), max_megapixels=1)
        mean = states(**encoder.read(file)).last_hidden_state.mean(dim=1)[0]
    # A pooler with random weights would give another vector each time that the model is loaded.
    assert torch.cosine_similarity(mean, torch.from_numpy(encode(encoder, [file])[0]), dim=0) > 0.999


def test_a_multimodal_sentence_transformers_folder_is_loaded_as_such(
    vision_models: Path, tmp_path: Path, draw: Draw
) -> None:
    from sentence_transformers import SentenceTransformer

    words = Tokenizer(WordLevel({"<unk>": 0, "<pad>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", eos_token="<pad>")
    folder = shutil.copytree(vision_models / "clip", tmp_path / "whole")
    CLIPProcessor(CLIPImageProcessorPil.from_pretrained(folder), tokenizer).save_pretrained(folder)
    SentenceTransformer(str(folder), device="cpu", processor_kwargs={"backend": "pil"}).save(str(tmp_path / "sentence"))
    encoder = load_vision_encoder(str(tmp_path / "sentence"), max_megapixels=1)
    assert isinstance(encoder, SentenceImageEncoder)
    files = pictures(tmp_path / "media", draw, 3)
    made, plain = encode(encoder, files), encode(VisionEncoder(str(vision_models / "clip"), max_megapixels=1), files)
    np.testing.assert_allclose(made / np.linalg.norm(made, axis=1, keepdims=True), plain, atol=3e-2)
    np.testing.assert_allclose(made, np.concatenate([encode(encoder, [file]) for file in files]), atol=3e-2, rtol=3e-2)


def test_a_model_folder_is_known_by_its_contents(vision_models: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(vision_models / "siglip", tmp_path / "moved")
    first, second = (load_vision_encoder(str(path), max_megapixels=1) for path in (vision_models / "siglip", moved))
    assert first.fingerprint == second.fingerprint
    settings = json.loads((moved / "preprocessor_config.json").read_text())
    (moved / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.1, 0.1]}))
    assert load_vision_encoder(str(moved), max_megapixels=1).fingerprint != first.fingerprint


def test_models_that_cannot_be_used_say_why(vision_models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be loaded.*use `descriptors`"):
        load_vision_encoder("no-such-organisation/no-such-model", max_megapixels=1)
    pickled = shutil.copytree(vision_models / "clip", tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_vision_encoder(str(pickled), max_megapixels=1)
    half = shutil.copytree(vision_models / "dinov2", tmp_path / "half")
    weights = load_file(half / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights, layernorm\.weight first"):
        load_vision_encoder(str(half), max_megapixels=1)


def test_broken_images_are_all_named_and_cost_the_others_nothing(
    vision_models: Path, tmp_path: Path, image_run: MediaRun, draw: Draw
) -> None:
    for seed in range(30):
        draw(tmp_path / "media" / f"{seed}.png", seed)
    names: list[str | None] = [None if row % 4 == 0 else f"{row % 30}.png" for row in range(120)]
    broken = {row: f"broken{row}.jpg" for row in range(1, 101, 2)}
    assert len(broken) == 50
    for row, name in broken.items():
        names[row] = name
        (tmp_path / "media" / name).write_bytes(b"\xff\xd8\xff\xe0 cut off" + bytes(row))
    run = image_run(names)
    report = embed(
        run, EmbedConfig(behaviour_model=None, text_model=None, image_model=str(vision_models / "clip"), batch_size=7)
    )
    facts = report.facts["modalities"]["image"]
    assert (facts["missing"], facts["unreadable"]) == (30 + 50, 50)
    problems = [json.loads(line) for line in (run.path / "embeddings" / "image.problems.jsonl").open()]
    assert [(problem["item_id"], problem["file"]) for problem in problems] == [
        (f"i{row}", name) for row, name in broken.items()
    ]
    assert all(problem["reason"] for problem in problems)
    (start,) = [row for row, line in enumerate(report.words) if "50 inputs cannot be read" in line]
    assert report.words[start + 1].startswith("  i1 (broken1.jpg): ")
    assert report.words[start + 21 :] == ["  … and 30 more."]
    made = Embeddings.load(run, "image", catalog=Catalog.load(run))
    expected = [row not in broken and name is not None for row, name in enumerate(names)]
    assert made.mask.tolist() == expected
    assert (np.linalg.norm(made.vectors, axis=1) > 0.9).tolist() == expected
    assert "embeddings/image.problems.jsonl" in run.require("embed").outputs


def test_only_a_file_whose_bytes_have_changed_is_encoded_again(tmp_path: Path, image_run: MediaRun, draw: Draw) -> None:
    media = tmp_path / "media"
    names = [draw(media / f"{seed}.png", seed).name for seed in range(6)]
    (media / "5.png").write_bytes(b"broken")
    run = image_run(names)

    def encoded() -> int:
        return embed(run, DESCRIPTORS).facts["modalities"]["image"]["encoded_now"]

    assert encoded() == 5
    first = Embeddings.load(run, "image", catalog=Catalog.load(run)).vectors
    assert encoded() == 0
    draw(media / "2.png", 77)
    assert encoded() == 1
    draw(media / "5.png", 5)
    assert encoded() == 1
    second = Embeddings.load(run, "image", catalog=Catalog.load(run))
    assert second.mask.all()
    assert (first != second.vectors).any(axis=1).tolist() == [False, False, True, False, False, True]
    # Mended: nothing speaks of it any longer.
    assert not (run.path / "embeddings" / "image.problems.jsonl").exists()


def test_files_are_found_from_any_working_directory_and_after_a_move(
    tmp_path: Path, image_run: MediaRun, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = draw(tmp_path / "media" / "sub" / "0.png", 0).relative_to(tmp_path / "media")
    run = image_run([str(name)])
    monkeypatch.chdir("/")
    embed(run, DESCRIPTORS)
    (tmp_path / "media").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"media, is not there.*--media-root"):
        embed(run, DESCRIPTORS)
    report = embed(run, DESCRIPTORS.model_copy(update={"media_root": tmp_path / "moved"}))
    assert report.facts["modalities"]["image"]["missing"] == 0


def test_no_image_at_all_stops_the_stage(tmp_path: Path, image_run: MediaRun) -> None:
    (tmp_path / "media").mkdir()
    with pytest.raises(DataError, match="No item of the catalogue has a path in the column 'image'"):
        embed(image_run([None, None]), DESCRIPTORS)
    run = image_run(["gone.png", None])
    with pytest.raises(DataError, match=r"Not one image can be read:\n  i0 \(gone.png\): does not exist"):
        embed(run, DESCRIPTORS)
    assert "embed" not in run.stages


@pytest.mark.benchmark_data
@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_real_posters_go_through_the_stage_like_each_alone(
    name: str, vision_models: Path, tmp_path: Path, image_run: MediaRun, data_folder: Path
) -> None:
    posters = sorted((data_folder / "movielens_small" / "posters").glob("*.jpg"))[::100]
    if not posters:
        pytest.skip(f"no posters in {data_folder}")
    (tmp_path / "media").mkdir()
    for poster in posters:
        shutil.copy(poster, tmp_path / "media")
    run = image_run([*(poster.name for poster in posters), None])
    model = str(vision_models / name)
    embed(run, EmbedConfig(behaviour_model=None, text_model=None, image_model=model, batch_size=8))
    made = Embeddings.load(run, "image", catalog=Catalog.load(run))
    assert made.mask.tolist() == [True] * len(posters) + [False]
    encoder = load_vision_encoder(model, max_megapixels=1)
    files = [MediaFile((tmp_path / "media").resolve(), poster.name) for poster in posters]
    alone = np.concatenate([encode(encoder, [file]) for file in files])
    # bfloat16 rounds by batch where the CPU has it.
    assert np.linalg.norm(made.vectors[:-1] - alone, axis=1).max() < 3e-2
    assert np.linalg.norm(alone[:, None] - alone[None], axis=2).max() > 0.3


# The child tells of each batch and goes on when it is told to.
CHILD = """
import sys
from contextlib import contextmanager
from genrec.config import EmbedConfig
from genrec.encoders.embed import embed
from genrec.run import Run


class Stepping:
    def say(self, line): ...

    @contextmanager
    def track(self, label, total, unit):
        yield self

    def advance(self, amount=1, note=""):
        print("batch", flush=True)
        sys.stdin.readline()


config = EmbedConfig(behaviour_model=None, text_model=None, image_model="descriptors", batch_size=4)
embed(Run.open(sys.argv[1]), config, progress=Stepping())
"""


def test_a_killed_run_loses_at_most_one_batch(tmp_path: Path, image_run: MediaRun, draw: Draw) -> None:
    names = [draw(tmp_path / "media" / f"{seed}.png", seed).name for seed in range(20)]
    run = image_run(names)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(2):
            assert child.stdout.readline() == "batch\n"
            child.stdin.write("\n")
            child.stdin.flush()
        child.kill()  # in the third batch, or when it is just done
        child.wait()
    assert child.returncode == -9
    assert "embed" not in run.stages
    kept = 20 - embed(run, DESCRIPTORS).facts["modalities"]["image"]["encoded_now"]
    assert kept in range(8, 13)
    made = Embeddings.load(run, "image", catalog=Catalog.load(run))
    encoder = ImageDescriptors(max_megapixels=1)
    expected = encode(encoder, [MediaFile((tmp_path / "media").resolve(), name) for name in names])
    np.testing.assert_array_equal(made.vectors, expected)
