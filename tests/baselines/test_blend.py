"""Signals against loops over histories, and weights that have to find what the data were made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from genrec.baselines.base import rank_all
from genrec.baselines.blend import Blend, BlendBaseline, _loss, fit_blend, with_network
from genrec.baselines.candidates import Candidates, gather_candidates
from genrec.baselines.signals import Feature, Signals, shapes
from genrec.baselines.two_tower import train_two_tower
from genrec.data.sequences import EvaluationCases, Sequences

NUM_ITEMS = 40


def some_signals(seed: int = 0) -> tuple[Signals, Sequences]:
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, NUM_ITEMS - 1, rng.integers(2, 8)).tolist() for _ in range(60)]  # the last is cold
    sequences = Sequences.from_lists([str(user) for user in range(60)], histories)
    vectors = rng.normal(size=(NUM_ITEMS, 6)).astype(np.float32)
    return Signals(sequences, NUM_ITEMS, vectors=vectors, mask=np.arange(NUM_ITEMS) != 3), sequences


def raw(signals: Signals, history: list[int]) -> dict[str, np.ndarray]:
    return {one.name: one.values[0] for one in signals.raw([np.array(history, np.int32)])}


def test_the_signal_next_counts_what_followed_item_by_item() -> None:
    signals, sequences = some_signals()
    expected = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for history in sequences:
        for place, item in enumerate(history):
            for distance, later in enumerate(history[place + 1 : place + 4], start=1):
                expected[item, later] += 1 / distance
    popularity = np.maximum(np.bincount(sequences.items, minlength=NUM_ITEMS), 1)
    found = raw(signals, [5, 9])["next"]
    wanted = expected[9] * popularity[9] ** -0.5 + 0.5 * expected[5] * popularity[5] ** -0.5
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_signal_common_users_counts_users_and_never_the_item_itself() -> None:
    signals, sequences = some_signals()
    taken = np.zeros((len(sequences), NUM_ITEMS))
    for user, history in enumerate(sequences):
        taken[user, history] = 1
    common = taken.T @ taken
    np.fill_diagonal(common, 0)
    popularity = np.maximum(np.bincount(sequences.items, minlength=NUM_ITEMS), 1.0)
    found = raw(signals, [7])["common users"]
    np.testing.assert_allclose(found, common[7] / np.sqrt(popularity[7] * popularity), rtol=1e-5)


def test_an_item_that_nobody_used_is_reached_through_content_alone() -> None:
    found = raw(some_signals()[0], [1, 2, 30])
    cold = NUM_ITEMS - 1
    assert found["next"][cold] == found["common users"][cold] == found["two steps"][cold] == 0
    assert found["similar to next"][cold] > 0 or found["text mean"][cold] != 0


def test_a_catalogue_without_vectors_has_counts_alone_and_an_empty_history_is_answered() -> None:
    _, sequences = some_signals()
    found = raw(Signals(sequences, NUM_ITEMS), [])
    assert "text mean" not in found
    assert {name for name, values in found.items() if values.any()} == {"popularity", "lateness"}


def test_a_batch_of_signals_equals_single_histories() -> None:
    signals, sequences = some_signals()
    histories = [sequences[user] for user in range(5)] + [np.zeros(0, np.int32)]
    together = {one.name: one.values for one in signals.raw(histories)}
    for row, history in enumerate(histories):
        for name, values in raw(signals, history.tolist()).items():
            np.testing.assert_allclose(together[name][row], values, atol=1e-6)


def test_nothing_said_is_zero_in_every_shape() -> None:
    for group in ("text", "transitions", "popularity"):
        for shape in shapes(Feature(group, "x", np.zeros((1, 3), np.float32)), 0.7):
            assert not shape.values.any()


def random_candidates(seed: int, *, truth: np.ndarray, num_users: int = 400) -> Candidates:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_users * 20, len(truth))).astype(np.float32)
    starts = np.arange(num_users) * 20
    gumbel = rng.gumbel(size=len(features))
    best = (features @ truth + gumbel).reshape(num_users, 20).argmax(axis=1)
    names = tuple(f"f{row}" for row in range(len(truth)))
    return Candidates(features, starts, starts + best, np.full(num_users, 5), names, {})


@pytest.mark.parametrize("q", [1.0, 1 / 3])
def test_the_gradient_of_the_loss_equals_finite_differences(q: float) -> None:
    candidates = random_candidates(0, truth=np.array([1.0, -0.5, 0.3]), num_users=30)
    weights = np.array([0.4, 0.1, -0.2])
    _, slope = _loss(weights, candidates, q)
    for row in range(3):
        step = np.zeros(3)
        step[row] = 1e-2
        above, below = (_loss(weights + sign * step, candidates, q)[0] for sign in (1, -1))
        assert abs((above - below) / 2e-2 - slope[row]) < 1e-3


def test_weights_come_back_from_choices_that_were_drawn_with_them() -> None:
    truth = np.array([1.5, -0.8, 0.0, 0.7])
    blend = fit_blend(random_candidates(1, truth=truth, num_users=3000))
    found = np.array(list(blend.weights.values()))
    # The saturating likelihood finds the direction; it is surer of it than the plain one.
    assert np.linalg.norm(found) > np.linalg.norm(truth)
    np.testing.assert_allclose(found / np.linalg.norm(found), truth / np.linalg.norm(truth), atol=0.05)


def target_chances(blend: Blend, candidates: Candidates) -> np.ndarray:
    """Of every user's target among 20 candidates."""
    columns = [candidates.names.index(name) for name in blend.weights]
    logits = candidates.features[:, columns] @ np.array(list(blend.weights.values()), np.float32)
    if blend.network is not None:
        for start in candidates.starts:
            rows = candidates.features[start : start + 20, columns]
            logits[start : start + 20] += blend.network.scores(rows.T, rows.max(axis=0), 5)
    chances = np.exp(logits.reshape(-1, 20))
    return (chances / chances.sum(axis=1, keepdims=True)).ravel()[candidates.targets]


