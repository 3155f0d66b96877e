"""Changed items of runs whose texts come from a template, and of runs whose vectors were aligned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from genrec import pipeline
from genrec.catalogue_changes import add_items, update_items
from genrec.config import AlignConfig, EmbedConfig, IngestConfig, TokenizeConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.encoders.alignment import align
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.errors import ConfigError
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds
from genrec.tokenizers.stage import encode_items

WHEN = "2026-01-02T03:04:05+00:00"
COLOURS, THINGS = ["red", "blue", "green", "black"], ["lamp", "chair", "table", "sofa", "shelf", "vase"]
TITLES = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
CODES = TokenizeConfig(method="residual-kmeans", levels=2, codebook_size=6, item_codes=0, modalities=("aligned",))
QUICK = AlignConfig(width=8, hidden_width=8, steps=6, batch_size=12, encoder_steps=3, encoder_batch_size=8, lora_rank=2)
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: one BERT layer of width 16 with random weights, mean pooling."""
    folder = tmp_path_factory.mktemp("models")
    known = ["[PAD]", "[UNK]", *COLOURS, *THINGS]
    words = Tokenizer(models.WordLevel({word: row for row, word in enumerate(known)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    bert = BertModel(BertConfig(**shape, vocab_size=len(known), max_position_embeddings=16))
    with torch.no_grad():  # as initialised, so small a model tells hardly any texts apart
        for name, weight in bert.named_parameters():
            if weight.ndim > 1 and "position" not in name:
                weight.normal_(std=0.3)
    bert.save_pretrained(folder / "bert")
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=12
    ).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(16, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "tiny"))
    return folder / "tiny"


@pytest.fixture
def make(sentence_model: Path, tmp_path: Path, write: Write) -> Callable[..., Run]:
    """24 items with titles for the model, a made-up modality `sight` from a file, and users who walk among them."""

    def make(**settings: Any) -> Run:
        write(
            *({"item_id": f"i{n}", "title": title, "maker": COLOURS[n % 4]} for n, title in enumerate(TITLES)),
            name="items",
        )
        log = [f"u{user},i{(5 * user + step) % 24}\n" for user in range(30) for step in range(6)]
        (tmp_path / "log.csv").write_text("user_id,item_id\n" + "".join(log))
        np.save(tmp_path / "sight.npy", np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32))
        run = Run.create(tmp_path / "run")
        ingest(run, "tables", [tmp_path / "items.jsonl", tmp_path / "log.csv"], IngestConfig(min_interactions=1))
        sight = {"sight": tmp_path / "sight.npy"}
        embed(run, EmbedConfig(text_model=str(sentence_model), behaviour_model=None, precomputed=sight, **settings))
        return run

    return make


def load(run: Run, modality: str) -> Embeddings:
    return Embeddings.load(run, modality, catalog=Catalog.load(run))


def test_a_column_that_only_the_template_reads_changes_the_vector(make: Callable[..., Run], write: Write) -> None:
    run = make(text_template="{{ title }} {{ maker }}")
    pipeline.tokenize(run, CODES.model_copy(update={"modalities": ("text",)}))
    before = load(run, "text").vectors
    changed = write({"item_id": "i3", "maker": "blue"}, {"item_id": "i5", "maker": COLOURS[5 % 4]})
    report = update_items(run, changed, when=WHEN)
    after = load(run, "text").vectors
    assert np.flatnonzero((after != before).any(axis=1)).tolist() == [3]
    assert report.facts["num_encoded"] == 1
    embed(run, EmbedConfig.model_validate(run.require("embed").config))
    np.testing.assert_array_equal(load(run, "text").vectors, after)


@pytest.mark.parametrize("unfreeze", ["none", "lora"])
def test_new_and_changed_items_are_aligned_like_those_that_have_the_same_vectors(
    make: Callable[..., Run], write: Write, tmp_path: Path, unfreeze: str
) -> None:
    run = make()
    align(run, QUICK.model_copy(update={"unfreeze": unfreeze}))
    pipeline.tokenize(run, CODES)
    names = ["aligned", "aligned-sight", "aligned-text"] + ["adapted-text"] * (unfreeze != "none")
    old = {name: load(run, name) for name in names}
    sight = np.load(tmp_path / "sight.npy")
    # One like i5 in all that it is, one with its title alone, one without anything.
    rows = [{"item_id": "like", "title": TITLES[5]}, {"item_id": "half", "title": TITLES[5]}]
    seen = write({"item_id": "like", "vector": sight[5].tolist()}, name="seen")
    report = add_items(run, write(*rows), when=WHEN, precomputed={"sight": seen})
    assert report.facts["missing"] == {name: int("sight" in name) for name in sorted([*names, "sight", "text"])}
    for name, before in old.items():
        after = load(run, name)
        np.testing.assert_array_equal(after.vectors[:24], before.vectors)
        np.testing.assert_allclose(after.vectors[24], before.vectors[5], atol=1e-6)
        assert after.mask.tolist() == [True] * 25 + ["sight" not in name]
    # An item with one modality is aligned to that modality's projection.
    np.testing.assert_allclose(load(run, "aligned").vectors[25], old["aligned-text"].vectors[5], atol=1e-6)
    update_items(run, write({"item_id": "i7", "title": TITLES[9]}), when=WHEN)
    for name, before in old.items():
        vectors = load(run, name).vectors
        np.testing.assert_array_equal(np.delete(vectors[:24], 7, axis=0), np.delete(before.vectors, 7, axis=0))
        assert np.allclose(vectors[7], before.vectors[7], atol=1e-6) == ("sight" in name)
    np.testing.assert_allclose(load(run, "aligned-text").vectors[7], old["aligned-text"].vectors[9], atol=1e-6)
    run.require("align")


def test_codes_of_new_items_follow_from_their_aligned_vectors_and_no_file_gives_those(
    make: Callable[..., Run], write: Write
) -> None:
    run = make()
    align(run, QUICK)
    pipeline.tokenize(run, CODES.model_copy(update={"collisions": "shared"}))
    rows = write(*({"item_id": f"n{n}", "title": TITLES[n]} for n in (0, 8, 15)))
    vectors = write({"item_id": "n0", "vector": [1.0] * 8}, name="vectors")
    with pytest.raises(ConfigError, match=r"no vectors of modality aligned that a file.*sight, text"):
        add_items(run, rows, when=WHEN, precomputed={"aligned": vectors})
    add_items(run, rows, when=WHEN)
    catalog, aligned = Catalog.load(run), load(run, "aligned")
    expected = encode_items(run, {"aligned": aligned.vectors[24:]}, {"aligned": aligned.mask[24:]})
    assert aligned.mask.all()
    np.testing.assert_array_equal(SemanticIds.load(run, catalog=catalog).codes[24:], expected)
    assert len(np.unique(expected, axis=0)) > 1
