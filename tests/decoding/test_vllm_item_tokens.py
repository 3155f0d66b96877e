"""Items' own tokens in vLLM's worker: one more group of tokens, multiplied alone where nothing else is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.decoding.test_vllm_processor import VOCABULARY, RunnerV1, configuration, possible, shortened

pytestmark = pytest.mark.xdist_group("vllm")


def test_items_own_tokens_are_a_group_behind_the_last_level(tmp_path: Path) -> None:
    from genrec.decoding.vllm_local import Scores

    config = configuration(tmp_path)
    replace(VOCABULARY, item_rows=(3, 5, 8), item_share=0.5).save(tmp_path)  # tokens 28 to 30
    runner, scores = RunnerV1(config), Scores(2)
    _, logits, full = shortened(config, runner)
    for row in range(2):
        runner.add(row, {"genrec_level": 3, "genrec_scores": (scores, row)})
    found = logits()
    torch.testing.assert_close(found, full[:, 28:31])
    runner.processor.apply(found)
    np.testing.assert_allclose(scores.collected(), full[:, 28:31].log_softmax(-1).detach().numpy(), rtol=1e-5)
    runner.add(1, {"genrec_level": 1, "genrec_scores": (scores, 1)})
    torch.testing.assert_close(found := logits(), full)  # codes and items in one step
    runner.processor.apply(found)
    runner.add(0, {"genrec_level": 3})
    answered = runner.processor.apply(logits())
    assert possible(answered[0]) == {28, 29, 30}