def test_a_hidden_layer_finds_what_two_signals_say_together() -> None:
    candidates = random_candidates(3, truth=np.array([0.0, 0.0, 0.5]), num_users=8000)
    rng = np.random.default_rng(0)
    together = 3 * (candidates.features[:, 0] > 0.5) * (candidates.features[:, 1] > 0.5)
    wanted = together + candidates.features[:, 2] + rng.gumbel(size=len(together))
    targets = candidates.starts + wanted.reshape(-1, 20).argmax(axis=1)
    candidates = dataclasses.replace(candidates, targets=targets)
    plain = fit_blend(candidates.first(7000))
    layered = with_network(plain, candidates.first(7000))
    unseen = slice(7000, None)
    before, after = (target_chances(blend, candidates)[unseen] for blend in (plain, layered))
    assert after.mean() > 1.2 * before.mean()
    again = with_network(plain, candidates.first(7000))
    assert again.as_json == layered.as_json
    assert Blend.from_json(layered.as_json).as_json == layered.as_json


def test_a_hidden_layer_adds_hardly_anything_where_a_sum_says_it_all() -> None:
    candidates = random_candidates(4, truth=np.array([1.0, -0.5, 0.7]), num_users=2000)
    plain = fit_blend(candidates.first(1000))
    layered = with_network(plain, candidates.first(1000))
    before, after = (np.cbrt(target_chances(blend, candidates)[1000:]).mean() for blend in (plain, layered))
    assert after == pytest.approx(before, rel=0.02)


def test_a_layer_of_the_wrong_shape_is_refused() -> None:
    candidates = random_candidates(5, truth=np.array([1.0, 0.5]), num_users=20)
    values = with_network(fit_blend(candidates), candidates).as_json
    values["network"]["bias"].pop()
    with pytest.raises(ValueError, match="other shapes"):
        Blend.from_json(values)


def test_a_fitted_blend_ranks_targets_that_follow_a_rule_above_popularity() -> None:
    rng = np.random.default_rng(0)
    walks = [[(start + step) % NUM_ITEMS for step in range(6)] for start in rng.integers(0, NUM_ITEMS, 200)]
    sequences = Sequences.from_lists([str(user) for user in range(200)], [walk[:5] for walk in walks])
    cases = EvaluationCases(sequences, np.array([walk[5] for walk in walks], np.int32))
    signals = Signals(sequences, NUM_ITEMS)
    blend = fit_blend(gather_candidates(signals, cases))
    baseline = BlendBaseline(signals, blend)
    ranked = rank_all(baseline, list(cases.histories), 1, num_items=NUM_ITEMS, seed=0)
    assert (ranked[:, 0] == cases.targets).mean() > 0.95
    assert Blend.from_json(blend.as_json).as_json == blend.as_json


