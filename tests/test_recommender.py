"""Recommender: histories of item ids in, recommendations out, against scoring every item one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from genrec import Recommender
from genrec.data.catalog import Catalog
from genrec.decoding.scripted import ScriptedEngine
from genrec.errors import ConfigError, RunError, TrieError, UnknownItemError
from genrec.evidence import Evidence
from genrec.evidence_source import EvidenceSource
from genrec.prompting import HistoryPrompt
from genrec.run import Run
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary

SIZES = (4, 3, 5)
BEFORE = (900, 901)
NUM_ITEMS = 24
VOCABULARY = SidVocabulary(SIZES, (10, 14, 17))


def script(prompt: tuple[int, ...], codes: tuple[int, ...]) -> np.ndarray:
    """A made-up model: log-probabilities that depend on every token before them."""
    logits = np.random.default_rng([*prompt, 7, *codes]).normal(size=SIZES[len(codes)])
    values = np.full(max(SIZES), -np.inf)
    values[: len(logits)] = logits - np.log(np.exp(logits).sum())
    return values


def make_codes() -> np.ndarray:
    every = np.stack(np.meshgrid(*map(np.arange, SIZES), indexing="ij"), axis=-1).reshape(-1, len(SIZES))
    return np.random.default_rng(3).permutation(every)[:NUM_ITEMS]


def make_recommender(*, beam_width: int = NUM_ITEMS, max_history_items: int = 3) -> Recommender:
    table = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(NUM_ITEMS)],
            "title": [f"Title {n}" for n in range(NUM_ITEMS)],
            "year": [None if n == 5 else 1990 + n % 4 for n in range(NUM_ITEMS)],
            "rating": [n % 3 / 2 for n in range(NUM_ITEMS)],
            "sold_out": [n % 2 == 0 for n in range(NUM_ITEMS)],
            "genres": [["Comedy", "Drama", "War"][: 1 + n % 3] if n != 7 else None for n in range(NUM_ITEMS)],
        }
    )
    codes = make_codes()
    return Recommender(
        Catalog(table),
        ItemTrie.build(codes, SIZES),
        engine=ScriptedEngine(script),
        prompt=HistoryPrompt(BEFORE),
        item_tokens=VOCABULARY.token_ids(codes),
        max_history_items=max_history_items,
        beam_width=beam_width,
    )


def exhaustive(history: Sequence[int], *, keep: Callable[[int], bool] = lambda item: True) -> list[str]:
    """Ids of all items outside the history, best first, each scored on its own; 3 history items are read."""
    codes = make_codes()
    prompt = (*BEFORE, *VOCABULARY.token_ids(codes[list(history)[-3:]]).ravel().tolist())
    scores = {
        item: sum(script(prompt, tuple(row[:level].tolist()))[row[level]] for level in range(len(SIZES)))
        for item, row in enumerate(codes)
        if item not in history and keep(item)
    }
    return [f"i{item}" for item in sorted(scores, key=lambda item: (-scores[item], item))]


def ids(recommendations: Sequence[object]) -> list[str]:
    return [recommendation.item_id for recommendation in recommendations]


@pytest.mark.parametrize("history", [[], [4], [9, 2, 11], [1, 2, 3, 4, 5, 6]])
def test_a_beam_as_wide_as_the_catalogue_ranks_like_scoring_every_item(history: list[int]) -> None:
    answer = make_recommender().recommend([f"i{item}" for item in history], k=NUM_ITEMS)
    assert ids(answer) == exhaustive(history)
    assert [item.rank for item in answer] == list(range(1, len(answer) + 1))
    assert [item.score for item in answer] == sorted((item.score for item in answer), reverse=True)
    assert all(item.title == f"Title {item.item_id[1:]}" for item in answer)


def test_a_list_of_histories_gives_the_answers_that_each_gives_alone() -> None:
    recommender = make_recommender(beam_width=5)
    rng = np.random.default_rng(0)
    histories = [[f"i{item}" for item in rng.permutation(NUM_ITEMS)[: n % 6]] for n in range(70)]
    answers = recommender.recommend(histories, k=4)
    assert len(answers) == 70
    assert answers == [recommender.recommend(history, k=4) for history in histories]


def test_one_new_user_no_users_and_a_list_with_one_new_user_are_told_apart() -> None:
    recommender = make_recommender()
    alone = recommender.recommend([], k=3)
    assert ids(alone) == exhaustive([])[:3]
    assert recommender.recommend([[]], k=3) == [alone]
    assert recommender.rank([], 3) == []


def test_items_of_the_history_and_excluded_items_never_come_up() -> None:
    answer = make_recommender().recommend(["i1", "i2", "i2"], k=NUM_ITEMS, exclude=["i3", "i2", "i20"])
    assert ids(answer) == exhaustive([1, 2, 2], keep=lambda item: item not in {3, 20})


@pytest.mark.parametrize(
    ("allow", "keep"),
    [
        ({"year": 1991}, lambda n: n % 4 == 1 and n != 5),
        ({"year": "1991"}, lambda n: n % 4 == 1 and n != 5),
        ({"year": [1991, 1993]}, lambda n: n % 4 in {1, 3} and n != 5),
        ({"rating": 1}, lambda n: n % 3 == 2),
        ({"sold_out": True}, lambda n: n % 2 == 0),
        ({"genres": "War"}, lambda n: n % 3 == 2),
        ({"genres": ["War", "Drama"]}, lambda n: n % 3 >= 1 and n != 7),
        ({"genres": "Drama", "year": 1992}, lambda n: n % 3 >= 1 and n != 7 and n % 4 == 2),
        ({"item_id": ["i3", "i8"]}, lambda n: n in {3, 8}),
        ({"year": []}, lambda n: False),
        ({"year": 1800}, lambda n: False),
        ({}, lambda n: True),
    ],
)
def test_allow_keeps_exactly_the_items_with_the_attributes(allow: dict, keep: Callable[[int], bool]) -> None:
    recommender = make_recommender()
    for _ in range(2):  # the second time from the compiled filter
        answer = recommender.recommend(["i1", "i8"], k=NUM_ITEMS, exclude=["i2"], allow=allow)
        assert ids(answer) == exhaustive([1, 8], keep=lambda item: item != 2 and keep(item))


def test_fewer_than_k_come_back_where_fewer_are_allowed() -> None:
    recommender = make_recommender()
    assert len(recommender.recommend(["i0"], k=10, allow={"item_id": ["i0", "i1", "i2"]})) == 2
    assert recommender.recommend(["i0"], k=10, allow={"item_id": ["i0"]}) == []


def test_asking_for_more_items_than_beams_widens_the_beam() -> None:
    assert ids(make_recommender(beam_width=1).recommend(["i4"], k=NUM_ITEMS)) == exhaustive([4])


def test_a_long_history_is_cut_at_its_oldest_items() -> None:
    recommender = make_recommender(max_history_items=2)
    tokens = VOCABULARY.token_ids(make_codes())
    prompt = recommender.prompt_tokens(np.array([5, 6, 7], dtype=np.int32))
    assert prompt == [*BEFORE, *tokens[6].tolist(), *tokens[7].tolist()]


def test_unknown_items_are_named() -> None:
    recommender = make_recommender()
    with pytest.raises(UnknownItemError, match="nobody"):
        recommender.recommend(["i1", "nobody"])
    with pytest.raises(UnknownItemError, match="never-made"):
        recommender.recommend([["i1"], ["i2"]], exclude=["never-made"])


def test_an_unknown_attribute_is_named_beside_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no attribute 'colour'.*year.*genres"):
        make_recommender().recommend(["i1"], allow={"colour": "red"})


@pytest.mark.parametrize("history", ["i1", [["i1"], "i2"], [1, 2], [["i1"], [2]], [["i1"], None]])
def test_a_history_that_is_not_a_list_of_ids_is_refused(history: object) -> None:
    with pytest.raises(ConfigError, match="list of item ids"):
        make_recommender().recommend(history)


def test_one_string_is_refused_where_a_list_of_items_to_exclude_is_wanted() -> None:
    with pytest.raises(ConfigError, match="list of item ids"):
        make_recommender().recommend(["i1"], exclude="i2")


def test_an_attribute_cannot_be_asked_for_with_a_mapping() -> None:
    with pytest.raises(ConfigError, match="year"):
        make_recommender().recommend(["i1"], allow={"year": {"min": 1990}})


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 0"):
        make_recommender().recommend(["i1"], k=0)


def test_an_engine_that_does_not_exist_is_named_beside_those_that_do(tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"no engine 'abacus'.*transformers"):
        Recommender.load(tiny_run, "abacus")


def test_the_scripted_double_serves_a_real_run_with_other_codebooks_refused(tiny_run: Path) -> None:
    vocabulary = SidVocabulary.load(tiny_run / "model")
    common = {"engine": ScriptedEngine(lambda prompt, codes: np.zeros(8)), "prompt": HistoryPrompt((1,))}
    recommender = Recommender.assemble(Run(tiny_run), vocabulary=vocabulary, max_history_items=4, **common)
    assert len(recommender.recommend(["i1"], k=7)) == 7
    other = SidVocabulary((9, 9), (0, 9))
    with pytest.raises(TrieError, match="tokenized again"):
        Recommender.assemble(Run(tiny_run), vocabulary=other, max_history_items=4, **common)


def test_a_trie_of_another_catalogue_is_refused_also_under_a_live_model(tiny_copy: Path) -> None:
    vocabulary = SidVocabulary.load(tiny_copy / "model")
    codes = np.load(tiny_copy / "semantic_ids" / "codes.npy")
    ItemTrie.build(codes, vocabulary.codebook_sizes, order_checksum="other").save(tiny_copy / "trie")
    engine = ScriptedEngine(lambda prompt, codes: np.zeros(8))
    with pytest.raises(TrieError, match="another catalogue"):
        Recommender.assemble(
            Run(tiny_copy), engine=engine, vocabulary=vocabulary, prompt=HistoryPrompt((1,)), max_history_items=4
        )


def test_a_model_is_not_used_with_codes_that_were_made_while_it_was_read(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genrec import pipeline, recommender
    from genrec.config import TokenizeConfig

    opened = recommender.open_engine

    def slow(*given: Any, **options: Any) -> Any:
        engine = opened(*given, **options)
        run = Run.open(tiny_copy)
        config = TokenizeConfig.model_validate(run.stages["tokenize"].config)
        pipeline.tokenize(run, config.model_copy(update={"seed": 5}))
        return engine

    monkeypatch.setattr(recommender, "open_engine", slow)
    with pytest.raises(RunError, match="tokenized again while its model was read"):
        Recommender.load(tiny_copy)


def test_a_score_mode_that_does_not_exist_is_refused(tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match="no score mode 'renormalized'") as caught:
        Recommender.load(tiny_run, score_mode=cast(Any, "renormalized"))
    assert "renormalised" in caught.value.hint


@pytest.mark.parametrize("history", [None, 5, "i1", [["i1"], "i2"], [["i1"], 3]])
def test_what_is_no_history_is_refused(history: Any) -> None:
    with pytest.raises(ConfigError, match="a history is a list of item ids"):
        make_recommender().recommend(history)


def test_a_trie_of_another_catalogue_is_refused(tiny_copy: Path) -> None:
    vocabulary = SidVocabulary.load(tiny_copy / "model")
    codes = np.load(tiny_copy / "semantic_ids" / "codes.npy")
    ItemTrie.build(codes, vocabulary.codebook_sizes, order_checksum="other").save(tiny_copy / "trie")
    with pytest.raises((TrieError, RunError), match=r"CURRENT is not what .*genrec tokenize"):
        Recommender.load(tiny_copy)


def make_view(*, order_seed: int = 5, checksum: str = "", live: np.ndarray | None = None) -> Recommender:
    """The same items with other codes, and so another opinion of them."""
    whole = make_recommender()
    codes = np.random.default_rng(order_seed).permutation(make_codes())
    return Recommender(
        whole.catalog,
        ItemTrie.build(codes, SIZES, order_checksum=checksum, live=live),
        engine=ScriptedEngine(script),
        prompt=HistoryPrompt(BEFORE),
        item_tokens=VOCABULARY.token_ids(codes),
        max_history_items=3,
        beam_width=NUM_ITEMS,
    )


class Liking:
    """Evidence that likes the later items of the catalogue, multiplied in."""

    join, weight = "product", 1.0

    def evidence(self, histories: Sequence[np.ndarray], trie: ItemTrie) -> list[Evidence]:
        return [Evidence.from_scores(trie, np.arange(NUM_ITEMS) / 4, weight=5.0) for _ in histories]


@pytest.mark.parametrize("which", ["own", "view"])
def test_a_view_that_evidence_multiplies_has_as_much_to_say_as_one_without(which: str) -> None:
    liking, plain = make_recommender().with_evidence(cast(EvidenceSource, Liking())), make_view()
    first, second = (liking, plain) if which == "own" else (plain, liking)
    answers = [one.recommend(["i4"], NUM_ITEMS) for one in (liking, plain)]
    assert answers[0][0].score < -10  # no log of a probability: it would never come up beside the other
    mean: dict[str, float] = {}
    for answer, total in zip(answers, (sum(np.exp(item.score) for item in answers[0]), 1.0), strict=True):
        for item in answer:
            mean[item.item_id] = mean.get(item.item_id, 0.0) + np.exp(item.score) / total / 2
    found = first.with_views([second]).recommend(["i4"], 8)
    assert ids(found) == sorted(mean, key=lambda item: -mean[item])[:8]
    assert [np.exp(item.score) for item in found] == pytest.approx([mean[item.item_id] for item in found], rel=1e-4)
    assert not any(ids(found) == ids(answer)[:8] for answer in answers)


@pytest.mark.parametrize("of_view", [True, False])
def test_a_view_from_which_other_items_were_removed_is_refused(of_view: bool) -> None:
    fewer, whole = make_view(live=np.arange(NUM_ITEMS) != 7), make_view(order_seed=6)
    with pytest.raises(RunError, match="removed from one run alone"):
        (whole.with_views([fewer]) if of_view else fewer.with_views([whole]))


def test_a_recommender_with_views_ranks_by_the_mean_probability_under_every_filter() -> None:
    first, second = make_recommender(), make_view()
    merged = first.with_views([second])
    history, allow = ["i4", "i9"], {"genres": "Drama"}
    answers = [one.recommend(history, NUM_ITEMS, exclude=["i1"], allow=allow) for one in (first, second)]
    mean: dict[str, float] = {}
    for answer in answers:
        for item in answer:
            mean[item.item_id] = mean.get(item.item_id, 0.0) + np.exp(item.score) / 2
    found = merged.recommend(history, 5, exclude=["i1"], allow=allow)
    best = sorted(mean, key=lambda item: -mean[item])[:5]
    assert ids(found) == best
    assert [np.exp(item.score) for item in found] == pytest.approx([mean[item] for item in best], rel=1e-5)
    assert ids(first.recommend(history, 5, exclude=["i1"], allow=allow)) != best  # the view has a say


def test_a_view_of_another_catalogue_is_refused_and_views_follow_no_changes() -> None:
    with pytest.raises(RunError, match="another catalogue"):
        make_recommender().with_views([make_view(checksum="other")])
    with pytest.raises(RunError, match="or it has views"):
        make_recommender().with_views([make_view()]).refresh()


def test_an_explanation_of_a_run_says_what_its_tables_say(tiny_run: Path) -> None:
    told = Recommender.load(tiny_run).explain(["i0", "i3"], "i6", style="paragraph")
    # Films 0, 3 and 6 are comedies of moods 0, 1 and 0; every third user walks through the comedies one by one.
    assert "“Film 0” and “Film 6” have the same genres: Comedy and Mood 0." in told.text
    assert {statement.verdict for statement in told.statements} <= {"supported", "no-claim"}
    assert (told.source, told.fallback) == ("template", False)  # a model from scratch has read semantic IDs alone
    assert told.model_version
    assert told.catalog_version
    with pytest.raises(UnknownItemError, match="nobody"):
        Recommender.load(tiny_run).explain(["i0"], "nobody")


def test_a_recommender_without_a_run_has_nothing_to_explain_with() -> None:
    with pytest.raises(RunError, match="not loaded from a run"):
        make_recommender().explain(["i1"], "i2")


def test_prompts_that_come_again_are_remembered_where_that_is_asked_for(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genrec.decoding import prompt_attention

    read: list[int] = []
    whole = prompt_attention._read
    monkeypatch.setattr(
        prompt_attention,
        "_read",
        lambda model, prompts, reader: (read.extend(map(len, prompts)), whole(model, prompts, reader))[1],
    )
    monkeypatch.setattr(prompt_attention, "_few", lambda *_: 0)
    recommender = Recommender.load(tiny_run, remembered_bytes=1 << 20)
    first = recommender.recommend(["i1", "i4"], 5)
    read.clear()
    assert recommender.recommend(["i1", "i4"], 5) == first
    assert read == []
    with pytest.raises(ConfigError, match="vLLM keeps prefixes by itself"):
        Recommender.load(tiny_run, "vllm", remembered_bytes=1)
