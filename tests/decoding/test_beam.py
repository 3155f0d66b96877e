"""The beam loop and the scripted engine: cases small enough to know the answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.decoding.beam import best
from genrec.decoding.scripted import ScriptedEngine, item_scores_script
from genrec.errors import ConfigError, ModelError
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter


@given(st.lists(st.sampled_from([-np.inf, -3.0, -1.0, 0.5, 2.0]), max_size=30), st.integers(1, 12))
def test_best_equals_a_stable_sort(values: list[float], count: int) -> None:
    scores = np.array(values, dtype=np.float32)
    expected = sorted(range(len(values)), key=lambda index: (-values[index], index))[:count]
    assert best(scores, count).tolist() == expected


def test_a_table_of_item_scores_is_returned_as_its_log_softmax() -> None:
    rng = np.random.default_rng(0)
    codes = rng.permutation(64)[:20]
    trie = ItemTrie.build(np.stack([codes // 16, codes // 4 % 4, codes % 4], axis=1), (4, 4, 4))
    scores = rng.normal(size=20)
    engine = ScriptedEngine(item_scores_script(trie, {(7, 8): scores}))
    (found,) = engine.rank([[7, 8]], trie, beam_width=20, k=20)
    order = np.argsort(-scores)
    assert [item.item_index for item in found] == order.tolist()
    np.testing.assert_allclose(
        [item.score for item in found], (scores - np.log(np.exp(scores).sum()))[order], atol=1e-5
    )


def test_equal_scores_are_ordered_by_item_index_even_where_the_beam_is_cut() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(16)
    trie = ItemTrie.build(np.stack([np.zeros(16, int), order], axis=1), (1, 16))
    engine = ScriptedEngine(lambda prompt, codes: np.zeros(16 if codes else 1))
    (found,) = engine.rank([[0]], trie, beam_width=5, k=5)
    assert [item.item_index for item in found] == [0, 1, 2, 3, 4]


def test_users_with_different_numbers_of_beams_do_not_disturb_each_other() -> None:
    codes = np.array([[a, b] for a in range(6) for b in range(6)])
    trie = ItemTrie.build(codes, (6, 6))

    def script(prompt: tuple[int, ...], codes: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([*prompt, 50, *codes]).normal(size=6)

    filters = [ItemFilter.allowing(trie, range(size)) for size in (1, 36, 7, 13)]
    engine = ScriptedEngine(script)
    prompts = [[1], [2], [3], [4]]
    together = engine.rank(prompts, trie, beam_width=4, k=4, allowed=filters)
    alone = [
        engine.rank([prompt], trie, beam_width=4, k=4, allowed=[item_filter])[0]
        for prompt, item_filter in zip(prompts, filters, strict=True)
    ]
    assert together == alone
    assert [len(answer) for answer in together] == [1, 4, 4, 4]


@pytest.mark.parametrize("score_mode", ["level", "raw", "renormalised"])
def test_codes_of_probability_zero_are_minus_infinity_and_never_nan(score_mode: str) -> None:
    trie = ItemTrie.build([[0], [1], [2]], (3,))
    engine = ScriptedEngine(lambda *_: [-np.inf, 0.0, -np.inf], score_mode=score_mode)  # type: ignore[arg-type]
    only_zero = ItemFilter.excluding(trie, [1])
    found = engine.rank([[0], [0]], trie, beam_width=3, k=3, allowed=[None, only_zero])
    assert [(item.item_index, item.score) for item in found[0]] == [(1, 0.0), (0, -np.inf), (2, -np.inf)]
    assert [(item.item_index, item.score) for item in found[1]] == [(0, -np.inf), (2, -np.inf)]


def test_a_model_that_returns_nan_is_an_error() -> None:
    trie = ItemTrie.build([[0], [1]], (2,))
    with pytest.raises(ModelError, match="NaN"):
        ScriptedEngine(lambda *_: [np.nan, 0.0]).rank([[0]], trie, beam_width=2, k=2)


def test_ten_thousand_random_filters_give_only_valid_items() -> None:
    rng = np.random.default_rng(0)
    num_items, num_requests = 300, 10_000
    codes = rng.integers(0, 8, (num_items, 3))
    trie = ItemTrie.build(codes, (8, 8, 8))
    logits = rng.normal(size=(3, 8))
    engine = ScriptedEngine(lambda prompt, codes: logits[len(codes)])
    checked = 0
    for _ in range(num_requests // 100):
        mask = rng.random(num_items) < rng.random() ** 3
        base = ItemFilter.allowing(trie, mask)
        histories = rng.integers(0, num_items, (100, 5))
        filters = [base.without(history) for history in histories]
        found = engine.rank([[1]] * 100, trie, beam_width=4, k=4, allowed=filters)
        for answer, history in zip(found, histories, strict=True):
            valid = set(np.flatnonzero(mask).tolist()) - set(history.tolist())
            items = {item.item_index for item in answer}
            assert items <= valid
            assert len(items) == len(answer) == min(4, len(valid))
            checked += 1
    assert checked == num_requests


def test_scripted_texts_come_in_order_and_are_cut_at_stop_and_limit() -> None:
    engine = ScriptedEngine(lambda *_: [0.0], texts=["one. two", "three", "four"])
    first, second = engine.generate([[1], [2]], max_new_tokens=5, stop=["."])
    assert (first.text, first.finish_reason) == ("one", "stop")
    assert (second.text, second.finish_reason) == ("three", "stop")
    assert "".join(engine.stream([1], max_new_tokens=2)) == "fo"
    with pytest.raises(ConfigError, match="no texts left"):
        engine.generate([[1]], max_new_tokens=1)
    engine.close()
