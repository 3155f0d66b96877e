"""The health report against counts by hand, and the stage `tokenize` on a small run."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from genrec.config import TokenizeConfig
from genrec.data.catalog import Catalog
from genrec.data.sequences import Sequences
from genrec.data.splits import training_sequences
from genrec.encoders.base import Embeddings
from genrec.errors import ConfigError, DataError, RunError
from genrec.run import Run, StageReport
from genrec.tokenizers.base import Makeup
from genrec.tokenizers.codes import SemanticIds
from genrec.tokenizers.health import Health, level_health, prefix_lift, relative_error
from genrec.tokenizers.health_plot import plot_health
from genrec.tokenizers.rqvae import RQVAE
from genrec.tokenizers.rqvae_training import RQVAEOptions
from genrec.tokenizers.stage import ItemVectors, encode_items, load_tokenizer, tokenize, unseen_steps

NUM_ITEMS = 60


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Items in six groups with vectors (the last item has none); users stay inside their group."""
    made = Run.create(tmp_path / "run")
    ids = [f"i{row}" for row in range(NUM_ITEMS)]
    pl.DataFrame({"item_id": ids, "title": ids}).write_parquet(made.path / "items.parquet")
    rows = [
        {"user_id": f"u{group}-{user}", "item_id": f"i{group + 6 * step}", "position": step, "split": "train"}
        for group in range(6)
        for user in range(3)
        for step in range(user, user + 5)
    ]
    pl.DataFrame(rows).write_parquet(made.path / "splits.parquet")
    outputs = [made.path / "items.parquet", made.path / "splits.parquet"]
    ingested = StageReport("ingest", {}, [])
    made.record(ingested, config={}, seed=0, inputs=[], outputs=outputs, started=made.begin())
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 8))[np.arange(NUM_ITEMS) % 6] * 4 + rng.normal(size=(NUM_ITEMS, 8)) * 0.3
    vectors[12] = vectors[18] = vectors[6]  # three equal items
    mask = np.arange(NUM_ITEMS) < NUM_ITEMS - 1
    vectors[-1] = 0.0
    catalog = Catalog.load(made)
    written = Embeddings("text", vectors.astype(np.float32), mask, "m", "r", catalog.order_checksum).save(made)
    # Image: a map of the group, for two items of three; it is not among the modalities that `embed` reports.
    image = rng.normal(size=(6, 5))[np.arange(NUM_ITEMS) % 6] + rng.normal(size=(NUM_ITEMS, 5)) * 0.1
    seen = np.arange(NUM_ITEMS) % 3 > 0
    image[~seen] = 0.0
    written += Embeddings("image", image.astype(np.float32), seen, "m", "r", catalog.order_checksum).save(made)
    embedded = StageReport("embed", {"modalities": {"text": {}}}, [])
    made.record(embedded, config={}, seed=0, inputs=[], outputs=written, started=made.begin())
    return made


def record(run: Run, made: Embeddings) -> None:
    """Save vectors and let a stage of their own vouch for them."""
    report = StageReport(f"embed:{made.modality}", {}, [])
    run.record(report, config={}, seed=0, inputs=[], outputs=made.save(run), started=run.begin())


@pytest.mark.parametrize("method", ["rqvae", "residual-kmeans"])
def test_tokenize_gives_every_item_its_own_codes_and_a_report(run: Run, method: str) -> None:
    report = tokenize(run, TokenizeConfig(method=method, levels=2, codebook_size=8))
    ids = SemanticIds.load(run, catalog=Catalog.load(run))
    assert len(np.unique(ids.codes, axis=0)) == NUM_ITEMS
    assert report.facts["colliding_before"] > 0
    assert report.facts["colliding_after"] == 0
    assert report.facts["missing_items"] == {"text": 1}
    assert report.facts["prefix_lift"][0] > 2
    assert report.facts["prefix_lift_unseen"] is None  # nobody here has a validation item
    assert any("1 items have no text vector" in line for line in report.words)
    health = json.loads((run.path / "semantic_ids" / "health.json").read_text())
    assert sum(health["levels"][0]["counts"]) == NUM_ITEMS
    assert (run.path / "semantic_ids" / "health.png").read_bytes().startswith(b"\x89PNG")
    run.require("tokenize")
    vectors = Embeddings.load(run, "text", catalog=Catalog.load(run)).vectors
    again = encode_items(run, {"text": vectors[:5]}, {"text": np.ones(5, bool)})
    np.testing.assert_array_equal(again[:, 0], ids.codes[:5, 0])


