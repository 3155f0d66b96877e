"""Adaptation families on tiny real checkpoints: each trains what it claims and nothing else, and comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from genrec.config import AlignConfig, EmbedConfig
from genrec.data.catalog import Catalog
from genrec.encoders.adaptation import adapt, trained_weights
from genrec.encoders.alignment import align
from genrec.encoders.alignment_encoders import load_adapted_encoder
from genrec.encoders.alignment_heads import load_alignment
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.encoders.text import TextEncoder
from genrec.encoders.vision import VisionEncoder
from genrec.errors import ConfigError, DataError, ModelError, RunError, UnreadableInputError
from genrec.run import Run, StageReport

FAMILIES = ("lora", "ia3", "prompt", "full")
COLOURS, THINGS = ["red", "blue", "green", "black"], ["lamp", "chair", "table", "sofa", "shelf", "vase"]
WORDS = ["[PAD]", "[UNK]", *COLOURS, *THINGS, ":", ".", "genres"]
TEXTS = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
HIDDEN, LAYERS, INNER, RANK, TOKENS = 16, 2, 24, 2, 3
# By hand. LoRA: rank × (in + out) of q, k, v, o (16 + 16) and of both feed-forward layers (16 + 24), in each layer.
COUNTS = {
    "lora": LAYERS * RANK * (4 * 2 * HIDDEN + 2 * (HIDDEN + INNER)),
    "ia3": LAYERS * (2 * HIDDEN + INNER),
    "prompt": TOKENS * HIDDEN,
}


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: two BERT layers of width 16 with random weights, mean pooling."""
    folder = tmp_path_factory.mktemp("models")
    words = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=12
    )
    torch.manual_seed(0)
    shape = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": INNER}
    bert = BertModel(BertConfig(**shape, vocab_size=len(WORDS), max_position_embeddings=16))
    with torch.no_grad():  # as initialised, so small a model tells hardly any texts apart
        for name, weight in bert.named_parameters():
            if weight.ndim > 1 and "position" not in name:
                weight.normal_(std=0.3)
    bert.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(HIDDEN, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "tiny"))
    return folder / "tiny"


def make_run(folder: Path, text_model: Path, **more: object) -> Run:
    """24 items whose sight depends on the thing that their text names; users go from a thing to the same thing."""
    run = Run.create(folder)
    ids = [f"i{row}" for row in range(len(TEXTS))]
    pl.DataFrame({"item_id": ids, "title": TEXTS}).write_parquet(folder / "items.parquet")
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        thing = user % len(THINGS)
        for step, colour in enumerate(rng.permutation(len(COLOURS))):
            item = int(colour) * len(THINGS) + thing
            rows.append({"user_id": f"u{user}", "item_id": f"i{item}", "position": step, "split": "train"})
    pl.DataFrame(rows).write_parquet(folder / "splits.parquet")
    outputs = [folder / "items.parquet", folder / "splits.parquet"]
    run.record(StageReport("ingest", {}, []), config={}, seed=0, inputs=[], outputs=outputs, started=run.begin())
    sight = rng.normal(size=(len(THINGS), 8))[np.arange(len(TEXTS)) % len(THINGS)]
    np.save(folder.parent / "sight.npy", (sight + 0.05 * rng.normal(size=sight.shape)).astype(np.float32))
    embed(
        run,
        EmbedConfig(
            behaviour_model=None, text_model=str(text_model), precomputed={"sight": folder.parent / "sight.npy"}
        ),
    )
    return run


QUICK = AlignConfig(
    width=16,
    hidden_width=8,
    steps=20,
    batch_size=16,
    encoder_steps=8,
    encoder_batch_size=12,
    encoder_learning_rate=1e-2,
    lora_rank=RANK,
    prompt_tokens=TOKENS,
)


