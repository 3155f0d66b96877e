"""Ranking and a short training on a GPU: `pytest -m gpu` runs what needs one, skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from genrec.decoding.transformers_engine import TransformersEngine
from tests.decoding.test_prompt_attention import PROMPTS, TRIE, VOCABULARY, check_equal, deepseek, qwen
from tests.training.test_loop import greedy_accuracy, settings, trainer


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    without = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
    return pytest.mark.gpu(without(test))


@on_gpu
@pytest.mark.parametrize("make", [qwen, deepseek])
def test_a_model_ranks_on_a_gpu_as_on_the_cpu(make: Callable[[], torch.nn.Module]) -> None:
    answers = []
    for device in ("cpu", "cuda"):
        engine = TransformersEngine(make().to(device), None, vocabulary=VOCABULARY, remembered_bytes=1 << 20)  # type: ignore[arg-type]
        answers += [engine.rank(PROMPTS, TRIE, beam_width=12, k=12) for _ in range(2)]  # read, and remembered
    for answer in answers[1:]:
        check_equal(answer, answers[0])


@on_gpu
def test_a_training_on_a_gpu_learns_the_cycle(tmp_path: Path) -> None:
    training = trainer(tmp_path, settings(epochs=8, dropout=0.0))
    state = training.run(resume=False)
    assert {parameter.device.type for parameter in training.model.parameters()} == {"cuda"}
    assert state.best_metric == greedy_accuracy(training.model)["recall@10"] == 1.0


def test_the_tests_of_this_file_that_need_a_gpu_are_marked(request: pytest.FixtureRequest) -> None:
    module = request.node.getparent(pytest.Module)
    marked = [item for item in module.collect() if item.get_closest_marker("gpu")]
    assert len(marked) == 3
