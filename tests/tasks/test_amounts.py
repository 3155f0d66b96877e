"""How much of each task an epoch reads: by shares of the tokens, or told a number of times in all epochs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from genrec.errors import ConfigError, DataError
from genrec.examples import Example
from tests.tasks.conftest import Tiny


def tokens_by_task(examples: list[Example]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for example in examples:
        counts[example.task] += len(example.tokens)
    return counts


def test_weights_are_shares_of_the_tokens_and_every_history_is_read_once(tiny: Tiny):
    mixture = tiny.mixture({"A1": 0.5, "B1": 0.2, "B2": 0.2, "C2": 0.1})
    examples = mixture.examples(np.random.default_rng(0))
    counts = tokens_by_task(examples)
    whole = sum(counts.values())
    for name, share in {"A1": 0.5, "B1": 0.2, "B2": 0.2, "C2": 0.1}.items():
        assert counts[name] / whole == pytest.approx(share, abs=0.03)
    told = Counter((example.user, item) for example in examples if example.task == "A1" for item in example.items)
    assert set(told.values()) == {1}
    assert sum(told.values()) == len(tiny.data.sequences.items)
    source = mixture.tasks["B1"].source
    assert source is not None
    assert mixture.passes["B1"] == sum(example.task == "B1" for example in examples) / len(source)
    assert mixture.passes["A1"] == 1


def test_a_task_may_be_told_a_number_of_times_in_all_epochs_and_the_others_keep_their_shares(tiny: Tiny):
    mixture = tiny.mixture({"A1": 0.6, "C2": 0.4}, told={"B1": 9, "B2": 2, "A2": 6}, epochs=4)
    rng, things, tokens = np.random.default_rng(0), Counter[tuple[str, int]](), Counter[str]()
    for _ in range(4):
        examples = mixture.examples(rng)
        tokens += tokens_by_task(examples)
        things.update((one.task, one.items[0]) for one in examples if one.task in {"B1", "B2"})
        assert mixture.passes["A2"] == pytest.approx(1.5, abs=0.1)
    source = mixture.tasks["B1"].source
    assert source is not None
    told = {name: [count for (task, _), count in things.items() if task == name] for name in ("B1", "B2")}
    assert sum(told["B1"]) == pytest.approx(9 * len(source), abs=4)
    assert set(told["B1"]) <= {8, 9, 10, 11, 12}  # twice in each epoch, and in a quarter of them a third time
    assert len(told["B1"]) == len(source)
    assert sum(told["B2"]) == pytest.approx(2 * len(source), abs=4)
    assert tokens["C2"] / (tokens["C2"] + tokens["A1"]) == pytest.approx(0.4, abs=0.03)


def test_seldom_told_things_are_told_by_chance(tiny: Tiny):
    mixture = tiny.mixture({"A1": 1.0}, told={"B1": 0.02}, epochs=1)
    assert mixture.tasks["B1"].source is not None
    rng = np.random.default_rng(0)
    counts = [sum(one.task == "B1" for one in mixture.examples(rng)) for _ in range(40)]
    assert set(counts) == {0, 1}  # of 30 items and fewer
    with pytest.raises(DataError, match="task G has nothing to tell of this run"):
        tiny.mixture({"A1": 1.0}, told={"G": 0.1}).examples(rng)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"A1": 3}, "told: A1 is told once in each epoch"),
        ({"B1": 3}, "told: B1 has a share in `tasks`, too"),
        ({"Z9": 3}, "told: there is no Z9"),
    ],
)
def test_what_cannot_be_told_is_one_clear_error(tiny: Tiny, told: dict[str, float], problem: str):
    with pytest.raises(ConfigError, match=problem):
        tiny.mixture({"A1": 0.5, "B1": 0.5}, told=told)
