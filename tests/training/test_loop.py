"""The training loop: it learns, stops, resumes after a kill to the last digit, alone and in two processes.

Run as a program, `test_loop.py PROGRAMS` trains the same tiny task in processes of its own (see `main`): importing
PyTorch takes longer than all the training here, so that one process imports it and forks the others.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from genrec.config import ScratchConfig, TrainConfig, dump_config
from genrec.data.sequences import Sequences
from genrec.errors import ConfigError, ModelError
from genrec.examples import Example, history_examples
from genrec.progress import SILENT, Progress, Task
from genrec.training.loop import Trainer, TrainingTask, learning_rate
from genrec.training.model import scratch_model
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import extend_tokenizer

NUM_ITEMS = 8
CODES = np.array([[item % 4, item // 4] for item in range(NUM_ITEMS)], dtype=np.uint16)
TOKENIZER = train_text_tokenizer(["Items:"], 300)
VOCABULARY = extend_tokenizer(TOKENIZER, (4, 2))
PROMPT = TOKENIZER.encode("Items:")
ITEM_TOKENS = VOCABULARY.token_ids(CODES)
SHAPE = ScratchConfig(hidden_size=32, layers=1, heads=2, intermediate_size=32, text_vocabulary=300)


def settings(**changes: Any) -> TrainConfig:
    """Three epochs of about seven steps, with dropout; `changes` say otherwise."""
    quick = {"epochs": 3, "validate_every": 1, "patience": 100, "batch_tokens": 256, "learning_rate": 1e-2}
    quick |= {"precision": "float32", "dropout": 0.1}
    return TrainConfig.model_validate({"scratch": SHAPE, **quick, **changes})


def tiny_model(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return scratch_model(SHAPE, TOKENIZER)


def cyclic_examples(rng: np.random.Generator) -> list[Example]:
    """Everybody goes round the same cycle 0, 1, …, 7, 0, …; windows are cut anew in every epoch."""
    fixed = np.random.default_rng(0)
    starts, lengths = fixed.integers(0, NUM_ITEMS, size=50), fixed.integers(4, 20, size=50)
    histories = [
        [(start + step) % NUM_ITEMS for step in range(length)] for start, length in zip(starts, lengths, strict=True)
    ]
    sequences = Sequences.from_lists([str(user) for user in range(50)], histories)
    return history_examples(sequences, prompts=[PROMPT], item_tokens=ITEM_TOKENS, max_items=8, rng=rng)


def full_rows(_rng: np.random.Generator) -> list[Example]:
    """Eight examples, each as long as a row and with as many targets as any other."""
    rng = np.random.default_rng(5)
    examples = []
    for _ in range(8):
        tokens = np.concatenate([PROMPT, ITEM_TOKENS[rng.integers(0, NUM_ITEMS, size=128)].ravel()])[:256]
        examples.append(Example(tokens, np.arange(256) >= len(PROMPT)))
    return examples


def greedy_accuracy(model: PreTrainedModel) -> Mapping[str, float]:
    """How often the likeliest codes after two items are the third of the cycle."""
    right = 0
    for start in range(NUM_ITEMS):
        tokens = [*PROMPT, *ITEM_TOKENS[start], *ITEM_TOKENS[(start + 1) % NUM_ITEMS]]
        for first, size in zip(VOCABULARY.first_token_ids, VOCABULARY.codebook_sizes, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens], device=model.device)).logits[0, -1]
            tokens.append(first + int(logits[first : first + size].argmax()))
        right += tokens[-2:] == ITEM_TOKENS[(start + 2) % NUM_ITEMS].tolist()
    return {"recall@10": right / NUM_ITEMS}


class Watcher:
    """Progress that calls `at(step)` after every micro-batch, before a checkpoint is written."""

    def __init__(self, at: Callable[[int], None] = lambda step: None) -> None:
        self.at, self.step, self.done, self.total, self.lines = at, 0, 0, 0, list[str]()

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def track(self, label: str, total: int, unit: str) -> Iterator[Task]:
        self.total = total
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.step, self.done = self.step + 1, self.done + amount
        self.at(self.step)


def trainer(
    folder: Path,
    config: TrainConfig,
    *,
    make_examples: Callable[[np.random.Generator], list[Example]] = cyclic_examples,
    validate: Callable[[], Mapping[str, float]] | None = None,
    model: PreTrainedModel | None = None,
    progress: Progress = SILENT,
) -> Trainer:
    model = tiny_model() if model is None else model
    # As the pipeline has it: the clock of checkpoints is no part of what is trained here, so that tests can vary it.
    identity = dump_config(config.model_copy(update={"checkpoint_seconds": 0}))
    task = TrainingTask(
        make_examples=make_examples,
        validate=validate or (lambda: greedy_accuracy(model)),
        max_example_tokens=max(len(example.tokens) for example in make_examples(np.random.default_rng(0))),
        vocabulary=VOCABULARY,
        identity=identity,
    )
    return Trainer(model, config, task, folder=folder, progress=progress)


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}


def same_weights(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cycle_is_learned(tmp_path: Path, precision: str):
    training = trainer(tmp_path, settings(epochs=8, dropout=0.0, precision=precision))
    before = greedy_accuracy(training.model)["recall@10"]
    state = training.run(resume=False)
    assert before < 0.5
    assert state.best_metric == 1.0
    losses = [entry["loss"] for entry in state.history]
    assert losses[-1] < 0.25 * losses[0]
    assert state.epoch == len(losses) == 8
    assert state.step > 8 * 3


def run_with(folder: Path, figures: list[float], config: TrainConfig) -> tuple[Any, Any, list[Any]]:
    """A training whose validations give these figures: its state, its weights, and those at each validation."""
    model, seen, left = tiny_model(), [], iter(figures)

    def validate() -> Mapping[str, float]:
        assert not model.training
        seen.append(weights(model))
        return {"recall@10": next(left), "ndcg@10": 0.0}

    return trainer(folder, config, validate=validate, model=model).run(resume=False), weights(model), seen


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best_weights(tmp_path: Path):
    state, kept, seen = run_with(tmp_path, [0.2, 0.5, 0.5, 0.4, 0.9], settings(epochs=9, patience=2))
    assert [entry["recall@10"] for entry in state.history] == [0.2, 0.5, 0.5, 0.4]  # an equal one is no better
    assert (state.best_metric, state.best_epoch, state.finished) == (0.5, 2, True)
    assert same_weights(kept, seen[1])
    assert not same_weights(seen[1], seen[3])


def test_the_last_weights_are_kept_where_that_is_asked_for_and_nothing_stops_before(tmp_path: Path):
    state, kept, seen = run_with(tmp_path, [0.9, 0.5, 0.4, 0.3], settings(epochs=4, patience=1, keep="last"))
    assert (state.epoch, state.best_epoch, state.finished) == (4, 1, False)
    assert same_weights(kept, seen[-1])
    assert not same_weights(kept, seen[0])


def test_a_training_that_had_stopped_has_nothing_left_to_do(tmp_path: Path):
    config = settings(epochs=9, patience=1)
    first = trainer(tmp_path, config, validate=lambda: {"recall@10": 0.5})
    first.run(resume=False)
    again = trainer(tmp_path, config, validate=lambda: pytest.fail("validated again"))
    state = again.run(resume=True)
    assert (state.epoch, state.best_epoch) == (2, 1)
    assert same_weights(weights(first.model), weights(again.model))


def test_validation_comes_every_so_many_epochs_and_after_the_last(tmp_path: Path):
    state = trainer(tmp_path, settings(epochs=5, validate_every=2)).run(resume=False)
    assert [int(entry["epoch"]) for entry in state.history if "recall@10" in entry] == [2, 4, 5]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_interrupted_after_every_step_it_ends_with_the_same_digits(tmp_path: Path, accumulation: int):
    config = settings(checkpoint_seconds=0, gradient_accumulation=accumulation)
    undisturbed = trainer(tmp_path / "undisturbed", config)
    expected = undisturbed.run(resume=False)

    def stop_at_second_step(step: int) -> None:
        if step == 1 + accumulation:
            raise KeyboardInterrupt

    interruptions = 0
    while True:
        training = trainer(tmp_path / "disturbed", config, progress=Watcher(stop_at_second_step))
        try:
            state = training.run(resume=True)
        except KeyboardInterrupt:
            interruptions += 1
            assert interruptions < 2 * expected.step
            continue
        break
    assert interruptions >= expected.step // accumulation - 3
    assert state.history == expected.history
    assert state.step == expected.step
    assert same_weights(weights(training.model), weights(undisturbed.model))


KILL_STEPS = (1, *np.random.default_rng(2026).integers(2, 20, size=2).tolist(), 17)
CLOCKS = (0.0, 0.0, 0.0, 1e9)  # a checkpoint after every step, or with a slow clock after every epoch
# The clocks of processes differ: here the first saves after every step and the second only after epochs.
TOGETHER = [settings(dropout=0.0, batch_tokens=256, checkpoint_seconds=seconds) for seconds in (0.0, 1e9)]


@pytest.fixture(scope="module")
def programs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where four trainings were killed (`killed-0`, …) and one ran in two processes (`two`)."""
    folder = tmp_path_factory.mktemp("programs")
    alone = [
        {
            "folder": str(folder / f"killed-{index}"),
            "config": dump_config(settings(checkpoint_seconds=clock)),
            "kill": step,
        }
        for index, (step, clock) in enumerate(zip(KILL_STEPS, CLOCKS, strict=True))
    ]
    together = [{"folder": str(folder / "two"), "config": dump_config(config)} for config in TOGETHER]
    done = subprocess.run(
        [sys.executable, __file__, json.dumps([alone, together])],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [-signal.SIGKILL] * 4 + [0, 0], done.stderr
    return folder


@pytest.mark.parametrize("case", range(4))
def test_killed_and_resumed_it_ends_with_the_same_digits(case: int, programs_folder: Path, tmp_path: Path):
    config = settings(checkpoint_seconds=CLOCKS[case])
    expected = trainer(tmp_path, config).run(resume=False)
    steps_per_epoch = expected.step // 3
    assert 1 < steps_per_epoch < KILL_STEPS[3] < expected.step
    watcher = Watcher()
    state = trainer(programs_folder / f"killed-{case}", config, progress=watcher).run(resume=True)
    # The kill came before the checkpoint of its step.
    kept = KILL_STEPS[case] - 1
    kept -= kept % steps_per_epoch if CLOCKS[case] else 0
    assert watcher.step == expected.step - kept
    assert [repr(entry["loss"]) for entry in state.history] == [repr(entry["loss"]) for entry in expected.history]
    assert state.history == expected.history


def test_a_resume_with_other_settings_is_refused_and_a_fresh_start_is_not(tmp_path: Path):
    trainer(tmp_path, settings(epochs=1)).run(resume=False)
    with pytest.raises(ConfigError, match=r"learning_rate \(0\.01 then, 0\.02 now\)"):
        trainer(tmp_path, settings(epochs=1, learning_rate=2e-2)).run(resume=True)
    assert trainer(tmp_path, settings(epochs=1, learning_rate=2e-2)).run(resume=False).epoch == 1


def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path):
    model = tiny_model()
    model.get_input_embeddings().weight.data[PROMPT[0]] = float("nan")
    with pytest.raises(ModelError, match="the loss is nan at epoch 1, step 0"):
        trainer(tmp_path, settings(), model=model).run(resume=False)