def plain_weights(encoder: TextEncoder) -> dict[str, Tensor]:
    """The base model's own weights under their original names, wherever a family has put them."""
    state = encoder.module.state_dict()
    names = {name: name.replace(".base_layer", "").removeprefix("peft.base_model.") for name in state}
    return {names[name]: weight.clone() for name, weight in state.items() if not name.endswith("position_ids")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_what_it_claims_and_leaves_the_base_as_it_was(sentence_model: Path, family: str):
    encoder = TextEncoder(str(sentence_model))
    base = plain_weights(encoder)
    count = adapt(encoder, family, lora_rank=RANK, prompt_tokens=TOKENS)
    total = sum(weight.numel() for weight in base.values())
    assert count == COUNTS.get(family, total)
    learning = trained_weights(encoder)
    before = {name: weight.detach().clone() for name, weight in learning.items()}
    optimizer = torch.optim.SGD(list(learning.values()), lr=1.0)
    for _ in range(2):  # LoRA's second matrix starts at zero: the first one moves from the second step on
        vectors = encoder.pooled(encoder.batch(TEXTS[:6]))
        (vectors * torch.arange(vectors.numel()).reshape(vectors.shape)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    idle = [name for name, weight in learning.items() if torch.equal(weight, before[name])]
    assert not [name for name in idle if "pooler" not in name and "token_type" not in name]
    after = plain_weights(encoder)
    changed = [name for name, weight in base.items() if not torch.equal(weight, after[name])]
    assert bool(changed) == (family == "full")


@pytest.mark.parametrize("family", ["none", *FAMILIES])
def test_pooled_vectors_are_those_that_encode_gives(sentence_model: Path, family: str):
    encoder = TextEncoder(str(sentence_model))
    plain = encoder.encode(TEXTS[:5])
    if family != "none":
        torch.manual_seed(1)
        adapt(encoder, family, lora_rank=RANK, prompt_tokens=TOKENS)
    with torch.no_grad():
        pooled = encoder.pooled(encoder.batch(TEXTS[:5])).numpy()
    np.testing.assert_allclose(pooled, encoder.encode(TEXTS[:5]), atol=1e-6)
    # Every family but the prompt starts as what the encoder was.
    assert np.allclose(pooled, plain, atol=2e-2) == (family != "prompt")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapted_encoder_is_saved_used_and_loaded_again(sentence_model: Path, tmp_path: Path, family: str):
    run = make_run(tmp_path / "run", sentence_model)
    report = align(run, QUICK.model_copy(update={"unfreeze": family}))
    facts = report.facts["adapted"]["text"]
    assert facts["num_trained"] == COUNTS.get(family, facts["num_weights"])
    assert any(f"{family} on text: {facts['num_trained']:,} of" in line for line in report.words)
    training = report.facts["training"]["encoders"]
    assert training["held_out_loss_after"] < training["held_out_loss_before"]
    catalog = Catalog.load(run)
    old, new = (Embeddings.load(run, name, catalog=catalog) for name in ("text", "adapted-text"))
    assert not np.allclose(old.vectors, new.vectors, atol=1e-3)
    encoder = load_adapted_encoder(run, "text")
    np.testing.assert_allclose(encoder.encode(TEXTS), new.vectors, atol=1e-2)  # bfloat16 rounds by batch
    assert encoder.revision == new.revision
    fused, mask = load_alignment(run).project({"text": new.vectors}, {"text": new.mask})
    text = Embeddings.load(run, "aligned-text", catalog=catalog)
    np.testing.assert_allclose(fused, text.vectors, atol=1e-6)
    assert mask.all()
    names = {Path(name).name for name in run.require("align").outputs}
    assert {"encoder-text.safetensors", "encoder-text.json", "adapted-text.npy", "aligned.npy"} <= names


def test_the_same_seed_adapts_to_the_same_files(sentence_model: Path, tmp_path: Path):
    config = QUICK.model_copy(update={"unfreeze": "lora"})
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run = make_run(tmp_path / name / "run", sentence_model)
        align(run, config)
        written.append(run.require("align").outputs)
    assert written[0] == written[1]


def test_without_an_encoder_that_learns_or_with_a_changed_one_it_says_so(sentence_model: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", sentence_model)
    align(run, QUICK)
    with pytest.raises(RunError, match="adapted no text encoder"):
        load_adapted_encoder(run, "text")
    align(run, QUICK.model_copy(update={"unfreeze": "ia3"}))
    description = run.path / "alignment" / "encoder-text.json"
    facts = json.loads(description.read_text())
    assert facts["base"] == "tiny"
    embed(run, EmbedConfig(behaviour_model=None, text_model=None, precomputed={"sight": tmp_path / "sight.npy"}))
    with pytest.raises(ConfigError, match="finds no encoder that can learn"):
        align(run, QUICK.model_copy(update={"unfreeze": "lora"}))


def test_what_was_embedded_and_is_gone_is_named_before_anything_is_learned(
    sentence_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = make_run(tmp_path / "run", sentence_model)
    whole = TextEncoder.content

    def content(self: TextEncoder, value: str) -> bytes:
        if value == TEXTS[3]:  # as a picture's file that has been deleted since
            raise UnreadableInputError("does not exist")
        return whole(self, value)

    monkeypatch.setattr(TextEncoder, "content", content)
    with pytest.raises(DataError, match=rf"text: 1 of the items .* i3 \({TEXTS[3]}\): does not exist"):
        align(run, QUICK.model_copy(update={"unfreeze": "lora"}))
    assert "align" not in run.stages


def test_a_prompt_that_leaves_no_room_for_the_text_is_refused(sentence_model: Path):
    encoder = TextEncoder(str(sentence_model))
    adapt(encoder, "prompt", lora_rank=1, prompt_tokens=14)
    with pytest.raises(ModelError, match=r"3 tokens of text and 14 of the prompt exceed the model's 16"):
        encoder.pooled(encoder.batch(["red lamp ."]))


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_image_encoders_learn_too(
    vision_models: Path, draw: Callable[..., Path], tmp_path: Path, name: str, family: str
):
    from PIL import Image

    encoder = VisionEncoder(str(vision_models / name), max_megapixels=1.0)
    pictures = [encoder.prepare(Image.open(draw(tmp_path / f"{seed}.png", seed))) for seed in range(3)]
    plain = encoder.encode(pictures)
    torch.manual_seed(0)
    count = adapt(encoder, family, lora_rank=RANK, prompt_tokens=TOKENS)
    assert 0 < count <= sum(weight.numel() for weight in encoder.module.parameters())
    pooled = encoder.pooled(encoder.batch(pictures))
    np.testing.assert_allclose(pooled.detach().numpy(), encoder.encode(pictures), atol=1e-5)
    assert np.allclose(pooled.detach().numpy(), plain, atol=2e-2) or family == "prompt"
    (pooled * torch.arange(pooled.numel()).reshape(pooled.shape)).sum().backward()
    learning = trained_weights(encoder)
    moved = [weight for weight in learning.values() if weight.grad is not None and weight.grad.any()]
    assert len(moved) > len(learning) / 3  # LoRA's first matrices, idle poolers and masks of training do not
