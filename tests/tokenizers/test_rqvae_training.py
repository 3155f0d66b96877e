"""What RQ-VAE's losses read: missing modalities, modality dropout, pairs from a late level on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec.tokenizers import rqvae_training
from genrec.tokenizers.base import Makeup
from genrec.tokenizers.networks import SkipMLP
from genrec.tokenizers.quantizer import ResidualQuantizer
from genrec.tokenizers.rqvae import RQVAE
from genrec.tokenizers.rqvae_training import RQVAEOptions, RQVAEParts, TrainingData

NUM_ITEMS, WIDTHS = 40, (3, 5)
PRESENT = np.stack([np.arange(NUM_ITEMS) % 4 != 1, np.arange(NUM_ITEMS) % 4 != 2], axis=1)


def data(pairs: np.ndarray | None = None) -> TrainingData:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.normal(size=(NUM_ITEMS, sum(WIDTHS))).astype(np.float32))
    without = tuple(rng.normal(size=(NUM_ITEMS, width)).astype(np.float32) for width in WIDTHS)
    makeup = Makeup(widths=WIDTHS, present=PRESENT, without=without, pairs=pairs)
    return TrainingData.of(points, makeup, mean=torch.zeros(sum(WIDTHS)), scale=torch.ones(()))


def parts(levels: int = 3) -> RQVAEParts:
    torch.manual_seed(0)
    books = [torch.randn(4, 6) for _ in range(levels)]
    quantizer = ResidualQuantizer(books, [torch.zeros(4)] * levels, torch.zeros(6, 0), torch.zeros(4, 0))
    encoder = SkipMLP(torch.randn(sum(WIDTHS), 6), hidden_width=8)
    decoders = [SkipMLP(torch.randn(6, width), hidden_width=8) for width in WIDTHS]
    return RQVAEParts(torch.zeros(sum(WIDTHS)), torch.ones(()), encoder, decoders, quantizer)


def test_modality_dropout_takes_one_modality_of_those_that_have_two():
    made, rows = data(), torch.arange(NUM_ITEMS)
    found = made.inputs(rows, 1.0, torch.Generator().manual_seed(0))
    blocks = [slice(0, 3), slice(3, 8)]
    lost = np.stack([(found[:, block] != made.points[:, block]).any(dim=1).numpy() for block in blocks], axis=1)
    np.testing.assert_array_equal(lost.sum(axis=1), PRESENT.all(axis=1))
    assert lost.any(axis=0).all()
    for column, block in enumerate(blocks):
        gone = torch.from_numpy(lost[:, column])
        assert torch.equal(found[gone][:, block], made.guessed[gone][:, block])
    assert torch.equal(made.inputs(rows, 0.0, torch.Generator()), made.points)


def test_what_a_missing_modality_is_guessed_to_be_costs_nothing(monkeypatch: pytest.MonkeyPatch):
    made, model = data(), parts()
    inputs = made.points.clone()
    monkeypatch.setattr(TrainingData, "inputs", lambda *_arguments: inputs)

    def loss(points: Tensor) -> float:
        generator = torch.Generator().manual_seed(0)
        other = replace(made, points=points)
        return float(rqvae_training._loss(model, other, torch.arange(NUM_ITEMS), RQVAEOptions(), generator).detach())

    absent = ~torch.from_numpy(np.repeat(PRESENT, WIDTHS, axis=1))
    assert loss(torch.where(absent, 100.0, made.points)) == loss(made.points)
    assert loss(torch.where(absent, made.points, 100.0)) > loss(made.points)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_pairs_are_to_agree_from_their_level_on_and_not_before(monkeypatch: pytest.MonkeyPatch, level: int):
    pairs = np.stack([np.arange(0, NUM_ITEMS, 2), np.arange(1, NUM_ITEMS, 2)], axis=1)
    made, model = data(pairs), parts()
    codes, sums = model.quantizer.walk(model.encoder(made.points[made.pairs.flatten()]))

    def loss(changed: int) -> float:
        partial = sums.detach().clone()
        partial[changed] += torch.randn(partial.shape[1:], generator=torch.Generator().manual_seed(0))
        monkeypatch.setattr(ResidualQuantizer, "walk", lambda *_arguments: (codes, partial))
        return float(rqvae_training._pair_loss(model, made, made.pairs, RQVAEOptions(pair_level=level)).detach())

    found = [loss(changed) for changed in range(3)]
    assert len(set(found[:level])) <= 1
    assert len(set(found[level:])) == 3 - level
    assert not set(found[:level]) & set(found[level:])


def test_pairs_draw_together_what_the_vectors_keep_apart():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(64, 8)).astype(np.float32)
    order = rng.permutation(64)
    pairs = np.concatenate([order.reshape(32, 2), order.reshape(32, 2)[:, ::-1]])

    def agreement(weight: float) -> float:
        options = RQVAEOptions(epochs=60, pair_weight=weight, pair_level=0, encoder_learning_rate=3e-3, patience=60)
        tokenizer = RQVAE(codebook_sizes=(8, 8), options=options)
        tokenizer.fit(vectors, seed=0, makeup=Makeup(pairs=pairs))
        codes = tokenizer.encode(vectors)
        return float((codes[pairs[:, 0], 0] == codes[pairs[:, 1], 0]).mean())

    assert agreement(3.0) > agreement(0.0) + 0.2