def test_any_seed_that_the_configuration_takes_can_be_trained_with(tmp_path: Path):
    histories = [trainer(tmp_path, settings(epochs=1, seed=seed)).run(resume=False).history for seed in (0, 2**32 - 1)]
    assert histories[0][0]["loss"] != histories[1][0]["loss"]  # other windows, other order, other dropout


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_the_learning_rate_rises_in_a_line_and_falls_to_a_twentieth(warmup: float):
    config = settings(learning_rate=3e-3, warmup=warmup)
    places = np.linspace(0, 1, 2001)
    rates = np.array([learning_rate(config, float(place)) for place in places])
    rising = places < warmup
    assert rates.max() == pytest.approx(3e-3, rel=1e-6)
    assert rates.min() > 0
    assert rates[-1] == pytest.approx(3e-3 / 20)
    np.testing.assert_allclose(np.diff(rates[rising], 2), 0, atol=1e-12)
    assert (np.diff(rates[rising]) > 0).all()
    assert (np.diff(rates[~rising]) < 0).all()
    assert np.abs(np.diff(rates)).max() < (3e-3 / 50)  # no jump where one becomes the other
    middle = learning_rate(config, warmup + (1 - warmup) / 2)
    assert middle == pytest.approx(3e-3 * (1 + 1 / 20) / 2)