def test_several_modalities_make_one_code_and_a_report_of_each(run: Run) -> None:
    config = TokenizeConfig(modalities=("text", "image"), weights={"image": 2.0}, levels=2, codebook_size=8)
    report = tokenize(run, config)
    assert report.facts["modalities"] == ["text", "image"]
    assert report.facts["missing_items"] == {"text": 1, "image": 20}
    errors = report.facts["reconstruction"]
    assert sorted(errors) == ["image", "text"]
    assert all(0 < by_length[1] < by_length[0] < 1 for by_length in errors.values())
    catalog = Catalog.load(run)
    items = ItemVectors.load(run, ("text", "image"), catalog=catalog)
    codes = SemanticIds.load(run, catalog=catalog).codes
    encoded = encode_items(run, items.vectors, items.masks)
    assert (encoded[:, 0] == codes[:, 0]).all()
    # An item that loses its image is encoded near where it was: its image is guessed from its text.
    without = encode_items(run, items.vectors, {**items.masks, "image": np.zeros(NUM_ITEMS, bool)})
    assert (without[:, 0] == encoded[:, 0]).mean() > 0.7


def test_behaviour_as_a_loss_learns_from_steps_of_training_histories(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[RQVAEOptions, Makeup]] = []
    fit = RQVAE.fit

    def spy(self: RQVAE, vectors: NDArray[np.float32], *, makeup: Makeup, **others: Any) -> None:
        seen.append((self.options, makeup))
        fit(self, vectors, makeup=makeup, **others)

    monkeypatch.setattr(RQVAE, "fit", spy)
    codes = []
    for loss in (0.0, 3.0):
        tokenize(run, TokenizeConfig(levels=2, codebook_size=8, behaviour_loss=loss, behaviour_loss_level=2))
        codes.append(SemanticIds.load(run, catalog=Catalog.load(run)).codes)
    (_, without), (options, makeup) = seen
    assert without.pairs is None
    assert (options.pair_weight, options.pair_level) == (3.0, 1)
    assert makeup.pairs is not None
    # The last item has no vector, so the rows of the others are their numbers.
    assert {(first, second - first) for first, second in makeup.pairs.tolist()} == {
        (group + 6 * step, 6) for group in range(6) for step in range(6) if group + 6 * step + 6 < NUM_ITEMS - 1
    }
    assert (codes[0] != codes[1]).any()


def test_a_modality_that_hardly_any_item_has_is_left_out_and_said(run: Run) -> None:
    catalog, nothing = Catalog.load(run), np.zeros((NUM_ITEMS, 4), np.float32)
    expected = tokenize(run, TokenizeConfig(levels=2, codebook_size=8))
    codes = SemanticIds.load(run, catalog=catalog).codes
    one = Embeddings("audio", nothing, np.arange(NUM_ITEMS) == 3, "m", "r", catalog.order_checksum)
    written = [*one.save(run), *Embeddings.load(run, "text", catalog=catalog).save(run)]
    embedded = StageReport("embed", {"modalities": {"text": {}, "audio": {}}}, [])
    run.record(embedded, config={}, seed=0, inputs=[], outputs=written, started=run.begin())
    report = tokenize(run, TokenizeConfig(levels=2, codebook_size=8))
    assert report.words[0] == "audio is left out: fewer than two items that teach have a vector of it."
    assert report.facts["modalities"] == expected.facts["modalities"] == ["text"]
    np.testing.assert_array_equal(SemanticIds.load(run, catalog=catalog).codes, codes)


def test_where_behaviour_is_known_it_counts_twice_and_codes_are_used_equally_often(run: Run) -> None:
    image = Embeddings.load(run, "image", catalog=Catalog.load(run))
    record(run, replace(image, modality="behaviour"))

    def codes(*modalities: str, **options: Any) -> NDArray[np.uint16]:
        tokenize(run, TokenizeConfig(modalities=modalities, levels=2, codebook_size=8, **options))
        return SemanticIds.load(run, catalog=Catalog.load(run)).codes

    def same(one: NDArray[np.uint16], other: NDArray[np.uint16]) -> bool:
        return np.array_equal(one, other)

    found = codes("text", "behaviour")
    assert same(found, codes("text", "behaviour", balance=1.0, weights={"behaviour": 2.0}))
    assert not same(found, codes("text", "behaviour", balance=0.0))
    assert not same(found, codes("text", "behaviour", weights={"behaviour": 1.0}))
    assert same(codes("text"), codes("text", balance=0.0))
    assert not same(codes("text"), codes("text", balance=1.0))


