"""A checkpoint brings back every number, refuses what does not belong to it, and is written whole or not at all."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from genrec.errors import ConfigError, RunError
from genrec.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint, trainable_state

IDENTITY = {"learning_rate": 0.1, "scratch": {"layers": 2}, "items.parquet": "abc"}
STATE = TrainingState(
    epoch=3,
    step_in_epoch=7,
    step=31,
    epoch_loss_sum=0.1 + 0.2,
    history=[{"epoch": 1, "loss": 1 / 3, "recall@10": 2e-17}],
    best_metric=0.7,
    best_epoch=2,
    bad_validations=1,
    seconds=12.5,
)


class Tied(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Linear(6, 4)
        self.words = nn.Embedding(9, 6)
        self.output = nn.Linear(6, 9, bias=False)
        self.output.weight = self.words.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.words(tokens)).logsumexp(-1).mean() + self.inner(self.words(tokens)).square().mean()


def trained(seed: int, steps: int) -> tuple[Tied, torch.optim.AdamW]:
    model = Tied(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    train(model, optimizer, steps)
    return model, optimizer


def train(model: Tied, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        model(torch.arange(5) + step % 4).backward()
        optimizer.step()
        optimizer.zero_grad()


def save(folder: Path, model: Tied, optimizer: torch.optim.Optimizer, state: TrainingState = STATE) -> None:
    best = {name: weight.detach() * 2 for name, weight in trainable_state(model).items()}
    save_checkpoint(folder, state=state, model=model, optimizer=optimizer, best=best, identity=IDENTITY)


def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path: Path):
    model, optimizer = trained(0, 3)
    save(tmp_path / "checkpoint", model, optimizer)
    other, other_optimizer = trained(1, 1)
    state, best = load_checkpoint(tmp_path / "checkpoint", model=other, optimizer=other_optimizer, identity=IDENTITY)
    assert asdict(state) == asdict(STATE)
    for name, weight in trainable_state(model).items():
        assert torch.equal(best[name], weight * 2)
    assert set(best) == {"inner.weight", "inner.bias", "words.weight"}  # the tied matrix once
    train(model, optimizer, 4)
    train(other, other_optimizer, 4)
    for name, weight in trainable_state(model).items():
        assert torch.equal(weight, trainable_state(other)[name])
    assert other.output.weight is other.words.weight


def test_a_checkpoint_before_the_first_step_and_without_best_weights(tmp_path: Path):
    model, optimizer = trained(0, 0)
    save_checkpoint(tmp_path / "c", state=TrainingState(), model=model, optimizer=optimizer, best={}, identity=IDENTITY)
    other, other_optimizer = trained(1, 0)
    state, best = load_checkpoint(tmp_path / "c", model=other, optimizer=other_optimizer, identity=IDENTITY)
    assert (state, best) == (TrainingState(), {})
    assert torch.equal(other.words.weight, model.words.weight)


@pytest.mark.parametrize(
    ("now", "named"),
    [
        (IDENTITY | {"learning_rate": 0.2}, r"learning_rate \(0\.1 then, 0\.2 now\)"),
        (IDENTITY | {"scratch": {"layers": 3}}, "scratch .*2.* then, .*3.* now"),
        (IDENTITY | {"seed": 1}, r"seed \(None then, 1 now\)"),
        ({"learning_rate": 0.1, "scratch": {"layers": 2}}, r"items\.parquet \('abc' then, None now\)"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_the_name_of_the_setting(tmp_path: Path, now, named: str):
    model, optimizer = trained(0, 1)
    save(tmp_path / "c", model, optimizer)
    before = model.words.weight.clone()
    with pytest.raises(ConfigError, match=named):
        load_checkpoint(tmp_path / "c", model=model, optimizer=optimizer, identity=now)
    assert torch.equal(model.words.weight, before)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "state.json"),
        lambda folder: cut(folder / "state.safetensors"),
        lambda folder: (folder / "state.safetensors").write_bytes(b""),
        lambda folder: (folder / "state.json").unlink(),
        lambda folder: (folder / "state.json").write_text("[]"),
        lambda folder: (folder / "state.json").write_text(json.dumps({"state": {}})),
        lambda folder: (folder / "state.json").write_text(json.dumps({"state": {"epok": 1}, "identity": IDENTITY})),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_model_is_left_alone(tmp_path: Path, damage):
    model, optimizer = trained(0, 1)
    save(tmp_path / "c", model, optimizer)
    damage(tmp_path / "c")
    before = model.words.weight.clone()
    with pytest.raises(RunError, match="c is damaged"):
        load_checkpoint(tmp_path / "c", model=model, optimizer=optimizer, identity=IDENTITY)
    assert torch.equal(model.words.weight, before)


@contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file can grow beyond `num_bytes`: what a full disk looks like to a program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_checkpoint_of_before(tmp_path: Path):
    model, optimizer = trained(0, 1)
    save(tmp_path / "c", model, optimizer)
    before = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    train(model, optimizer, 1)
    with room_for(500), pytest.raises(RunError, match="c could not be written: File too large"):
        save(tmp_path / "c", model, optimizer)
    assert {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]  # and nothing half-written beside it
