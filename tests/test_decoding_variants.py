"""What a search can be told beyond its filter: widths per level, limits per value, and to say why it took a branch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec import Recommender
from genrec.branches import branches
from genrec.data.attributes import Attribute
from genrec.data.catalog import Catalog
from genrec.decoding.engine import BeamWidth, RankedItem
from genrec.decoding.scripted import ScriptedEngine, item_scores_script
from genrec.errors import ConfigError, TrieError
from genrec.evidence import Evidence
from genrec.live_catalogue import LiveCatalogue
from genrec.prompting import HistoryPrompt
from genrec.rank_request import Limit, RankRequest, rank_with_new, rank_within_limits
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

SIZES = (4, 3, 5)
NUM_ITEMS = 40
GENRES = ["Comedy", "Drama", "War", "Noir"]


def script(prompt: tuple[int, ...], codes: tuple[int, ...]) -> np.ndarray:
    logits = np.random.default_rng([*prompt, 7, *codes]).normal(size=SIZES[len(codes)])
    return np.pad(logits - np.log(np.exp(logits).sum()), (0, 5 - len(logits)), constant_values=-np.inf)


def make_codes() -> np.ndarray:
    every = np.stack(np.meshgrid(*map(np.arange, SIZES), indexing="ij"), axis=-1).reshape(-1, len(SIZES))
    return np.random.default_rng(3).permutation(every)[:NUM_ITEMS]


CODES = make_codes()
TRIE = ItemTrie.build(CODES, SIZES)


def make_recommender(beam_width: BeamWidth = NUM_ITEMS) -> Recommender:
    rng = np.random.default_rng(1)
    table = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(NUM_ITEMS)],
            "title": [f"Title {n}" for n in range(NUM_ITEMS)],
            "genres": random_genres(rng, NUM_ITEMS),
            "shelf": [None if n % 7 == 0 else f"shelf {CODES[n, 0]}" for n in range(NUM_ITEMS)],
        }
    )
    vocabulary = SidVocabulary(SIZES, (10, 14, 17))
    return Recommender(
        Catalog(table),
        TRIE,
        engine=ScriptedEngine(script),
        prompt=HistoryPrompt((900,)),
        item_tokens=vocabulary.token_ids(CODES),
        max_history_items=3,
        beam_width=beam_width,
    )


def by_hand(widths: Sequence[int]) -> dict[tuple[int, ...], float]:
    """Beam search over explicit prefixes: leaf → score of the engine whose script is `script` on prompt (0,)."""
    beams = {(): 0.0}
    valid = set(map(tuple, CODES.tolist()))
    for level in range(len(SIZES)):
        below = {
            (*prefix, code): score + script((0,), prefix)[code]
            for prefix, score in beams.items()
            for code in range(SIZES[level])
            if any(leaf[: level + 1] == (*prefix, code) for leaf in valid)
        }
        kept = sorted(below, key=lambda prefix: -below[prefix])
        beams = {prefix: below[prefix] for prefix in (kept if level == 2 else kept[: widths[level]])}
    return beams


@pytest.mark.parametrize("widths", [(4, 3), (1, 3), (2, 12), (3, 3)])
def test_each_level_keeps_as_many_beams_as_it_was_given(widths: tuple[int, int]) -> None:
    k = min(widths)
    (found,) = ScriptedEngine(script).rank([[0]], TRIE, beam_width=widths, k=k)
    expected = sorted(by_hand(widths).items(), key=lambda pair: -pair[1])[:k]
    assert [tuple(CODES[item.item_index].tolist()) for item in found] == [leaf for leaf, _ in expected]
    np.testing.assert_allclose([item.score for item in found], [score for _, score in expected], atol=1e-5)
    if widths[0] == widths[1]:
        assert ScriptedEngine(script).rank([[0]], TRIE, beam_width=widths[0], k=k) == [found]


def test_a_width_may_be_any_kind_of_integer() -> None:
    expected = make_recommender(5).recommend(["i1"], k=7)
    assert make_recommender(np.int64(5)).recommend(["i1"], k=7) == expected  # type: ignore[arg-type]
    widths = (np.int64(5), np.int32(5))
    assert make_recommender(widths).recommend(["i1"], k=np.int64(7)) == expected  # type: ignore[arg-type]


def test_widths_that_do_not_fit_the_levels_are_refused() -> None:
    engine = ScriptedEngine(script)
    with pytest.raises(ConfigError, match=r"3 numbers, \(4, 4, 4\); expected one for each of 3 levels but the last: 2"):
        engine.rank([[0]], TRIE, beam_width=(4, 4, 4), k=1)
    with pytest.raises(ConfigError, match=r"k is 3 and beam_width is \(2, 9\)"):
        engine.rank([[0]], TRIE, beam_width=(2, 9), k=3)


def test_a_recommender_with_widths_per_level_widens_all_of_them_for_more_items() -> None:
    recommender = make_recommender((4, 3))
    assert recommender.narrowest == 3
    assert len(recommender.recommend(["i1"], k=20)) == 20


def test_the_trail_of_an_item_are_the_scores_of_its_prefixes_also_with_evidence() -> None:
    evidence = Evidence.from_mass(TRIE, np.arange(NUM_ITEMS) + 1.0, weight=0.7)
    for beside in (None, [evidence]):
        (found,) = ScriptedEngine(script).rank([[0]], TRIE, beam_width=NUM_ITEMS, k=NUM_ITEMS, evidence=beside)
        assert len(found) == NUM_ITEMS
        for item in found:
            codes = tuple(CODES[item.item_index].tolist())
            steps = [script((0,), codes[:level])[codes[level]] for level in range(3)]
            np.testing.assert_allclose(item.trail, np.cumsum(steps), atol=1e-5)
            assert item.trail[-1] == item.model_score


def random_genres(rng: np.random.Generator, num_items: int) -> list[list[str]]:
    return [[GENRES[g] for g in np.flatnonzero(rng.random(4) < 0.4)] for _ in range(num_items)]


def greedy(ranking: list[RankedItem], limits: Sequence[Limit], k: int) -> list[int]:
    """The definition: read the whole ranking from the top."""
    used, taken = [Counter[int]() for _ in limits], []
    for item in ranking:
        values = [limit.attribute.of_row(item.item_index) for limit in limits]
        counted = list(zip(limits, used, values, strict=True))
        if all(count[value] < limit.count for limit, count, own in counted for value in own):
            taken.append(item.item_index)
            for _, count, own in counted:
                count.update(own)
    return taken[:k]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    k=st.integers(1, 12),
)
def test_an_answer_within_limits_is_the_whole_ranking_read_from_the_top(seed: int, counts: list[int], k: int) -> None:
    rng = np.random.default_rng(seed)
    cells = [pl.Series(random_genres(rng, NUM_ITEMS)) for _ in counts]
    limits = tuple(Limit(Attribute.of("genres", one), count) for one, count in zip(cells, counts, strict=True))
    engine = ScriptedEngine(script)
    allowed = ItemFilter.allowing(TRIE, rng.random(NUM_ITEMS) < 0.8)
    history = rng.integers(0, NUM_ITEMS, 3).astype(np.int32)
    requests = [RankRequest(history, allowed=allowed, limits=limits), RankRequest(history)]

    def rank(asked: Sequence[RankRequest], count: int) -> list[list[RankedItem]]:
        assert not any(request.limits for request in asked)
        filters = [request.filter(TRIE) for request in asked]
        return engine.rank([[0]] * len(asked), TRIE, beam_width=NUM_ITEMS, k=count, allowed=filters)

    limited, plain = rank_within_limits(rank, requests, k, trie=TRIE)
    (everything,) = rank([RankRequest(history, allowed=allowed)], NUM_ITEMS)
    assert [item.item_index for item in limited] == greedy(everything, limits, k)
    assert plain == rank([RankRequest(history)], k)[0]


def test_at_most_so_many_of_a_kind_in_a_catalogue_of_thousands_is_its_ranking_read_from_the_top() -> None:
    rng, number = np.random.default_rng(5), 4000
    # Two genres out of 60, half of the items of one brand out of 40, and the best items are of the same few.
    genres = [[f"g{g}" for g in rng.choice(60, 2, replace=False, p=np.arange(60, 0, -1) / 1830)] for _ in range(number)]
    brands = [None if rng.random() < 0.5 else f"b{rng.integers(40)}" for _ in range(number)]
    table = {"item_id": [f"i{n}" for n in range(number)], "title": ["T"] * number, "genres": genres, "brand": brands}
    scores = rng.normal(size=number) - 0.1 * np.array([min(int(genre[1:]) for genre in own) for own in genres])
    codes = np.stack(np.unravel_index(np.arange(number), (20, 200)), axis=1)
    trie = ItemTrie.build(codes, (20, 200))
    recommender = Recommender(
        Catalog(pl.DataFrame(table)),
        trie,
        engine=ScriptedEngine(item_scores_script(trie, {(900,): scores})),
        prompt=HistoryPrompt((900,)),
        item_tokens=codes,
        max_history_items=3,
        beam_width=number,
    )
    found = recommender.recommend([], k=100, at_most={"genres": 4, "brand": 2})
    used, expected = Counter[str](), []
    for row in np.argsort(-scores, kind="stable").tolist():
        brand = [] if brands[row] is None else [brands[row]]
        if all(used[genre] < 4 for genre in genres[row]) and all(used[one] < 2 for one in brand):
            used.update([*genres[row], *brand])
            expected.append(f"i{row}")
    assert [item.item_id for item in found] == expected[:100]
    assert len(found) == min(100, len(expected)) > 50


def test_no_genre_comes_more_often_than_asked_for() -> None:
    recommender = make_recommender()
    genres = dict(zip(recommender.catalog.item_ids, recommender.catalog.table["genres"].to_list(), strict=True))
    free = recommender.recommend(["i1"], k=10)
    spread = recommender.recommend(["i1"], k=10, at_most={"genres": 2})
    counts = Counter(genre for item in spread for genre in genres[item.item_id])
    assert max(counts.values()) == 2 < max(Counter(g for item in free for g in genres[item.item_id]).values())
    assert [item.score for item in spread] == sorted((item.score for item in spread), reverse=True)
    with pytest.raises(ConfigError, match="at most 0 items of a value"):
        recommender.recommend(["i1"], at_most={"genres": 0})
    with pytest.raises(ConfigError, match="no attribute 'colour'"):
        recommender.recommend(["i1"], at_most={"colour": 1})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), k=st.integers(1, 15), few=st.booleans())
def test_a_share_of_new_items_is_kept_in_every_first_places_and_the_order_of_both_kinds_stays(
    seed: int, share: float, k: int, few: bool
) -> None:
    rng = np.random.default_rng(seed)
    new = rng.random(NUM_ITEMS) < (0.05 if few else 0.4)
    engine = ScriptedEngine(script)
    allowed = ItemFilter.allowing(TRIE, rng.random(NUM_ITEMS) < 0.7) if seed % 2 else None
    history = rng.integers(0, NUM_ITEMS, 3).astype(np.int32)
    requests = [RankRequest(history, allowed=allowed, new_share=share), RankRequest(history)]

    def rank(asked: Sequence[RankRequest], count: int) -> list[list[RankedItem]]:
        assert not any(request.new_share for request in asked)
        filters = [request.filter(TRIE) for request in asked]
        return engine.rank([[0]] * len(asked), TRIE, beam_width=NUM_ITEMS, k=count, allowed=filters)

    shared, plain = rank_with_new(rank, requests, k, trie=TRIE, new=new)
    assert plain == rank([RankRequest(history)], k)[0]
    whole = [item.item_index for item in rank([RankRequest(history, allowed=allowed)], NUM_ITEMS)[0]]
    found = [item.item_index for item in shared]
    assert len(found) == len(set(found)) == min(k, len(whole))
    for kind in (new, ~new):  # each kind is read from the top of the whole ranking
        mine = [item for item in found if kind[item]]
        assert mine == [item for item in whole if kind[item]][: len(mine)]
    available = sum(new[item] for item in whole)
    for places in range(1, len(found) + 1):
        held = sum(new[item] for item in found[:places])
        assert held >= min(int(share * places), available)
        # No more than the share asks for, but where the ranking itself has them there, or nothing else is left.
        if held > max(int(share * places + 1e-9), sum(new[item] for item in whole[:places])):
            assert all(not new[item] or item in found for item in whole[:places])
            assert places > sum(~new[item] for item in whole)


def test_a_share_of_new_items_needs_to_know_them_and_goes_alone() -> None:
    recommender = make_recommender()
    with pytest.raises(ConfigError, match="which items are new is not known"):
        recommender.recommend(["i1"], new_share=0.2)
    with pytest.raises(ConfigError, match="is no share of new items"):
        recommender.recommend(["i1"], new_share=1.5)
    with pytest.raises(ConfigError, match="asked for together"):
        recommender.recommend(["i1"], new_share=0.2, at_most={"genres": 1})


def test_branches_name_each_step_its_chance_its_items_and_what_they_have_in_common() -> None:
    recommender = make_recommender()
    (ranked,) = recommender.rank([RankRequest(np.array([1], np.int32))], 5)
    tokens = tuple(recommender.prompt_tokens(np.array([1], np.int32)))
    for item in ranked:
        codes = CODES[item.item_index]
        steps = recommender.branches(item)
        assert [step.code for step in steps] == codes.tolist()
        for level, step in enumerate(steps):
            below = (CODES[:, : level + 1] == codes[: level + 1]).all(axis=1)
            assert step.num_items == below.sum()
            expected = np.exp(script(tokens, tuple(codes[:level].tolist()))[codes[level]])
            assert step.chance == pytest.approx(expected, abs=1e-5)
        (shelf,) = (one for one in steps[0].common if one.attribute == "shelf")  # the first code is the shelf here
        assert shelf.value == f"shelf {codes[0]}"
        assert shelf.share >= 0.5
        assert steps[-1].common == ()
    hopeless = RankedItem(ranked[0].item_index, -np.inf, "level", -np.inf, trail=(-1.0, -np.inf, -np.inf))
    assert [step.chance for step in recommender.branches(hopeless)][1:] == [0.0, 0.0]
    merged = RankedItem(0, -1.0, "level", -1.0)
    with pytest.raises(ConfigError, match="merged from several searches"):
        recommender.branches(merged)


def test_branches_of_an_item_that_was_removed_and_of_lists_with_empty_places() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    table = pl.DataFrame(
        {"item_id": list("abcd"), "title": list("abcd"), "genres": [["X", None], ["X", None], ["Y"], ["Y"]]}
    )
    ranked = RankedItem(0, -1.0, "level", -1.0, trail=(-0.5, -0.4999999))
    steps = branches(LiveCatalogue(Catalog(table), ItemTrie.build(codes, (2, 2)), codes), ranked)
    assert [(one.attribute, one.value) for one in steps[0].common] == [("genres", "X")]
    assert [step.chance <= 1 for step in steps] == [True, True]
    left = ItemTrie.build(codes, (2, 2), live=np.array([False, True, True, True]))
    with pytest.raises(ConfigError, match="was removed since it was ranked"):
        branches(LiveCatalogue(Catalog(table), left, codes), ranked)


def test_a_limit_of_another_catalogue_is_refused() -> None:
    recommender = make_recommender()
    limits = (Limit(Attribute.of("genres", pl.Series(["X", "Y"])), 1),)
    with pytest.raises(TrieError, match="made for another catalogue"):
        recommender.rank([RankRequest(np.array([1], np.int32), limits=limits)], 3)