def test_vectors_can_be_joined_as_they_are_and_the_largest_win(run: Run) -> None:
    image = Embeddings.load(run, "image", catalog=Catalog.load(run))
    record(run, replace(image, vectors=1e4 * image.vectors))
    both = TokenizeConfig(method="residual-kmeans", modalities=("text", "image"), levels=2, codebook_size=8)

    def errors(weights: Any) -> list[float]:
        found = tokenize(run, both.model_copy(update={"weights": weights})).facts["reconstruction"]
        return [found["text"][-1], found["image"][-1]]

    balanced, raw = errors({}), errors("none")
    assert raw[0] > balanced[0]  # the codes are spent on the pictures
    assert raw[1] < balanced[1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"weights": {"sound": 2.0}}, "'sound' is none of the modalities text"),
        ({"method": "random", "behaviour_loss": 0.1}, "random learns no behaviour_loss"),
        ({"behaviour_loss": 0.1, "behaviour_loss_level": 3}, "there are 2 levels"),
        ({"method": "residual-kmeans", "balance": 1.0}, "residual-kmeans balances no codes"),
        ({"method": "random", "item_codes": 8}, "random gets no further codes"),
        ({"levels": 6, "codebook_size": 4096}, "need 72 bits; the trie has 64"),
    ],
)
def test_options_that_fit_no_modality_method_or_level_are_refused(run: Run, options: dict, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        tokenize(run, TokenizeConfig(**({"levels": 2, "codebook_size": 8} | options)))


@pytest.mark.parametrize(("method", "sizes"), [("random", (32, 32)), ("item-id", (NUM_ITEMS,))])
def test_controls_go_through_the_same_stage(run: Run, method: str, sizes: tuple[int, ...]) -> None:
    report = tokenize(run, TokenizeConfig(method=method, levels=2, codebook_size=32))
    ids = SemanticIds.load(run, catalog=Catalog.load(run))
    assert ids.codebook_sizes == sizes
    assert len(np.unique(ids.codes, axis=0)) == NUM_ITEMS
    error = report.facts["reconstruction"]["text"][-1]
    assert error < 0.01 if method == "item-id" else error > 0.95  # a code of its own stands for the item itself
    assert load_tokenizer(run).codebook_sizes == sizes


def test_the_same_seed_writes_the_same_bytes(run: Run) -> None:
    config = TokenizeConfig(levels=2, codebook_size=8, seed=3)
    tokenize(run, config)
    first = run.require("tokenize").outputs
    tokenize(run, config)
    assert run.require("tokenize").outputs == first


def test_shared_codes_stay_shared_and_the_report_says_so(run: Run) -> None:
    report = tokenize(
        run, TokenizeConfig(method="residual-kmeans", levels=2, codebook_size=4, item_codes=0, collisions="shared")
    )
    assert report.facts["colliding_after"] == report.facts["colliding_before"] > 0
    assert report.facts["reconstruction_after"] is None


def test_an_extra_level_is_named_in_the_report(run: Run) -> None:
    report = tokenize(
        run, TokenizeConfig(method="residual-kmeans", levels=1, codebook_size=4, item_codes=0, collisions="extra-level")
    )
    assert len(report.facts["levels"]) == 2
    assert any(line.startswith("Level 2 (extra level):") for line in report.words)


def test_tokenize_needs_vectors_of_this_catalogue(run: Run) -> None:
    with pytest.raises(RunError, match="no vectors of modality 'sound'"):
        tokenize(run, TokenizeConfig(modalities=("sound",)))
    with pytest.raises(DataError, match="cannot fill a codebook of 256"):
        tokenize(run, TokenizeConfig())
    catalog = Catalog.load(run)
    empty = np.zeros(NUM_ITEMS, dtype=bool)
    record(run, Embeddings("none", np.zeros((NUM_ITEMS, 2), np.float32), empty, "m", "r", catalog.order_checksum))
    with pytest.raises(DataError, match="No item that teaches has a vector"):
        tokenize(run, TokenizeConfig(modalities=("none",)))
    with pytest.raises(RunError, match="missing"):
        load_tokenizer(run)
    assert "tokenize" not in run.stages


def test_an_unknown_tokenizer_is_refused(run: Run) -> None:
    tokenize(run, TokenizeConfig(method="residual-kmeans", levels=2, codebook_size=4))
    (run.path / "semantic_ids" / "tokenizer" / "tokenizer.json").write_text('{"method": "magic"}')
    with pytest.raises(RunError, match="unknown tokenizer: 'magic'"):
        load_tokenizer(run)


def test_perplexity_is_the_number_of_equally_used_codes() -> None:
    codes = np.array([[0, 0], [1, 0], [2, 0], [3, 0]], np.uint16)
    first, second = level_health(codes, (8, 4))
    assert (first.used, second.used) == (4, 1)
    assert first.perplexity == pytest.approx(4.0)
    assert second.perplexity == pytest.approx(1.0)
    assert second.counts == [4, 0, 0, 0]


def test_prefix_lift_is_that_of_counting_all_pairs() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (12, 2)).astype(np.uint16)
    histories = [rng.integers(0, 12, 9).tolist() for _ in range(5)]
    sequences = Sequences.from_lists([str(user) for user in range(5)], histories)
    pairs = [(a, b) for items in histories for a, b in pairwise(items) if a != b]
    lifts = prefix_lift(codes, sequences)
    assert lifts is not None
    for length in (1, 2):

        def same(a: int, b: int, length: int = length) -> bool:
            return bool((codes[a, :length] == codes[b, :length]).all())

        observed = np.mean([same(a, b) for a, b in pairs])
        independent = [(a, b) for a, _ in pairs for _, b in pairs if a != b]
        chance = np.mean([same(a, b) for a, b in independent])
        assert lifts[length - 1] == pytest.approx(observed / chance)


