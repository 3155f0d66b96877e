"""Evidence: scores and masses over items, before any search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.decoding.scripted import ScriptedEngine, item_scores_script
from genrec.errors import ConfigError
from genrec.evidence import Evidence, EvidenceTerms, Join
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter


def random_trie(seed: int, num_rows: int = 30) -> ItemTrie:
    rng = np.random.default_rng(seed)
    live = rng.random(num_rows) < 0.8
    live[0] = True
    return ItemTrie.build(rng.integers(0, 4, (num_rows, 3)), (4, 4, 4), live=live)


@given(st.integers(0, 10_000))
def test_the_mass_of_every_node_is_the_sum_of_its_allowed_items(seed: int) -> None:
    rng, trie = np.random.default_rng(seed), random_trie(seed)
    mass = rng.gamma(0.2, size=30)
    allowed = ItemFilter.allowing(trie, rng.random(30) < 0.5)
    evidence = Evidence.from_mass(trie, mass, weight=1.0)
    terms = EvidenceTerms.compile([evidence], [allowed], renormalise=False, num_items=trie.num_items)
    assert terms is not None
    nodes = np.sort(rng.integers(0, trie.num_items + 1, (20, 2)), axis=1)
    inside = [trie.items[position] for position in range(trie.num_items)]
    admitted = allowed.admits(np.arange(trie.num_items))
    for lo, hi in nodes:
        expected = sum(mass[inside[position]] for position in range(lo, hi) if admitted[position])
        found = terms.join_nodes(np.zeros(1, int), np.array([lo]), np.array([hi]), np.zeros(1, np.float32))
        np.testing.assert_allclose(np.exp(found), expected / mass[trie.items].sum(), atol=1e-6)


def test_scores_become_a_softmax_over_the_items_of_the_trie() -> None:
    trie = random_trie(0)
    scores = np.random.default_rng(1).normal(size=30)
    scores[trie.items[2]] = -np.inf
    evidence = Evidence.from_scores(trie, scores, weight=0.5)
    expected = np.exp(scores[trie.items])
    np.testing.assert_allclose(evidence.mass, expected / expected.sum(), atol=1e-12)
    assert evidence.mass[2] == 0


def test_a_finite_score_always_leaves_the_model_a_chance() -> None:
    trie = ItemTrie.build([[0], [1]], (2,))
    evidence = Evidence.from_scores(trie, [0.0, -1e9], weight=0.5)
    assert 0 < evidence.mass[1] < 1e-12


def test_what_stands_behind_many_good_items_keeps_its_place_in_the_search() -> None:
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 16, (6000, 4)), axis=0)[:5000]
    trie = ItemTrie.build(codes, (16,) * 4)
    scores = np.where(rng.permutation(len(codes)) < 2000, 0.0, -40.0)  # 2,000 equally good, the others hopeless
    terms = EvidenceTerms.compile(
        [Evidence.from_scores(trie, scores, weight=0.1)], [None], renormalise=False, num_items=trie.num_items
    )
    assert terms is not None
    each = np.arange(trie.num_items)
    nothing = np.zeros(trie.num_items, np.float32)
    found = terms.join_nodes(np.zeros_like(each), each, each + 1, nothing)
    np.testing.assert_allclose(found, terms.join_items(np.zeros_like(each), each, nothing), atol=0.01)


@pytest.mark.parametrize("allowed", [None, [True, False, True]])
def test_a_product_with_nothing_that_is_allowed_leaves_the_model_alone(allowed: list[bool] | None) -> None:
    trie = ItemTrie.build([[0], [1], [2]], (3,))
    engine = ScriptedEngine(item_scores_script(trie, {(0,): [0.2, 0.3, 0.5]}))
    evidence = Evidence.from_mass(trie, [0.0, 0.0 if allowed is None else 1.0, 0.0], weight=1.0)
    asked = None if allowed is None else [ItemFilter.allowing(trie, np.array(allowed))]
    [found] = engine.rank([[0]], trie, beam_width=3, k=3, allowed=asked, evidence=[evidence])
    [alone] = engine.rank([[0]], trie, beam_width=3, k=3, allowed=asked)
    assert found == alone


def test_a_draw_beside_a_product_with_nothing_that_is_allowed_is_one_from_the_model() -> None:
    trie, draws = ItemTrie.build([[0], [1], [2]], (3,)), 2000
    chances = np.array([0.2, 0.3, 0.5])
    engine = ScriptedEngine(item_scores_script(trie, {(0,): np.log(chances)}))
    nothing = Evidence.from_mass(trie, [0.0, 0.0, 0.0], weight=3.0)
    seeds = [np.random.default_rng([1, draw]) for draw in range(draws)]
    evidence = [Evidence.drawing(trie, rng, beside=nothing) for rng in seeds]
    found = engine.rank([[0]] * draws, trie, beam_width=3, k=1, evidence=evidence)
    seen = np.bincount([answer[0].item_index for answer in found], minlength=3) / draws
    np.testing.assert_allclose(seen, chances, atol=0.05)
    assert np.isfinite([answer[0].score for answer in found]).all()


def test_chances_add_up_to_one_also_where_a_mixture_knows_no_allowed_item() -> None:
    trie = ItemTrie.build([[0], [1], [2]], (3,))
    engine = ScriptedEngine(item_scores_script(trie, {(0,): np.log([0.2, 0.3, 0.5])}), score_mode="renormalised")
    mixture = Evidence.from_mass(trie, [0.0, 1.0, 0.0], weight=0.6, join="mixture")
    allowed = ItemFilter.allowing(trie, np.array([True, False, True]))
    [found] = engine.rank([[0]], trie, beam_width=3, k=3, allowed=[allowed], evidence=[mixture])
    assert sum(np.exp(item.score) for item in found) == pytest.approx(1, rel=1e-5)


def test_numbers_whose_sum_is_too_large_are_evidence_all_the_same() -> None:
    trie = ItemTrie.build([[0], [1], [2]], (3,))
    np.testing.assert_allclose(Evidence.from_mass(trie, [1e308, 1e308, 0], weight=1.0).mass, [0.5, 0.5, 0])


def test_evidence_that_forbids_everything_has_no_mass() -> None:
    trie = ItemTrie.build([[0], [1]], (2,))
    assert not Evidence.from_scores(trie, [-np.inf, -np.inf], weight=0.5).mass.any()
    assert not Evidence.from_mass(trie, [0.0, 0.0], weight=0.5).mass.any()


@pytest.mark.parametrize("mass", [[1.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 1.0]]])
def test_mass_that_is_no_mass_is_refused(mass: list[float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Evidence.from_mass(ItemTrie.build([[0], [1]], (2,)), mass, weight=0.5)


@pytest.mark.parametrize("scores", [[1.0], [1.0, np.nan], [1.0, np.inf]])
def test_scores_that_are_no_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Evidence.from_scores(ItemTrie.build([[0], [1]], (2,)), scores, weight=0.5)


@pytest.mark.parametrize(
    ("join", "weight"),
    [("mixture", -0.1), ("mixture", 1.1), ("product", -1.0), ("product", np.inf), ("mixture", np.nan)],
)
def test_a_weight_outside_its_range_is_refused(join: str, weight: float) -> None:
    trie = ItemTrie.build([[0], [1]], (2,))
    with pytest.raises(ConfigError, match="weight of evidence"):
        Evidence.from_mass(trie, [1.0, 1.0], weight=weight, join=join)  # type: ignore[arg-type]


@pytest.mark.parametrize("join", [None, "product", "mixture"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_drawn_items_come_in_the_order_of_draws_without_replacement(join: Join | None, temperature: float) -> None:
    rng, draws = np.random.default_rng(0), 4000
    trie = ItemTrie.build([[0, 0], [0, 1], [1, 0], [1, 1]], (2, 2))
    scores, known = rng.normal(size=4), rng.normal(size=4)
    evidence = Evidence.from_scores(trie, known, weight=0.7, join=join) if join is not None else None
    engine = ScriptedEngine(item_scores_script(trie, {(1,): scores}))
    found = engine.rank(
        [[1]] * draws,
        trie,
        beam_width=4,
        k=2,
        evidence=[
            Evidence.drawing(trie, np.random.default_rng([5, draw]), beside=evidence, temperature=temperature)
            for draw in range(draws)
        ],
    )
    model, beside = (np.exp(one) / np.exp(one).sum() for one in (scores, known))
    joined = {None: model, "product": model * beside**0.7, "mixture": 0.3 * model + 0.7 * beside}[join]
    chances = joined ** (1 / temperature)
    chances /= chances.sum()
    pairs = np.array([[item.item_index for item in answer] for answer in found])
    for first in range(4):
        for second in set(range(4)) - {first}:
            expected = chances[first] * chances[second] / (1 - chances[first])
            seen = ((pairs[:, 0] == first) & (pairs[:, 1] == second)).mean()
            assert abs(seen - expected) < 4 * np.sqrt(expected / draws)


@pytest.mark.parametrize("join", ["product", "mixture"])
@pytest.mark.parametrize("renormalise", [False, True])
def test_a_drawn_node_scores_what_its_allowed_items_make_wherever_they_stand(join: Join, renormalise: bool) -> None:
    rng, trie, model = np.random.default_rng(3), random_trie(1), np.float32(-2.0)
    beside = Evidence.from_mass(trie, rng.gamma(0.3, size=30), weight=0.1, join=join)
    drawn = Evidence.drawing(trie, rng, beside=beside, temperature=1.0 if join == "product" else 10.0)
    allowed = ItemFilter.allowing(trie, rng.random(30) < 0.7)
    terms = EvidenceTerms.compile([drawn], [allowed], renormalise=renormalise, num_items=trie.num_items)
    assert terms is not None
    assert drawn.noise is not None
    admitted = allowed.admits(np.arange(trie.num_items))
    mass = np.where(admitted, beside.mass, 0.0)
    with np.errstate(divide="ignore"):
        logs = np.where(admitted, np.log(mass) + drawn.noise / 0.1 if join == "product" else drawn.noise, -np.inf)
    logs -= np.logaddexp.reduce(logs) if renormalise and join == "product" else 0.0
    mass /= mass.sum() if renormalise else 1.0
    nodes = [(lo, hi) for lo in range(trie.num_items) for hi in (lo + 1, trie.num_items) if admitted[lo:hi].any()]
    lo, hi = np.array(nodes).T
    found = terms.join_nodes(np.zeros(len(nodes), int), lo, hi, np.full(len(nodes), model))
    for node, (start, end) in enumerate(nodes):
        noise = np.logaddexp.reduce(logs[start:end])
        mixture = np.log(0.9 * np.exp(model) + 0.1 * mass[start:end].sum()) + noise
        np.testing.assert_allclose(found[node], mixture if join == "mixture" else model + 0.1 * noise, rtol=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_a_draw_beside_a_small_weight_finds_what_the_model_wants_before_and_behind_other_items(order: int) -> None:
    # One item that the model wants by far, 99 others on the other branch, and one beam.
    codes = np.array([*([order < 0, code] for code in range(99)), [order > 0, 0]], dtype=int)
    trie = ItemTrie.build(codes, (2, 99))
    script = np.full((2, 99), -np.inf)
    script[0, :2], script[1] = np.array([-30.0, 0.0])[::order], -np.log(99)
    engine = ScriptedEngine(lambda prompt, path: script[len(path)], score_mode="raw")
    beside = Evidence.from_mass(trie, np.ones(100), weight=0.1)
    draws = [Evidence.drawing(trie, np.random.default_rng(seed), beside=beside) for seed in range(100)]
    found = engine.rank([[1]] * 100, trie, beam_width=1, k=1, evidence=draws)
    assert {answer[0].item_index for answer in found} == {99}


def test_a_draw_that_makes_no_sense_is_refused() -> None:
    trie = ItemTrie.build([[0], [1]], (2,))
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="cannot be drawn"):
        Evidence.drawing(trie, rng, temperature=0.0)
    with pytest.raises(ConfigError, match="cannot be drawn"):
        Evidence.drawing(trie, rng, beside=Evidence.from_mass(trie, [1.0, 1.0], weight=0.0))


@pytest.mark.parametrize("join", ["mixture", None])
def test_forbidden_items_draw_no_beam_towards_them(join: Join | None) -> None:
    # Two allowed items of one probability, one of them beside 98 forbidden ones, and one beam.
    trie = ItemTrie.build([*([0, code] for code in range(99)), [1, 0]], (2, 99))
    script = np.full((2, 99), -np.inf)
    script[0, :2], script[1] = np.log(0.5), 0.0
    engine = ScriptedEngine(lambda prompt, codes: script[len(codes)], score_mode="raw")
    allowed = ItemFilter.allowing(trie, np.isin(np.arange(100), [0, 99]))
    beside = None if join is None else Evidence.from_mass(trie, np.ones(100), weight=0.5, join=join)
    draws = [Evidence.drawing(trie, np.random.default_rng(seed), beside=beside) for seed in range(100)]
    found = engine.rank([[1]] * 100, trie, beam_width=1, k=1, allowed=[allowed] * 100, evidence=draws)
    first = sum(answer[0].item_index == 0 for answer in found)
    assert 35 < first < 65  # three standard deviations


def test_a_draw_beside_a_mixture_leaves_the_others_of_the_search_alone() -> None:
    trie = ItemTrie.build([[0, 0], [0, 1], [1, 0], [1, 1]], (2, 2))
    scores = np.array([0.1, 0.4, 0.3, 0.2])
    engine = ScriptedEngine(item_scores_script(trie, {(1,): scores}))
    mixed = Evidence.from_mass(trie, [1.0, 2.0, 3.0, 4.0], weight=0.5, join="mixture")
    drawn = Evidence.drawing(trie, np.random.default_rng(1), beside=mixed, temperature=5.0)
    product = Evidence.from_mass(trie, [1.0, 2.0, 3.0, 4.0], weight=0.5)
    found = engine.rank([[1]] * 4, trie, beam_width=4, k=4, evidence=[mixed, drawn, product, None])
    for row, one in ((0, mixed), (2, product), (3, None)):
        (alone,) = engine.rank([[1]], trie, beam_width=4, k=4, evidence=[one])
        assert found[row] == alone
    assert [item.item_index for item in found[1]] != [item.item_index for item in found[0]]
