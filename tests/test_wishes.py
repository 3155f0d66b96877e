"""What a recommender is asked for beside the history: what it takes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec import Recommender, pipeline
from genrec.cli.options import engine_options
from genrec.config import EvaluateConfig
from genrec.errors import ConfigError, TrieError
from genrec.rank_request import RankRequest
from genrec.run import Run
from tests.test_recommender import make_recommender


def test_histories_and_exclusions_may_come_from_iterators() -> None:
    recommender, histories = make_recommender(), [["i1"], ["i2", "i3"], []]
    expected = recommender.recommend(histories, k=3, exclude=["i4"])
    assert recommender.recommend(map(iter, histories), k=3, exclude=iter(["i4"])) == expected
    assert recommender.recommend(iter(["i2", "i3"]), k=3, exclude=("i4",)) == expected[1]


@pytest.mark.parametrize("wish", ["allowed", "excluded", "exclud", "limits"])
def test_a_wish_that_does_not_exist_is_refused_and_not_swallowed(wish: str) -> None:
    with pytest.raises(ConfigError, match=f"no wish '{wish}'") as caught:
        make_recommender().recommend(["i1"], **{wish: ["i2"]})
    assert "exclude, allow, at_most, new_share" in caught.value.hint


@pytest.mark.parametrize(
    "wishes",
    [{"at_most": {"genres": "2"}}, {"at_most": {"genres": 0}}, {"at_most": {"genres": True}}, {"new_share": None}],
)
def test_a_wish_that_is_no_number_is_refused(wishes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected a number|no share"):
        make_recommender().recommend(["i1"], **wishes)


@pytest.mark.parametrize("name", ["allow", "at_most"])
@pytest.mark.parametrize("given", ["x", 5, ["genres"], {1: 2, "genres": 2}])
def test_a_wish_that_does_not_say_what_of_which_attribute_is_refused(name: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=rf"`{name}` is .*expected names of attributes"):
        make_recommender().recommend(["i1"], **{name: given})


@pytest.mark.parametrize("k", [2.5, "3", None, True, 0, float("nan")])
def test_a_number_of_items_that_is_none_is_refused(k: Any) -> None:
    for asked in (lambda one: one.recommend(["i1"], k), lambda one: one.rank([one.request(["i1"])], k)):
        with pytest.raises(ConfigError, match=f"k is {k!r}; expected how many items"):
            asked(make_recommender())


@pytest.mark.parametrize("item_id", [5, ["i1"], b"i1"])
def test_an_item_to_explain_that_is_no_id_is_refused(tiny_run: Path, item_id: Any) -> None:
    with pytest.raises(ConfigError, match="is no item id"):
        Recommender.load(tiny_run).explain(["i1"], item_id)


@pytest.mark.parametrize("width", [0, -3, (5, 0), ()])
def test_a_beam_that_keeps_nothing_is_refused(width: Any) -> None:
    with pytest.raises(ConfigError, match="a beam of"):
        make_recommender(beam_width=width)


@pytest.mark.parametrize(
    "options", [{"device": "gpu"}, {"device": "meta"}, {"remembered_bytes": -1}, {"remembered_bytes": "1"}]
)
def test_a_device_or_memory_that_cannot_be_had_is_refused(tiny_run: Path, options: Any) -> None:
    with pytest.raises(ConfigError, match=r"cannot be had|bytes of prompts"):
        Recommender.load(tiny_run, **options)


def test_options_of_an_engine_that_has_none_are_refused(tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match="transformers has no options of its own, but 'max_model_len'"):
        Recommender.load(tiny_run, engine_options={"max_model_len": 512})
    with pytest.raises(ConfigError, match="engine_options is 5"):
        Recommender.load(tiny_run, engine_options=5)
    with pytest.raises(ConfigError, match=r"no 'devise'.*device.*engine_options"):
        Recommender.load(tiny_run, **{"devise": "cpu"})


def test_evaluate_hands_an_engines_options_on(tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match="transformers has no options of its own, but 'max_model_len'"):
        pipeline.evaluate(Run.open(tiny_run), EvaluateConfig(), engine_options={"max_model_len": 512})


def test_an_engines_options_are_yaml_scalars_by_name() -> None:
    pairs = ["max_model_len=512", "enforce_eager=true", "kv_cache_dtype=auto", "compilation_config={mode: 0}"]
    expected = {
        "max_model_len": 512,
        "enforce_eager": True,
        "kv_cache_dtype": "auto",
        "compilation_config": {"mode": 0},
    }
    assert engine_options(pairs) == expected
    for wrong in ("max_model_len", "=3", "a=", "a={"):
        with pytest.raises(ConfigError, match="is not NAME=VALUE"):
            engine_options([wrong])


def test_a_request_with_limits_ends_with_the_catalogue_that_it_began_with() -> None:
    recommender, searches = make_recommender(), []
    request = replace(recommender.request([]), limits=recommender.limits({"year": 1}))
    expected = recommender.rank([request], 4)
    whole = recommender.engine.rank

    def refreshing(*given: Any, **options: Any) -> Any:
        searches.append(given)
        recommender._live = make_recommender().live  # as `refresh` does
        return whole(*given, **options)

    recommender.engine.rank = refreshing
    assert recommender.rank([request], 4) == expected
    assert len(searches) > 1


def test_indices_and_seeds_that_are_none_are_refused_and_nothing_may_be_of_any_kind(tiny_run: Path) -> None:
    recommender = Recommender.load(tiny_run)
    for wrong in ({"history": np.array([0.5])}, {"history": np.array([1]), "draw": -1}):
        with pytest.raises(ConfigError, match=r"are no item indices|draw is -1"):
            RankRequest(**wrong)
    with pytest.raises(TrieError, match="999"):
        recommender.rank([RankRequest(np.array([999], np.int32))], 3)
    (nothing, none) = recommender.rank([RankRequest(np.array([])), RankRequest(np.array([], np.int32))], 3)
    assert nothing == none
