"""The tiny run as tasks see it: its data, its trained model's tokenizer, and a mixture of any weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from genrec.config import TrainConfig
from genrec.explanation.lessons import lesson_sources
from genrec.prompting import default_prompts
from genrec.run import Run
from genrec.tasks.data import TaskData, load_task_data
from genrec.tasks.loading import SOURCES, load_mixture
from genrec.tasks.mixture import Mixture
from genrec.vocabulary import SidVocabulary


class Tiny(NamedTuple):
    """What the tests of tasks start from."""

    run: Run
    tokenizer: PreTrainedTokenizerFast
    vocabulary: SidVocabulary
    item_tokens: NDArray[np.int64]
    data: TaskData
    mixture: Callable[..., Mixture]


def open_run(path: Path) -> Tiny:
    """A trained run as `Tiny`."""
    run = Run(path)
    tokenizer = AutoTokenizer.from_pretrained(path / "model")
    vocabulary = SidVocabulary.load(path / "model")
    item_tokens = vocabulary.token_ids(np.load(path / "semantic_ids" / "codes.npy"))

    def mixture(
        weights: dict[str, float],
        *folders: Path,
        max_items: int = 6,
        word_noise: float = 0.0,
        example_tokens: int = 128,
        replay: tuple[str, ...] = (),
        told: dict[str, float] | None = None,
        epochs: int = 8,
    ) -> Mixture:
        return load_mixture(
            run,
            TrainConfig(
                tasks=weights,
                told=told or {},
                epochs=epochs,
                max_history_items=max_items,
                example_tokens=example_tokens,
                word_noise=word_noise,
                replay=replay,
            ),
            folders=[default_prompts(), *folders],
            tokenizer=tokenizer,
            item_tokens=item_tokens,
            sources={**SOURCES, **lesson_sources(run, [default_prompts()])},
        )

    return Tiny(run, tokenizer, vocabulary, item_tokens, load_task_data(run, item_tokens), mixture)


@pytest.fixture(scope="session")
def tiny(tiny_run: Path) -> Tiny:
    return open_run(tiny_run)
