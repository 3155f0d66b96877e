"""The formulas of alignment against sums written out, and what is missing or dropped."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec.encoders.alignment_heads import Heads
from genrec.encoders.alignment_losses import (
    cosine_loss,
    drop_modalities,
    false_negatives,
    fuse,
    info_nce,
    symmetric_info_nce,
)
from genrec.encoders.alignment_model import AlignmentModel, Features


def directions(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_info_nce_is_the_sum_written_out():
    queries, candidates = directions(5, 3), directions(5, 3, seed=1)
    scale = 4.0
    total = 0.0
    for row in range(5):
        scores = [math.exp(scale * float(queries[row] @ candidates[column])) for column in range(5)]
        total -= math.log(scores[row] / sum(scores))
    assert info_nce(queries, candidates, scale=torch.tensor(scale)).item() == pytest.approx(total / 5, rel=1e-5)
    both = symmetric_info_nce(queries, candidates, scale=torch.tensor(scale))
    back = info_nce(candidates, queries, scale=torch.tensor(scale))
    assert both.item() == pytest.approx((total / 5 + back.item()) / 2, rel=1e-5)


def test_the_popularity_correction_divides_by_how_often_a_candidate_is_drawn():
    # All scores are e^0 = 1; drawn with shares 1/2, 1/4, 1/4, the candidates weigh 2, 4, 4.
    queries, candidates = torch.zeros(3, 2), torch.zeros(3, 2)
    log_q = torch.log(torch.tensor([0.5, 0.25, 0.25]))
    loss = info_nce(queries, candidates, scale=torch.tensor(1.0), log_q=log_q)
    expected = -(math.log(2 / 10) + 2 * math.log(4 / 10)) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_false_negatives_are_the_same_target_and_the_source_itself():
    sources, targets = torch.tensor([1, 2, 1, 3]), torch.tensor([2, 4, 2, 1])
    there, back = false_negatives(sources, targets)
    for row in range(4):
        for column in range(4):
            assert there[row, column] == (targets[column] in (targets[row], sources[row]))
            assert back[row, column] == (sources[column] in (sources[row], targets[row]))


def test_an_excluded_candidate_weighs_nothing_and_gets_no_gradient():
    queries = directions(3, 4)
    candidates = directions(3, 4, seed=1).requires_grad_()
    excluded = torch.zeros(3, 3, dtype=torch.bool)
    excluded[:, 2] = True  # the diagonal stays
    loss = info_nce(queries, candidates, scale=torch.tensor(5.0), excluded=excluded)
    pair = info_nce(queries[:2], candidates[:2], scale=torch.tensor(5.0))
    own = info_nce(queries, candidates, scale=torch.tensor(5.0), excluded=excluded | ~torch.eye(3, dtype=torch.bool))
    assert own.item() == 0.0
    scores = 5.0 * queries[2] @ candidates.T
    last = -(scores[2] - torch.logsumexp(scores, 0))
    assert loss.item() == pytest.approx((2 * pair.item() + last.item()) / 3, rel=1e-5)
    (gradient,) = torch.autograd.grad(pair, candidates)
    assert (gradient[2] == 0).all()


def test_fusing_is_the_mean_direction_of_what_is_present():
    projections = directions(4, 3, 5)
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    fused = fuse(projections, present)
    mean = (projections[1, 0] + projections[1, 2]) / 2
    torch.testing.assert_close(fused[1], mean / mean.norm())
    torch.testing.assert_close(fused[2], projections[2, 1])
    assert (fused[3] == 0).all()


def test_modality_dropout_never_drops_the_last_one_and_adds_none():
    present = torch.tensor([[True, True, True], [False, True, False], [True, False, True], [False, False, False]])
    many = present.repeat(5000, 1)
    kept = drop_modalities(many, 0.7, torch.Generator().manual_seed(0))
    assert not (kept & ~many).any()
    assert (kept.any(dim=1) == many.any(dim=1)).all()
    # Of three, each stays with chance .3; all go with .343, and then one in three stays after all.
    share = kept[0::4].float().mean().item()
    assert share == pytest.approx(0.3 + 0.343 / 3, abs=0.01)
    assert torch.equal(kept, drop_modalities(many, 0.7, torch.Generator().manual_seed(0)))
    assert torch.equal(drop_modalities(many, 0.0, torch.Generator().manual_seed(0)), many)


def test_cosine_loss_is_zero_along_and_two_against():
    vectors = directions(4, 6)
    assert cosine_loss(3 * vectors, vectors).item() == pytest.approx(0.0, abs=1e-6)
    assert cosine_loss(-vectors, vectors).item() == pytest.approx(2.0, abs=1e-6)


def test_a_missing_modality_contributes_no_gradient():
    torch.manual_seed(0)
    heads = Heads({"text": 4, "image": 3}, width=8, hidden_width=5)
    vectors = {"text": torch.randn(3, 4).requires_grad_(), "image": torch.randn(3, 3).requires_grad_()}
    present = torch.tensor([[True, False], [True, True], [False, True]])
    model = AlignmentModel(heads, Features(vectors, present))
    projections, mask = model.project(torch.tensor([0, 1, 2]))
    assert torch.equal(mask, present)
    (fuse(projections, mask) * torch.arange(24).reshape(3, 8)).sum().backward()
    for column, rows in enumerate(vectors.values()):
        assert rows.grad is not None
        assert ((rows.grad != 0).any(dim=1) == present[:, column]).all()
    heads.zero_grad()
    projections, mask = model.project(torch.tensor([0]))
    fuse(projections, mask).sum().backward()
    assert all(weight.grad is None for weight in heads["image"].parameters())
    assert all(weight.grad is not None for name, weight in heads["text"].named_parameters() if "hidden" not in name)


def test_an_untrained_head_keeps_angles_roughly():
    torch.manual_seed(0)
    heads = Heads({"text": 64}, width=512, hidden_width=16)
    vectors = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    heads["text"].standardise_by(vectors)
    points = heads["text"].standardised(vectors)
    assert points.mean(dim=0).abs().max() < 1e-5
    assert points.square().mean().item() == pytest.approx(1.0, rel=1e-4)
    with torch.no_grad():
        projected = heads["text"](vectors)
    raw = torch.nn.functional.normalize(points, dim=1)
    assert np.corrcoef((raw @ raw.T).flatten(), (projected @ projected.T).flatten())[0, 1] > 0.9