def test_the_lift_of_unseen_steps_is_of_what_came_after_the_last_training_item(tiny_run: Path) -> None:
    opened = Run.open(tiny_run)
    steps, training = unseen_steps(opened), training_sequences(opened)
    assert len(steps) == len(training) == 40
    assert all(steps[user][0] == training[user][-1] for user in range(40))
    # The tiny users walk three items on, within their genre: the next item is the last one's number and three.
    assert all((steps[user][1] - steps[user][0]) % 30 == 3 for user in range(40))
    health = replace(health_of(np.zeros((4, 1), np.uint16), (1,), [2.0]), prefix_lift_unseen=[1.5])
    assert "against chance: 2.0×; where training saw nothing of the step: 1.5×." in "\n".join(health.words())


def test_users_with_one_item_give_no_prefix_lift() -> None:
    assert prefix_lift(np.zeros((2, 1), np.uint16), Sequences.from_lists(["a", "b"], [[0], [1]])) is None


def test_the_mean_has_error_one_and_constant_vectors_have_none() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert relative_error(vectors, np.broadcast_to(vectors.mean(axis=0), (50, 3))) == pytest.approx(1.0)
    assert relative_error(np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)) == 0.0


def health_of(codes: np.ndarray, sizes: tuple[int, ...], lift: list[float] | None) -> Health:
    return Health(
        num_items=len(codes),
        levels=level_health(codes, sizes),
        colliding_before=0.1,
        colliding_after=0.0,
        moved_items=3,
        missing_items={"text": 0},
        reconstruction={"text": [0.5] * len(sizes), "image": [0.7] * len(sizes)},
        reconstruction_after=None,
        prefix_lift=lift,
    )


def test_a_collapsed_level_a_large_codebook_and_codes_that_say_nothing_are_warned_about() -> None:
    even = (np.arange(400) % 20).astype(np.uint16)
    health = health_of(np.stack([even, np.zeros(400, np.uint16)], axis=1), (20, 20), [5.0, 5.0])
    assert [warning.split(":")[0] for warning in health.warnings()] == ["Level 2 has collapsed"]
    for number, (error, size, cause) in enumerate([(0.001, 20, "left nearly nothing"), (0.5, 300, "too few items")]):
        codes = np.stack([even, np.zeros(400, np.uint16)], axis=1)
        found = replace(health_of(codes, (20, size), [5.0, 5.0]), reconstruction={"text": [error] * 2}).warnings()
        assert cause in found[0], number
    assert "lies in few places" in health.warnings()[0]
    first = health_of(np.stack([np.zeros(400, np.uint16), even], axis=1), (20, 20), [5.0, 5.0])
    assert "Most vectors are nearly the same" in first.warnings()[0]
    small = health_of(np.arange(10, dtype=np.uint16)[:, None], (10,), [1.0])
    assert len(small.warnings()) == 2
    assert [line for line in small.words() if line.startswith("Warning: ")] == small.words()[-2:]


def test_the_plot_takes_one_level_and_many(tmp_path: Path) -> None:
    for levels in (1, 5):
        codes = np.random.default_rng(0).integers(0, 16, (100, levels)).astype(np.uint16)
        plot_health(health_of(codes, (16,) * levels, None), tmp_path / "health.png")
        assert (tmp_path / "health.png").stat().st_size > 10_000
