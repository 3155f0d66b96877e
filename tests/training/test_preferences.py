"""Rewards and losses of preference optimisation on cases small enough to know the answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genrec.training.preferences import dpo_loss, graded_reward, group_advantages, grpo_loss, ranking_reward


def test_a_wrong_item_costs_the_more_the_higher_it_stands():
    reward = ranking_reward(np.array([[False, True, False], [False, False, False]]))
    first, third = 1.0, 0.5  # 1 / log2(2) and 1 / log2(4)
    assert reward[0].tolist() == pytest.approx([-first / (first + third), 1.0, -third / (first + third)])
    assert reward[1].sum() == pytest.approx(-1.0)
    assert reward[1][0] < reward[1][1] < reward[1][2] < 0
    assert ranking_reward(np.array([[True]])).tolist() == [[1.0]]


def test_a_wrong_item_like_the_wanted_one_is_forgiven():
    hits = np.array([[False, False, True]])
    likeness = np.array([[1.0, 0.5, 1.0]], dtype=np.float32)
    plain, graded = ranking_reward(hits)[0], graded_reward(hits, likeness)[0]
    assert graded.tolist() == pytest.approx([0.0, plain[1] / 2, 1.0])


def test_advantages_are_standard_scores_of_the_group_and_nothing_where_all_are_equal():
    found = group_advantages(torch.tensor([[1.0, -1.0, -1.0, 1.0], [0.3, 0.3, 0.3, 0.3]]))
    assert found.tolist() == [[1.0, -1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]


def test_grpo_pushes_good_items_up_and_is_held_by_the_reference():
    policy = torch.zeros(1, 2, 3, requires_grad=True)
    grpo_loss(policy, torch.zeros(1, 2, 3), torch.tensor([[1.0, -1.0]]), kl_weight=0.5).backward()
    assert policy.grad is not None
    assert policy.grad[0].tolist() == [[pytest.approx(-1 / 6)] * 3, [pytest.approx(1 / 6)] * 3]
    away = torch.full((1, 1, 1), 0.7, requires_grad=True)
    loss = grpo_loss(away, torch.zeros(1, 1, 1), torch.zeros(1, 1), kl_weight=2.0)
    assert loss.item() == pytest.approx(2.0 * (math.exp(-0.7) + 0.7 - 1))
    loss.backward()
    assert away.grad is not None
    assert away.grad.item() > 0  # downhill is back to the reference


def test_softmax_dpo_with_one_rejected_item_is_dpo():
    chosen, rejected = torch.tensor([0.4, -1.0]), torch.tensor([[0.1], [0.3]])
    expected = -F.logsigmoid(0.5 * (chosen - rejected[:, 0])).mean()
    assert dpo_loss(chosen, rejected, beta=0.5).item() == pytest.approx(expected.item())
    several = torch.tensor([[0.1, -0.2, 0.9], [0.3, 0.3, 0.3]])
    by_hand = -torch.log(torch.sigmoid(-torch.log((0.5 * (several - chosen[:, None])).exp().sum(dim=1)))).mean()
    assert dpo_loss(chosen, several, beta=0.5).item() == pytest.approx(by_hand.item())
