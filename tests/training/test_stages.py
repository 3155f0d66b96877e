"""Stages of a training: rows first and nothing else, and a kill in any stage changes no digit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genrec import pipeline
from genrec.config import TrainConfig, dump_config
from genrec.errors import ConfigError
from genrec.preparation import base_checksums, resolve_base
from genrec.progress import Task
from genrec.run import Run, file_checksum
from tests.training.test_adapters import settings

BaseFolder = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]
FIRST_OF_MAIN = 11  # step: the rows take ten before


class Stopped(Exception):  # noqa: N818
    """What stands for Ctrl-C here."""


class StopAt:
    """Progress that ends the training after `step` steps in all stages together; counts them."""

    def __init__(self, step: int | None = None) -> None:
        self.step, self.steps, self.lines = step, 0, list[str]()

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def track(self, label: str, total: int, unit: str) -> Iterator[Task]:
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.steps += 1
        if self.steps == self.step:
            raise Stopped


def trained_files(run: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for file in (*run.glob("model/*.safetensors"), *run.glob("adapter/*.safetensors")):
        tensors |= {f"{file.parent.name}.{name}": tensor for name, tensor in load_file(file).items()}
    return tensors


def two_stages(base: Path, **changes: Any) -> TrainConfig:
    return settings(base, epochs=2, row_epochs=2, batch_tokens=128, checkpoint_seconds=0, dropout=0.1, **changes)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_interrupted_in_every_stage_it_ends_with_the_same_digits(
    adapter: str, base_folder: BaseFolder, tiny_copy: Path
):
    config, run = two_stages(base_folder("qwen3"), adapter=adapter), Run(tiny_copy)
    undisturbed = StopAt()
    pipeline.train(run, config, progress=undisturbed)
    expected = trained_files(tiny_copy)
    assert undisturbed.steps == 2 * (FIRST_OF_MAIN - 1)
    disturbed = 0
    while True:
        progress = StopAt(2)  # comes after the checkpoint of the first step
        try:
            pipeline.train(run, config, resume=disturbed > 0, progress=progress)
        except Stopped:
            disturbed += 1
            assert disturbed < 4 * undisturbed.steps
            continue
        break
    assert disturbed == undisturbed.steps - 1
    found = trained_files(tiny_copy)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not (tiny_copy / "training" / "checkpoint").exists()
    assert not (tiny_copy / "training" / "rows").exists()


def test_rows_learn_alone_in_their_stage(base_folder: BaseFolder, tiny_copy: Path):
    base = load_file(base_folder("llama") / "model.safetensors")
    run = Run(tiny_copy)
    with pytest.raises(Stopped):
        pipeline.train(run, two_stages(base_folder("llama")), progress=StopAt(FIRST_OF_MAIN))
    state = load_file(tiny_copy / "training" / "rows" / "checkpoint" / "state.safetensors")
    learned = {name: tensor for name, tensor in state.items() if name.startswith("model.")}
    shapes = sorted(tuple(tensor.shape) for tensor in learned.values())
    # The map of the items' vectors; two levels of eight codes, and the items: embedding and output are apart here.
    assert shapes == [(8, 64), (16 + 30, 64), (16 + 30, 64)]
    # With a rate of nothing in the main stage the model is the base with warmed rows.
    pipeline.train(run, settings(base_folder("llama"), row_epochs=1, row_learning_rate=1e-2, learning_rate=1e-12))
    kept = load_file(tiny_copy / "model" / "model.safetensors")
    for name, weight in base.items():
        first = 360 if name in ("model.embed_tokens.weight", "lm_head.weight") else len(weight)
        torch.testing.assert_close(kept[name][:first], weight[:first], atol=1e-8, rtol=0)


def test_a_new_training_does_not_go_on_where_an_older_one_was(base_folder: BaseFolder, tiny_copy: Path):
    run, config = Run(tiny_copy), two_stages(base_folder("qwen3"), adapter="lora")
    pipeline.train(run, config)
    expected = trained_files(tiny_copy)
    with pytest.raises(Stopped):  # in the main stage, whose checkpoint stays
        pipeline.train(run, config.model_copy(update={"seed": 5}), progress=StopAt(FIRST_OF_MAIN + 1))
    with pytest.raises(Stopped):
        pipeline.train(run, config, progress=StopAt(2))  # anew, and stopped while the rows learn
    pipeline.train(run, config, resume=True)
    found = trained_files(tiny_copy)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_other_settings_are_refused_by_name(base_folder: BaseFolder, tiny_copy: Path):
    run, config = Run(tiny_copy), two_stages(base_folder("qwen3"), adapter="lora")
    with pytest.raises(Stopped):
        pipeline.train(run, config, progress=StopAt(FIRST_OF_MAIN + 1))
    changed = config.model_copy(update={"lora": config.lora.model_copy(update={"rank": 3})})
    with pytest.raises(ConfigError, match="started with other settings: lora"):
        pipeline.train(run, changed, resume=True)


def test_a_training_does_not_go_on_with_a_base_that_was_made_anew(
    base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path
):
    base = Path(shutil.copytree(base_folder("qwen3"), tmp_path / "base"))
    run, config = Run(tiny_copy), two_stages(base, adapter="lora")
    with pytest.raises(Stopped):
        pipeline.train(run, config, progress=StopAt(FIRST_OF_MAIN + 1))
    weights = load_file(base / "model.safetensors")
    save_file({name: weight * 1.1 for name, weight in weights.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"started with other settings: .*base/model\.safetensors"):
        pipeline.train(run, config, resume=True)


def test_a_base_is_its_weights_its_tokenizer_and_the_adapter_beside_it(tiny_copy: Path):
    (tiny_copy / "adapter").mkdir()
    (tiny_copy / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    sums = base_checksums(str(tiny_copy / "model"), tiny_copy / "adapter")
    files = ["adapter/adapter_model.safetensors"]
    files += [f"model/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")]
    assert sums == {str(tiny_copy / file): file_checksum(tiny_copy / file) for file in files}
    assert base_checksums("scratch", None) == base_checksums("Qwen/Qwen3-0.6B", None) == {}


def test_killed_for_real_and_resumed_it_makes_the_same_adapter(
    base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path
):
    config, run = two_stages(base_folder("qwen3"), adapter="lora"), Run(tiny_copy)
    pipeline.train(run, config)
    expected = trained_files(tiny_copy)
    import yaml

    (tmp_path / "train.yaml").write_text(yaml.safe_dump(dump_config(config)))
    command = [sys.executable, "-m", "genrec", "train", str(tiny_copy), "--config", str(tmp_path / "train.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tiny_copy / "training" / "checkpoint" / "state.json"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    pipeline.train(run, config, resume=True)
    found = trained_files(tiny_copy)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_two_processes_train_both_stages(base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path):
    import yaml

    config = two_stages(base_folder("qwen3"), adapter="lora")
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(dump_config(config)))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += [str(ROOT / "train" / "finetune.py"), str(tmp_path / "train.yaml"), "--run", str(tiny_copy)]
    done = subprocess.run(
        command, env=os.environ | {"ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Run(tiny_copy).stages["train"].config["row_epochs"] == 2
    assert (tiny_copy / "adapter" / "adapter_model.safetensors").is_file()


def test_blocks_that_are_computed_twice_learn_the_same(base_folder: BaseFolder, tiny_copy: Path):
    run, config = Run(tiny_copy), two_stages(base_folder("qwen3"), adapter="lora")
    pipeline.train(run, config)
    expected = trained_files(tiny_copy)
    pipeline.train(run, config.model_copy(update={"gradient_checkpointing": True}))
    found = trained_files(tiny_copy)
    assert all(torch.allclose(found[name], expected[name], atol=1e-4) for name in expected)
    assert not all(torch.equal(weight, torch.zeros_like(weight)) for weight in found.values())


def test_a_pretrained_base_is_treated_gently_unless_the_user_says_otherwise(base_folder: BaseFolder, tiny_copy: Path):
    base = str(base_folder("qwen3"))
    resolved = {
        adapter: resolve_base(TrainConfig(base=base, adapter=adapter))[0] for adapter in ("none", "lora", "prompt")
    }
    assert {one.dropout for one in resolved.values()} == {0.0}
    assert [one.learning_rate for one in resolved.values()] == [5e-5, 5e-4, 3e-3]
    said, _ = resolve_base(TrainConfig(base=base, dropout=0.1, learning_rate=1e-3))
    assert (said.dropout, said.learning_rate) == (0.1, 1e-3)
    for whatever in ("scratch", str(tiny_copy)):  # a run of ours was made with our defaults
        kept, _ = resolve_base(TrainConfig(base=whatever))
        assert (kept.dropout, kept.learning_rate) == (0.25, 3e-3)
    manifest = json.loads((tiny_copy / "manifest.json").read_text())
    manifest["stages"]["train"]["config"]["base"] = base
    (tiny_copy / "manifest.json").write_text(json.dumps(manifest))
    further, _ = resolve_base(TrainConfig(base=str(tiny_copy), adapter="lora"))  # it still is that base
    assert (further.dropout, further.learning_rate) == (0.0, 5e-4)


def test_what_a_sliding_window_cannot_hold_is_refused_before_the_first_step(base_folder: BaseFolder, tiny_copy: Path):
    config = settings(base_folder("gemma3"), max_history_items=100)
    progress = StopAt()
    with pytest.raises(ConfigError, match=r"max_history_items 100.*sliding window of Gemma3\w+ is 128 tokens"):
        pipeline.train(Run(tiny_copy), config, progress=progress)
    assert progress.steps == 0
