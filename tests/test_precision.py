"""bfloat16 products only where hardware makes them: elsewhere a training would take many times as long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genrec.config import TrainConfig
from genrec.encoders.sequential import FullCrossEntropy
from genrec.precision import multiplies_bfloat16, uses_bfloat16
from genrec.training.loop import Trainer
from tests.training.test_loop import settings, trainer


def set_hardware(monkeypatch: pytest.MonkeyPatch, *, machine: str = "x86_64", bf16: bool, amx: bool = False):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(("bf16", "amx"), [(False, False), (True, False), (False, True)])
def test_auto_is_what_the_cpu_multiplies(bf16: bool, amx: bool, monkeypatch: pytest.MonkeyPatch):
    set_hardware(monkeypatch, bf16=bf16, amx=amx)
    assert multiplies_bfloat16() is uses_bfloat16("auto") is (bf16 or amx)
    assert uses_bfloat16("bfloat16")
    assert not uses_bfloat16("float32")
    assert not multiplies_bfloat16("mps")
    assert TrainConfig().precision == "auto"


def trained_weights(folder: Path, precision: str) -> tuple[dict[str, torch.Tensor], Trainer]:
    training = trainer(folder, settings(epochs=1, precision=precision))
    training.run(resume=False)
    return {name: value.clone() for name, value in training.model.state_dict().items()}, training


@pytest.mark.parametrize("bf16", [False, True])
def test_a_training_takes_the_products_of_the_cpu(bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    set_hardware(monkeypatch, bf16=bf16)
    found, training = trained_weights(tmp_path / "auto", "auto")
    assert training.bfloat16 is bf16
    for precision in ("float32", "bfloat16"):
        expected, _ = trained_weights(tmp_path / precision, precision)
        same = all(torch.equal(found[name], expected[name]) for name in expected)
        assert same == (precision == ("bfloat16" if bf16 else "float32"))


@pytest.mark.parametrize("bf16", [False, True])
def test_the_full_softmax_is_exact_where_products_are_float32(bf16: bool):
    rng = np.random.default_rng(0)
    hidden, weight = (torch.tensor(rng.normal(size=(n, 8)), dtype=torch.float32, requires_grad=True) for n in (20, 50))
    targets = torch.from_numpy(rng.integers(50, size=20))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = FullCrossEntropy.apply(hidden, weight, targets)
    loss.backward()
    found = torch.clone(hidden.grad) if hidden.grad is not None else torch.zeros(0)
    hidden.grad = None
    exact = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    exact.backward()
    assert hidden.grad is not None
    assert loss.item() == pytest.approx(exact.item(), rel=0.02 if bf16 else 1e-6)
    assert torch.allclose(found, hidden.grad, atol=0.05 if bf16 else 1e-5)
    assert torch.allclose(found, hidden.grad, atol=1e-5) is not bf16
