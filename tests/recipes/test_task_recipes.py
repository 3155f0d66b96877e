"""eval/alignment_tasks.py and eval/packed_examples.py on the tiny run: what they train, what their tables say."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from genrec.config import TrainConfig, load_config
from genrec.run import Run

ROOT = Path(__file__).resolve().parents[2]


def recipe(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "eval" / name))


def test_a_mixture_and_next_item_alone_are_compared_on_equal_epochs_and_done_once(
    tiny_run: Path, tiny_files: Path, tmp_path: Path
) -> None:
    compare = recipe("alignment_tasks.py")["compare"]
    (tmp_path / "talk.txt").write_text("I liked the first film.\nAnd the second one?\n")
    tasks, replay = {"A1": 0.5, "B1": 0.2, "B2": 0.2, "G": 0.1}, (str(tmp_path / "talk.txt"),)
    config = load_config(TrainConfig, tiny_files / "train.yaml").model_copy(
        update={"epochs": 1, "tasks": tasks, "replay": replay}
    )
    untrained = Run(tiny_run)
    lines = compare(untrained, config, tmp_path, seeds=[3], num_items=5, texts=["I liked the second one."])
    assert lines[-1].startswith("Perplexity per word of held-out text, trained, by seed:")
    mixture, alone = (Run(tmp_path / name).stages["train"] for name in ("mixture-3", "next-item-3"))
    assert (mixture.config["tasks"], alone.config["tasks"]) == (config.tasks, {"A1": 1.0})
    assert mixture.seed == alone.seed == 3
    assert mixture.report["epochs"] == alone.report["epochs"] == 1
    assert any("I mean {{ title }}, which one is that? → {{ item }}` | yes" in line for line in lines)
    assert lines[0].endswith(" users, test split")
    stamps = [(tmp_path / name / "manifest.json").stat().st_mtime_ns for name in ("mixture-3", "next-item-3")]
    again = compare(untrained, config, tmp_path, seeds=[3], num_items=5, texts=["I liked the second one."])
    assert again == lines
    both = compare(untrained, config, tmp_path, seeds=[3], num_items=5, splits=("validation", "test"))
    assert both[0].endswith(" users, validation and test split")  # measured anew, and not trained again
    assert stamps == [(tmp_path / name / "manifest.json").stat().st_mtime_ns for name in ("mixture-3", "next-item-3")]
    longer = config.model_copy(update={"epochs": 2})
    compare(untrained, longer, tmp_path, seeds=[3], num_items=5)
    assert Run(tmp_path / "mixture-3").stages["train"].report["epochs"] == 2


def test_a_base_that_was_made_anew_is_trained_and_measured_anew(
    tiny_run: Path, tiny_files: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_run / "model", tmp_path / "base"))
    config = load_config(TrainConfig, tiny_files / "train.yaml")
    config = config.model_copy(update={"epochs": 1, "base": str(base)})
    measure = recipe("alignment_tasks.py")["train_and_measure"]
    options: dict[str, Any] = {"num_items": 5, "splits": ("test",)}
    first = measure(Run(tiny_run), config, tmp_path / "out", **options)
    assert measure(Run(tiny_run), config, tmp_path / "out", **options) == first
    tensors = load_file(base / "model.safetensors")
    save_file({name: weight * 1.1 for name, weight in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    second = measure(Run(tiny_run), config, tmp_path / "out", **options)
    assert second["history"] != first["history"]


def test_the_ratio_is_that_of_the_means_and_its_interval_holds_it() -> None:
    ratio_of_means = recipe("alignment_tasks.py")["ratio_of_means"]
    ours, theirs = np.array([1.0, 0.0, 1.0, 1.0] * 50), np.array([1.0, 1.0, 0.0, 0.0] * 50)
    users = [str(user) for user in range(200)]
    ratio, low, high = ratio_of_means(ours, theirs, users)
    assert ratio == pytest.approx(1.5)
    assert low < 1.5 < high
    assert ratio_of_means(ours, ours, users) == (1.0, 1.0, 1.0)
    # The same cases again tell nothing new where they are of the same users.
    twice = ratio_of_means(np.tile(ours, 2), np.tile(theirs, 2), users * 2)
    assert twice[2] - twice[1] == pytest.approx(high - low, rel=0.1)
    strangers = ratio_of_means(np.tile(ours, 2), np.tile(theirs, 2), [*users, *(f"x{user}" for user in users)])
    assert strangers[2] - strangers[1] < 0.85 * (high - low)


def test_both_schemes_are_timed_and_the_ratio_is_to_the_first_epoch_that_is_as_good() -> None:
    module = recipe("packed_examples.py")
    point, packed, slow = module["Point"], module["PACKED"], module["PER_TARGET"]
    curves = {
        packed: [point(1, 1.0, 0.1), point(2, 2.0, 0.3), point(3, 3.0, 0.4)],
        slow: [point(1, 10.0, 0.3), point(2, 20.0, 0.2)],
    }
    assert module["table"](curves)[-1].endswith("2.0 s packed: 5.0 times less.")
    assert module["table"]({**curves, packed: curves[packed][:1]})[-1] == "Packed histories did not reach 0.3000."


def test_packed_histories_read_fewer_tokens_for_the_same_targets(tiny_run: Path, tmp_path: Path) -> None:
    module = recipe("packed_examples.py")
    config = TrainConfig(
        scratch={"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16, "text_vocabulary": 300},
        epochs=2,
        validate_every=1,
        max_history_items=6,
    )
    for scheme in (module["PACKED"], module["PER_TARGET"]):
        points = module["learn"](Run(tiny_run), config, scheme, folder=tmp_path / scheme[:6])
        assert [found.epoch for found in points] == [1, 2]
        assert 0 < points[0].seconds < points[1].seconds
        assert all(0 <= found.recall <= 1 for found in points)