def test_what_groups_lift_is_their_part_of_a_sum_above_the_catalogues_average() -> None:
    signals, sequences = some_signals()
    cases = EvaluationCases(sequences, np.array([(history[-1] + 1) % NUM_ITEMS for history in sequences], np.int32))
    blend = fit_blend(gather_candidates(signals, cases))
    lifts = blend.lifts(signals, sequences[0], [4, 9])
    assert set(lifts) == {"transitions", "common users", "two steps", "similar items", "text", "popularity"}
    (scores,) = blend.scores(signals, [sequences[0]])
    np.testing.assert_allclose(sum(lifts.values()), scores[[4, 9]] - scores.mean(), atol=1e-4)


def test_what_a_group_lifts_beside_a_hidden_layer_is_what_the_score_falls_without_it() -> None:
    signals, sequences = some_signals()
    cases = EvaluationCases(sequences, np.array([(history[-1] + 1) % NUM_ITEMS for history in sequences], np.int32))
    candidates = gather_candidates(signals, cases)
    blend = with_network(fit_blend(candidates), candidates)
    assert blend.network is not None
    history = sequences[0]
    (scores,) = blend.scores(signals, [history])
    features = np.stack(
        [shape.values[0] for one in signals.raw([history]) for shape in shapes(one, blend.scales[one.name])], axis=1
    )
    weights = np.array([blend.weights[name] for name in candidates.names], np.float32)
    others = [item for item in range(NUM_ITEMS) if item not in set(history.tolist())]
    best = features[others].max(axis=0)
    expected = features @ weights + blend.network.scores(features.T, best, len(history))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    silent = features.copy()
    columns = [row for row, name in enumerate(candidates.names) if name.startswith("text")]
    silent[:, columns] = features[:, columns].mean(axis=0)
    without = silent @ weights + blend.network.scores(silent.T, best, len(history))
    lifts = blend.lifts(signals, history, others[:3])
    np.testing.assert_allclose(lifts["text"], (expected - without)[others[:3]], atol=1e-4)


def test_candidates_are_never_of_the_history_and_hold_what_every_signal_says() -> None:
    signals, sequences = some_signals()
    targets = np.array([(history[-1] + 1) % NUM_ITEMS for history in sequences], np.int32)
    cases = EvaluationCases(sequences, targets)
    found = gather_candidates(signals, cases)
    drawn = cases.shuffled(0)  # users come as they are drawn
    sequences, targets = drawn.histories, drawn.targets
    outside = [target not in set(history.tolist()) for history, target in zip(sequences, targets, strict=True)]
    assert len(found.starts) == sum(outside)  # in a small catalogue every other item is a candidate
    user = outside.index(True)
    others = sorted(set(range(NUM_ITEMS)) - set(sequences[user].tolist()))
    assert found.lengths[0] == len(sequences[user])
    assert others[found.targets[0]] == targets[user]
    column = found.names.index("popularity, linear")
    expected = raw(signals, sequences[user].tolist())["popularity"][others] / found.scales["popularity"]
    np.testing.assert_allclose(found.features[: len(others), column], expected, rtol=1e-5)


def test_items_that_may_not_teach_are_nobodys_candidates() -> None:
    signals, sequences = some_signals()
    targets = np.array([(history[-1] + 1) % NUM_ITEMS for history in sequences], np.int32)
    held_out = np.arange(NUM_ITEMS) % 4 == 0
    warm = EvaluationCases(sequences, targets).select(~held_out[targets])
    everything = gather_candidates(signals, warm)
    found = gather_candidates(signals, warm, may_teach=~held_out)
    assert len(found.starts) == len(everything.starts)
    assert len(found.features) < 0.85 * len(everything.features)
    column = found.names.index("popularity, linear")
    known = set(everything.features[:, column][everything.targets])
    np.testing.assert_array_equal(found.features[found.targets], everything.features[everything.targets])
    assert known <= set(found.features[:, column])


