"""SASRec and GRU4Rec: the fused loss against torch, causality, batching, and a cycle that it has to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genrec.baselines import next_item
from genrec.baselines.base import top_k
from genrec.baselines.gru4rec import GRU4Rec
from genrec.baselines.next_item import NextItemBaseline, NextItemSettings
from genrec.baselines.sasrec import SASRec
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.encoders.sequential import FullCrossEntropy, SequentialModel, cut_windows, make_batches

SMALL = NextItemSettings(width=32, max_length=8, dropout=0.1, batch_positions=64, learning_rate=1e-2, epochs=20)
NUM_ITEMS = 12


def cycles(num_users: int, seed: int) -> Sequences:
    """Users who walk 0 → 1 → … → 11 → 0 from a random start."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(NUM_ITEMS, size=num_users), rng.integers(4, 12, size=num_users)
    walks = [[(s + step) % NUM_ITEMS for step in range(n)] for s, n in zip(starts, lengths, strict=True)]
    return Sequences.from_lists([f"u{user}" for user in range(num_users)], walks)


def next_items(sequences: Sequences) -> EvaluationCases:
    return EvaluationCases(sequences, np.array([(items[-1] + 1) % NUM_ITEMS for items in sequences], dtype=np.int32))


@pytest.fixture(scope="module", params=[SASRec, GRU4Rec])
def trained(request: pytest.FixtureRequest) -> NextItemBaseline:
    model: NextItemBaseline = request.param(next_items(cycles(60, seed=1)), SMALL)
    model.fit(cycles(150, seed=0), NUM_ITEMS, seed=0)
    return model


def test_it_learns_a_deterministic_cycle(trained: NextItemBaseline) -> None:
    cases = next_items(cycles(60, seed=2))
    histories = list(cases.histories)
    best = top_k(trained.scores(histories), 1, exclude=histories, seed=0)[:, 0]
    assert (best == cases.targets).mean() > 0.95


def test_batch_equals_single(trained: NextItemBaseline) -> None:
    histories = [np.arange(n, dtype=np.int32) for n in (1, 5, 11)]
    together = trained.scores(histories)
    for row, history in enumerate(histories):
        np.testing.assert_allclose(together[row], trained.scores([history])[0], atol=0.05)


def test_an_empty_history_gets_equal_scores(trained: NextItemBaseline) -> None:
    assert not trained.scores([np.empty(0, np.int32)]).any()


@pytest.mark.parametrize("kind", [SASRec, GRU4Rec])
def test_the_same_seed_trains_the_same_model_and_leaves_the_global_generator_alone(
    kind: type[SASRec | GRU4Rec],
) -> None:
    def train(seed: int) -> np.ndarray:
        model = kind(next_items(cycles(5, seed=1)), NextItemSettings(width=16, max_length=8, epochs=1))
        model.fit(cycles(30, seed=0), NUM_ITEMS, seed=seed)
        return model.scores([np.array([3], np.int32)])

    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    first, again, other = train(0), train(0), train(1)
    assert torch.rand(1) == expected
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_fused_loss_and_its_gradients_equal_torchs_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    # Values that bfloat16 holds exactly, so that only the products round.
    hidden = torch.randn(300, 16, generator=generator).bfloat16().float().requires_grad_()
    weight = torch.randn(40, 16, generator=generator).bfloat16().float().requires_grad_()
    targets = torch.randint(40, (300,), generator=generator)
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    wanted = torch.autograd.grad(expected, (hidden, weight))
    loss = FullCrossEntropy.apply(hidden, weight, targets)
    found = torch.autograd.grad(loss, (hidden, weight))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine - theirs).norm() < 0.01 * theirs.norm()


def test_a_later_item_does_not_change_an_earlier_state() -> None:
    torch.manual_seed(0)
    model = SequentialModel(NUM_ITEMS, SMALL).eval()
    states = model(torch.tensor([[1, 2, 3, 4], [1, 2, 9, -1]]))
    torch.testing.assert_close(states[0, :2], states[1, :2])


def test_windows_make_every_item_but_the_first_a_target_exactly_once() -> None:
    history = list(range(23))
    windows = cut_windows(Sequences.from_lists(["a", "b"], [history, [5]]), 8)
    targets = sorted(int(item) for window in windows for item in window[1:])
    assert targets == history[1:]
    assert max(len(window) for window in windows) == 9
    assert windows[0].tolist() == list(range(14, 23))


def test_batches_hold_every_window_once() -> None:
    windows = cut_windows(cycles(50, seed=3), 8)
    batches = make_batches(windows, SMALL, np.random.default_rng(0))
    assert sorted(id(w) for batch in batches for w in batch) == sorted(id(w) for w in windows)


def test_an_item_enters_as_large_as_the_papers_code_has_it() -> None:
    model = SequentialModel(NUM_ITEMS, replace(SMALL, num_layers=0)).eval()
    items, positions = model.items.weight, model.positions.weight
    expected = model.norm(SMALL.width**0.5 * items[[3, 5]] + positions[:2])
    torch.testing.assert_close(model(torch.tensor([[3, 5]]))[0], expected)


def test_the_weights_are_those_of_the_best_epoch_and_the_rate_falls_to_a_twentieth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = SASRec(next_items(cycles(20, seed=1)), SMALL)
    rates, states, qualities = [], [], iter([0.1, 0.3, 0.3, 0.2])

    def train_epoch(network: Any, *_args: Any, rate: Callable[[float], float]) -> float:
        rates.extend([rate(0.0), rate(1.0)])
        with torch.no_grad():
            network.items.weight.add_(1.0)
        states.append(network.items.weight.clone())
        return 0.0

    monkeypatch.setattr(next_item, "train_epoch", train_epoch)
    monkeypatch.setattr(model, "_validation_ndcg", lambda *_args: next(qualities))
    model._settings = replace(SMALL, epochs=4)
    model.fit(cycles(20, seed=0), NUM_ITEMS, seed=0)
    torch.testing.assert_close(model._model.items.weight, states[1])
    assert rates[0] < rates[1] <= SMALL.learning_rate
    assert rates[-1] == pytest.approx(SMALL.learning_rate / 20)