def test_matrices_decay_and_gains_do_not(tmp_path: Path):
    training = trainer(tmp_path, settings(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in training.optimizer.param_groups for p in group["params"]}
    assert {decay[id(weight)] for weight in training.model.parameters() if weight.ndim == 2} == {0.3}
    assert {decay[id(weight)] for weight in training.model.parameters() if weight.ndim == 1} == {0.0}
    assert len(decay) == len(list(training.model.parameters()))


def test_a_full_memory_is_said_with_what_takes_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    training = trainer(tmp_path, settings())
    monkeypatch.setattr(training.loss, "forward", full)
    with pytest.raises(ModelError, match="memory is full: CUDA out of memory") as caught:
        training.run(resume=False)
    assert "batch_tokens" in caught.value.hint


def test_progress_and_tensorboard_show_the_training(tmp_path: Path):
    watcher = Watcher()
    state = trainer(tmp_path, settings(), progress=watcher).run(resume=False)
    assert watcher.done == watcher.total == state.step
    assert watcher.step == state.step
    assert [line.split()[1] for line in watcher.lines] == ["1/3", "2/3", "3/3"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    rates = [event.value for event in log.Scalars("learning_rate")]
    assert len(rates) == state.step
    assert max(rates) == pytest.approx(1e-2, rel=0.02)
    logged = [event.value for event in log.Scalars("recall@10")]
    assert logged == pytest.approx([entry["recall@10"] for entry in state.history])


def weight_sums(model: PreTrainedModel) -> list[float]:
    return [float(weight.detach().abs().sum()) for weight in model.parameters()]


def test_two_processes_train_as_one_with_batches_of_double_size(programs_folder: Path, tmp_path: Path):
    alone = trainer(tmp_path, settings(dropout=0.0, batch_tokens=512), make_examples=full_rows)
    expected = alone.run(resume=False)
    found = json.loads((programs_folder / "two" / "result.json").read_text())
    assert found["step"] == expected.step == 12
    assert found["recall"] == [entry["recall@10"] for entry in expected.history]
    np.testing.assert_allclose(found["weight_sums"], weight_sums(alone.model), rtol=1e-3)


def test_a_training_of_two_processes_is_not_resumed_by_one(programs_folder: Path):
    with pytest.raises(ConfigError, match=r"num_processes \(2 then, None now\)"):
        trainer(programs_folder / "two", TOGETHER[0], make_examples=full_rows).run(resume=True)


def main(alone: Sequence[Mapping[str, Any]], together: Sequence[Mapping[str, Any]]) -> None:
    """Train `alone` one after the other and `together` as one training; print the exit statuses as the last line."""
    statuses = [exit_status(start(program, cyclic_examples)) for program in alone]
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(together))}
    children = []
    for rank, program in enumerate(together):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        children.append(start(program, full_rows))
    statuses += [exit_status(child) for child in children]
    print(f"\n{json.dumps(statuses)}")


def start(program: Mapping[str, Any], make_examples: Callable[[np.random.Generator], list[Example]]) -> int:
    """Fork a process that trains as `program` says; `kill` is the step that ends it, as `kill -9` does."""
    child = os.fork()
    if child:
        return child
    signal.alarm(150)  # a training that hangs must not outlive the test

    def kill(step: int) -> None:
        if step == program.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)

    config = TrainConfig.model_validate(program["config"])
    training = trainer(Path(program["folder"]), config, make_examples=make_examples, progress=Watcher(kill))
    state = training.run(resume=False)
    if training.accelerator.is_main_process:
        recall = [entry["recall@10"] for entry in state.history]
        result = {"step": state.step, "recall": recall, "weight_sums": weight_sums(training.model)}
        (training.folder / "result.json").write_text(json.dumps(result))
    os._exit(0)


def exit_status(child: int) -> int:
    """Wait for a process; the signal that ended it as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