def test_a_retriever_is_a_signal_of_two_shapes() -> None:
    sequences = some_signals()[1]
    retriever = train_two_tower(sequences, NUM_ITEMS, seed=0).over(NUM_ITEMS)
    history = [np.array([5, 9], np.int32)]
    (signal,) = (
        one for one in Signals(sequences, NUM_ITEMS, retriever=retriever).raw(history) if one.name == "two towers"
    )
    linear, root = shapes(signal, 4.0)
    np.testing.assert_allclose(4 * linear.values, retriever.log_chances(history), rtol=1e-5)
    np.testing.assert_allclose(root.values**3, np.exp(retriever.log_chances(history)), rtol=1e-4)
    assert linear.group == root.group == "retriever"


def test_words_that_titles_share_are_signals_and_titles_that_share_none_are_silent() -> None:
    titles = ["OPI nail lacquer red", "OPI nail lacquer blue", "Red shatter", "Dove soap"]
    sequences = Sequences.from_lists(["a"], [[0, 2]])
    count = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    cosines = (lambda rows: rows @ rows.T)(count.fit_transform(titles).toarray())
    found = raw(Signals(sequences, 4, titles=titles), [0, 2])
    np.testing.assert_allclose(found["words mean"], cosines[2] + 0.5 * cosines[0], atol=1e-6)
    np.testing.assert_allclose(found["words nearest"], np.maximum(cosines[0], cosines[2]), atol=1e-6)
    assert found["words nearest"][1] > 0.8
    assert found["words nearest"][3] == 0
    assert "words mean" not in raw(Signals(sequences, 4, titles=["i1", "i2", "i3", "i4"]), [0])


def test_lateness_is_the_share_of_the_counts_that_stands_near_the_ends() -> None:
    sequences = Sequences.from_lists(["a", "b"], [[0, 1, 2], [0, 2]])
    late, plain = np.array([0.25 + 0.5, 0.5, 2.0, 0.0]), np.array([2, 1, 2, 0])
    average = 3.25 / 5
    found = raw(Signals(sequences, 4), [0])["lateness"]
    np.testing.assert_allclose(found, np.log((late + 2 * average) / ((plain + 2) * average)), rtol=1e-5)
    assert found[3] == 0  # nothing is known of an item that nobody took
    assert found[2] > found[3] > found[0]


def test_lateness_without_any_history_says_nothing() -> None:
    found = raw(Signals(Sequences.from_lists([], []), 4), [0])["lateness"]
    np.testing.assert_array_equal(found, np.zeros(4))


def test_a_signal_that_came_or_went_with_a_changed_catalogue_says_nothing() -> None:
    signals, sequences = some_signals()
    before = Sequences.from_lists([str(user) for user in range(60)], [history[:-1].tolist() for history in sequences])
    cases = EvaluationCases(before, np.array([history[-1] for history in sequences], np.int32))
    blend, histories = fit_blend(gather_candidates(signals, cases)), [np.array([5, 9], np.int32)]
    expected = blend.scores(signals, histories)

    class Changed:
        num_items = NUM_ITEMS

        def __init__(self, *, with_new: bool, without: str = "") -> None:
            self.with_new, self.without = with_new, without

        def raw(self, asked: Sequence[NDArray[np.int32]]) -> Iterator[Feature]:
            yield from (one for one in signals.raw(asked) if one.name != self.without)
            if self.with_new:
                yield Feature("text", "words mean", np.full((len(asked), NUM_ITEMS), 9.0, np.float32))

    np.testing.assert_array_equal(blend.scores(Changed(with_new=True), histories), expected)
    fewer = Changed(with_new=False, without="popularity")
    silent = dataclasses.replace(
        blend, weights={name: 0.0 if name.startswith("popularity") else one for name, one in blend.weights.items()}
    )
    for _ in range(5):  # memory that nobody wrote to would differ
        np.testing.assert_allclose(blend.scores(fewer, histories), silent.scores(signals, histories), atol=1e-5)
    assert "" not in blend.lifts(fewer, histories[0], [4, 7])
