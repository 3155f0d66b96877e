"""What every engine promises, against scoring every item of the catalogue one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genrec.decoding.engine import ScoreMode
from genrec.errors import ConfigError, TrieError
from genrec.evidence import Evidence, Join
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from tests.contracts.cases import PARAMETERS, PROMPTS, Case, case, check_answer, exhaustive, random_codes
from tests.contracts.spelling import SIZES, WITH_ITEMS, WithItemPrompts


def test_a_beam_as_wide_as_the_catalogue_equals_exhaustive_scoring(engine_case: Case) -> None:
    codes = random_codes(0, 45)  # of 60 IDs: some items share one
    trie = ItemTrie.build(codes, SIZES)
    for k in (45, 7):
        found = engine_case.engine.rank(PROMPTS, trie, beam_width=45, k=k)
        for prompt, answer in zip(PROMPTS, found, strict=True):
            check_answer(engine_case, answer, exhaustive(engine_case, prompt, codes, np.ones(45, bool)), k)


@settings(max_examples=40, deadline=None)
@given(num_items=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("names", PARAMETERS)
def test_random_tries_and_filters_equal_exhaustive_scoring(
    names: tuple[str, ScoreMode], num_items: int, seed: int
) -> None:
    engine_case, rng = case(*names), np.random.default_rng(seed)
    codes = random_codes(seed, num_items)
    trie = ItemTrie.build(codes, SIZES)
    filters: list[ItemFilter | None] = [None]
    masks = [np.ones(num_items, bool)]
    for _ in PROMPTS[1:]:
        mask = rng.random(num_items) < rng.random()
        history = rng.integers(0, num_items, 3)
        filters.append(ItemFilter.allowing(trie, mask).without(history))
        mask[history] = False
        masks.append(mask)
    found = engine_case.engine.rank(PROMPTS, trie, beam_width=num_items, k=num_items, allowed=filters)
    for prompt, answer, mask in zip(PROMPTS, found, masks, strict=True):
        check_answer(engine_case, answer, exhaustive(engine_case, prompt, codes, mask), num_items)


def test_a_narrow_beam_returns_valid_items_in_order_and_its_own_scores(engine_case: Case) -> None:
    codes = random_codes(1, 50)
    trie = ItemTrie.build(codes, SIZES)
    mask = np.arange(50) % 3 == 0
    allowed = [ItemFilter.allowing(trie, mask)] * len(PROMPTS)
    for prompt, answer in zip(
        PROMPTS, engine_case.engine.rank(PROMPTS, trie, beam_width=3, k=3, allowed=allowed), strict=True
    ):
        scores = exhaustive(engine_case, prompt, codes, mask)
        assert len(answer) == 3
        check_answer(engine_case, answer, {item.item_index: scores[item.item_index] for item in answer}, 3)


def test_a_batch_answers_as_single_prompts_do_and_twice_the_same(engine_case: Case) -> None:
    codes = random_codes(2, 30)
    trie = ItemTrie.build(codes, SIZES)
    together = engine_case.engine.rank(PROMPTS, trie, beam_width=10, k=5)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        (alone,) = engine_case.engine.rank([prompt], trie, beam_width=10, k=5)
        assert [item.item_index for item in alone] == [item.item_index for item in answer]
        np.testing.assert_allclose([i.score for i in alone], [i.score for i in answer], atol=1e-4)
    assert engine_case.engine.rank(PROMPTS, trie, beam_width=10, k=5) == together


def test_fewer_valid_items_than_k_give_fewer_and_none_give_none(engine_case: Case) -> None:
    codes = random_codes(3, 30)
    trie = ItemTrie.build(codes, SIZES)
    filters = [
        ItemFilter.allowing(trie, [4, 9]),
        ItemFilter.allowing(trie, np.zeros(30, bool)),
        ItemFilter.excluding(trie, np.arange(29)),
        ItemFilter.allowing(trie, [4]).without([4]),
    ]
    found = engine_case.engine.rank(PROMPTS, trie, beam_width=20, k=20, allowed=filters)
    assert [sorted(item.item_index for item in answer) for answer in found] == [[4, 9], [], [29], []]
    assert engine_case.engine.rank(PROMPTS[:1], trie, beam_width=5, k=5, allowed=[filters[1]]) == [[]]
    assert engine_case.engine.rank([], trie, beam_width=5, k=5) == []


def test_requests_that_make_no_sense_are_refused(engine_case: Case) -> None:
    trie = ItemTrie.build(random_codes(4, 10), SIZES)
    other = ItemTrie.build(random_codes(5, 10), SIZES)
    engine = engine_case.engine
    with pytest.raises(ConfigError, match="k is 6 and beam_width is 5"):
        engine.rank(PROMPTS, trie, beam_width=5, k=6)
    with pytest.raises(ConfigError, match="1 filters were given for 4"):
        engine.rank(PROMPTS, trie, beam_width=5, k=5, allowed=[None])
    for width, k in (([5, 5], 5), (5, 2.0), (0, 1)):
        with pytest.raises(ConfigError, match=r"a beam of|k is 2\.0"):
            engine.rank(PROMPTS, trie, beam_width=width, k=k)  # type: ignore[arg-type]
    if not isinstance(engine, WithItemPrompts):
        with pytest.raises(ConfigError, match="1 item prompts were given for 4"):
            engine.rank(PROMPTS, trie, beam_width=5, k=5, item_prompts=[None])
    with pytest.raises(TrieError, match="another trie"):
        engine.rank(PROMPTS[:1], trie, beam_width=5, k=5, allowed=[ItemFilter.excluding(other, [1])])


def test_tokens_that_no_longer_stand_for_their_items_say_nothing_of_them(engine_case: Case) -> None:
    codes, engine = random_codes(7, 20), engine_case.engine
    if not isinstance(engine, WithItemPrompts):
        return
    trie, whole, own = ItemTrie.build(codes, SIZES), {"beam_width": 20, "k": 20}, np.arange(20) != 2
    by_codes = engine.alone.rank(PROMPTS, trie, **whole)
    for own_items in (own, np.zeros(20, bool)):
        changed = engine.rank(PROMPTS, trie, **whole, own_items=own_items)
        for prompt, answer, spelled, both in zip(
            PROMPTS, changed, by_codes, engine.rank(PROMPTS, trie, **whole), strict=True
        ):
            score, codes_say, before = ({i.item_index: i.score for i in one} for one in (answer, spelled, both))
            if len(prompt) == 1 or (engine_case.score_mode == "renormalised" and not own_items.any()):
                expected = codes_say[2]  # nobody asked for items' own tokens, or none is left
            else:
                expected = codes_say[2] + np.log(1 - WITH_ITEMS.item_share)
            assert score[2] == pytest.approx(expected, abs=2e-4)
            if own_items.any() and engine_case.score_mode != "renormalised":
                assert score[3] == pytest.approx(before[3], abs=2e-4)


def joined(
    case: Case, scores: dict[int, float], mass: NDArray[np.float64], *, weight: float, join: Join
) -> dict[int, float]:
    """What model scores become with evidence of `mass` per item, by the definition and item by item."""
    total = mass.sum()
    if case.score_mode == "renormalised":
        total = sum(mass[item] for item in scores)
    together = {}
    with np.errstate(divide="ignore"):
        for item, score in scores.items():
            share = mass[item] / total if total > 0 else 0.0
            if weight == 0 or (total == 0 and case.score_mode == "renormalised"):
                together[item] = score
            elif join == "product":
                together[item] = score + weight * float(np.log(share))
            else:
                together[item] = float(np.log((1 - weight) * np.exp(score) + weight * share))
    return together


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), min_size=len(PROMPTS), max_size=len(PROMPTS)),
    joins=st.lists(st.sampled_from(["mixture", "product", None]), min_size=len(PROMPTS), max_size=len(PROMPTS)),
)
@pytest.mark.parametrize("names", PARAMETERS)
def test_evidence_under_random_tries_and_filters_equals_scoring_item_by_item(
    names: tuple[str, ScoreMode], num_items: int, seed: int, weights: list[float], joins: list[Join | None]
) -> None:
    engine_case, rng = case(*names), np.random.default_rng(seed)
    codes = random_codes(seed, num_items)  # up to 40 of 60 IDs: items share leaves and have evidence of their own
    trie = ItemTrie.build(codes, SIZES)
    masks = rng.random((len(PROMPTS), num_items)) < rng.random((len(PROMPTS), 1)) * 1.5
    masses = rng.gamma(0.3, size=(len(PROMPTS), num_items)) * (rng.random((len(PROMPTS), num_items)) < 0.9)
    evidence = [
        None if join is None else Evidence.from_mass(trie, mass, weight=weight, join=join)
        for mass, weight, join in zip(masses, weights, joins, strict=True)
    ]
    found = engine_case.engine.rank(
        PROMPTS,
        trie,
        beam_width=num_items,
        k=num_items,
        allowed=[ItemFilter.allowing(trie, mask) for mask in masks],
        evidence=evidence,
    )
    for prompt, answer, mask, mass, weight, join in zip(PROMPTS, found, masks, masses, weights, joins, strict=True):
        alone = exhaustive(engine_case, prompt, codes, mask)
        knows = join == "mixture" or (join == "product" and mass[mask].any())  # else the model is left alone
        expected = joined(engine_case, alone, mass, weight=weight, join=join) if join and knows else alone
        check_answer(engine_case, answer, expected, num_items)
        assert all(abs(item.model_score - alone[item.item_index]) < 2e-4 for item in answer)


def test_evidence_finds_the_item_that_a_narrow_beam_of_the_model_alone_loses(engine_case: Case) -> None:
    codes = random_codes(6, 40)
    trie = ItemTrie.build(codes, SIZES)
    alone = engine_case.engine.rank(PROMPTS, trie, beam_width=2, k=2)
    for prompt, answer in zip(PROMPTS, alone, strict=True):
        scores = exhaustive(engine_case, prompt, codes, np.ones(40, bool))
        last = min(scores, key=lambda item: scores[item])
        assert last not in {item.item_index for item in answer}
        sure = Evidence.from_scores(trie, np.where(np.arange(40) == last, 30.0, 0.0), weight=1.0)
        (found,) = engine_case.engine.rank([prompt], trie, beam_width=2, k=2, evidence=[sure])
        assert found[0].item_index == last


def test_evidence_that_makes_no_sense_is_refused(engine_case: Case) -> None:
    trie = ItemTrie.build(random_codes(4, 10), SIZES)
    other = ItemTrie.build(random_codes(5, 10), SIZES)
    evidence = Evidence.from_mass(other, np.ones(10), weight=0.5)
    with pytest.raises(TrieError, match="made for another trie"):
        engine_case.engine.rank(PROMPTS[:1], trie, beam_width=5, k=5, evidence=[evidence])
    with pytest.raises(ConfigError, match="evidence for 1 users was given for 4"):
        engine_case.engine.rank(PROMPTS, trie, beam_width=5, k=5, evidence=[None])
