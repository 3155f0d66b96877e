"""Gradients accumulated over several batches are those of all their targets, also where an epoch ends early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec.examples import Example
from tests.training.test_loop import full_rows, settings, trainer


def test_two_accumulated_batches_are_one_of_double_size(tmp_path: Path):
    moments = []
    for name, changes in (("one", {"batch_tokens": 512}), ("two", {"gradient_accumulation": 2})):
        # Eight full rows, one epoch: as many targets in each batch, and no clipping that would hide a factor.
        config = settings(epochs=1, dropout=0.0, max_gradient_norm=1e9, learning_rate=1e-12, **changes)
        training = trainer(tmp_path / name, config, make_examples=full_rows)
        training.run(resume=False)
        parameters = dict(training.model.named_parameters())
        moments.append({name: training.optimizer.state[weight] for name, weight in parameters.items()})
    one, two = moments
    assert {int(state["step"]) for state in one.values()} == {int(state["step"]) for state in two.values()} == {4}
    for name, state in one.items():
        torch.testing.assert_close(state["exp_avg"], two[name]["exp_avg"], atol=1e-7, rtol=1e-4)
        torch.testing.assert_close(state["exp_avg_sq"], two[name]["exp_avg_sq"], atol=1e-9, rtol=1e-4)


def test_batches_with_few_targets_count_as_little_as_these(tmp_path: Path):
    """Answers alone are learned, so some rows have one target and others twenty."""

    def uneven(rng: np.random.Generator) -> list[Example]:
        made = full_rows(rng)
        few = [replace(example, targets=np.arange(len(example.tokens)) == 9) for example in made[::2]]
        return [*few, *made[1::2]]

    gradients = []
    for name, changes in (("one", {"batch_tokens": 512}), ("two", {"gradient_accumulation": 2})):
        config = settings(epochs=1, dropout=0.0, max_gradient_norm=1e9, learning_rate=1e-12, **changes)
        training = trainer(tmp_path / name, config, make_examples=uneven)
        training.run(resume=False)
        weights = training.model.named_parameters()
        gradients.append({name: training.optimizer.state[weight]["exp_avg"] for name, weight in weights})
    for name, one in gradients[0].items():
        torch.testing.assert_close(one, gradients[1][name], atol=1e-7, rtol=1e-3)


def test_a_short_last_step_has_the_gradient_of_its_own_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    norms: list[float] = []
    config = settings(
        epochs=1, dropout=0.0, max_gradient_norm=1e9, learning_rate=1e-12, gradient_accumulation=3, weight_decay=0.0
    )
    # Eight equal batches make steps of three, three and two.
    training = trainer(tmp_path, config, make_examples=lambda rng: full_rows(rng)[:1] * 8)
    clip = training.accelerator.clip_grad_norm_

    def watched(parameters: Any, limit: float) -> None:
        norms.append(float(clip(parameters, limit)))

    monkeypatch.setattr(training.accelerator, "clip_grad_norm_", watched)
    training.run(resume=False)
    assert len(norms) == 3
    np.testing.assert_allclose(norms, norms[0], rtol=1e-4)
