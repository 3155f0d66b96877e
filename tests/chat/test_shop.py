"""A shop whose table is a CSV: prices are ranges, truth values are wishes by their name, objects are no words."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from genrec.chat import ChatState, Dialogue
from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.facts import fact_line, facts_of
from genrec.chat.filters import constraint_words, sharing_mask, without_constraint
from genrec.chat.reading import read_message
from genrec.chat.state import Constraints, Wish
from genrec.config import IngestConfig
from genrec.data.catalog import Catalog, is_object
from genrec.data.ingest import ingest
from genrec.decoding.scripted import ScriptedEngine
from genrec.prompting import HistoryPrompt
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.trie import ItemTrie

SHOP = """item_id,title,categories,price,is_vegan,box
a,Oat Bar,Snack|Bar,2.50,True,"{""w"": 3}"
b,Milk Bar,Snack|Bar,6.0,False,"{""w"": 3}"
c,Bean Stew,Meal,14.99,True,"{""w"": 9}"
d,Beef Stew,Meal,22.00,False,
e,Truffle Box,Gift,60.00,,"{""w"": 3}"
f,Apple Crate,Fruit,19.00,true,
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dialogue:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "items.csv").write_text(SHOP)
    (folder / "log.csv").write_text("user_id,item_id\nu,a\n")
    run = Run.create(folder / "run")
    ingest(run, "tables", [folder / "items.csv", folder / "log.csv"], IngestConfig(min_interactions=1))
    catalog = Catalog.load(run)
    codes = np.array([[n // 3, n % 3] for n in range(len(catalog))])
    recommender = Recommender(
        catalog,
        ItemTrie.build(codes, (3, 3)),
        engine=ScriptedEngine(lambda prompt, codes: np.zeros(3)),
        prompt=HistoryPrompt((1,)),
        item_tokens=codes + np.array([10, 13]),
        max_history_items=5,
    )
    return Dialogue.over(recommender)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("something under 20", "abcf"),
        ("something cheaper than 15", "abc"),
        ("something over 20 euros", "de"),
        ("something vegan", "acf"),
        ("nothing vegan", "bde"),
        ("something vegan under 15", "ac"),
        ("a vegan meal", "c"),
    ],
)
def test_ranges_and_truth_values_of_a_csv_are_wishes(shop: Dialogue, text: str, items: str) -> None:
    turn = shop.turn(ChatState(asked=("opener",)), text)
    assert sorted(turn.item_ids) == list(items)


@pytest.mark.parametrize(
    "text", ["something vegan", "nothing vegan", "tell me about Oat Bar", "something like Oat Bar"]
)
def test_neither_truth_values_nor_objects_are_said_as_they_are_kept(shop: Dialogue, text: str) -> None:
    turn = shop.turn(ChatState(asked=("opener",)), text)
    for raw in ("True", "False", "true", "{", "is_vegan", "is vegan"):
        assert raw not in turn.text
        assert raw not in " ".join(turn.trace)


def test_an_empty_list_is_not_said_to_be_further_away(shop: Dialogue) -> None:
    turn = shop.turn(ChatState(), "something like Oat Bar, but over 70 euros")
    assert turn.item_ids == ()
    assert turn.text.startswith("I have nothing left to recommend that fits (price at least 70).")
    further = shop.turn(ChatState(), "something like Oat Bar, but over 50 euros")
    assert further.item_ids == ("e",)
    assert further.text.startswith("Nothing left has much in common with it, so these are further away.")


@pytest.mark.parametrize(
    "text", ["how big is it", "how big is it?", "and how heavy is the first one?", "how good was it"]
)
def test_how_an_item_is_is_answered_with_what_the_catalogue_says_of_it(shop: Dialogue, text: str) -> None:
    before = shop.turn(ChatState(), "something like Oat Bar")
    turn = shop.turn(before.state, text)
    assert (turn.act, turn.item_ids) == ("answer", ())
    assert turn.text == "Milk Bar: price 6; categories Snack, Bar; vegan no. That is all the catalogue says."


def test_a_wish_for_a_truth_value_is_said_by_its_name(shop: Dialogue) -> None:
    asked = ChatState(asked=("opener",))
    assert shop.turn(asked, "something vegan").text.startswith("I know nothing about you yet, so")
    assert "(vegan):" in shop.turn(asked, "something vegan").text
    refused = shop.turn(asked, "nothing vegan")
    assert "(not vegan):" in refused.text
    assert without_constraint(refused.state.constraints, "not vegan").empty
    lid = Wish(attribute="has_lid", values=("lid",))
    assert constraint_words(Constraints(unwanted=(lid, Wish(attribute="genres", values=("Horror",))))) == [
        "no lid",
        "no Horror",
    ]


def test_all_facts_of_an_item_say_yes_or_no_and_leave_objects_out(shop: Dialogue) -> None:
    lines = [fact_line(shop.index, row, everything=True) for row in range(6)]
    assert lines[0] == "price 2.5; categories Snack, Bar; vegan yes"
    assert lines[1] == "price 6; categories Snack, Bar; vegan no"
    assert lines[4] == "price 60; categories Gift"
    assert facts_of(shop.index, 1)["is_vegan"] is False
    assert "is_vegan" not in facts_of(shop.index, 4)


def test_truth_values_come_behind_all_other_attributes(shop: Dialogue) -> None:
    assert shop.index.facet_names() == ["categories", "is_vegan"]  # of the boxes nothing can be said
    assert "vegan" not in shop.turn(ChatState(), "hello").text
    assert np.flatnonzero(sharing_mask(shop.index, [0])).tolist() == [0, 1]  # bars, and not what else is vegan
    assert shop.index.shared([0], 2) == {"is_vegan": ["vegan"]}
    assert shop.index.shared([1], 3) == {}  # that both are not vegan ties them to nothing


def test_truth_values_that_a_catalogue_has_as_text_are_truth_values() -> None:
    table = {"item_id": ["a", "b"], "title": ["A", "B"], "genre": ["vegan", "x"], "sugar_free": ["TRUE", "false"]}
    index = CatalogueIndex.build(Catalog(pl.DataFrame(table)))
    (asked,) = read_message(index, "something sugar free", has_slate=False).asked
    assert (asked.value.attribute, asked.value.value, asked.value.num_items) == ("sugar_free", "sugar free", 1)
    none = CatalogueIndex.build(Catalog(pl.DataFrame(table | {"sugar_free": [False, False]})))
    (asked,) = read_message(none, "something sugar free", has_slate=False).asked
    assert asked.value.num_items == 0  # understood, and nothing is


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"a": 1}', True),
        ('["x"]', True),
        ("{}", True),
        ("[REC]", False),
        ("{x}", False),
        ("[", False),
        ("", False),
        (3, False),
        ("[" * 5000 + "]" * 5000, False),
    ],
)
def test_an_object_is_json_in_brackets_and_no_title_in_brackets(value: object, expected: bool) -> None:
    assert is_object(value) is expected
