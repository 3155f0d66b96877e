"""Evidence against counting by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from genrec.data.catalog import Catalog
from genrec.data.sequences import Sequences
from genrec.errors import DataError
from genrec.explanation.evidence import (
    Behaviour,
    CloseContent,
    OwnWords,
    RecordFact,
    SharedAttribute,
    Subject,
    TasteCount,
    reasons,
    record_facts,
    taste,
)
from genrec.explanation.facts import Facts, OwnText
from genrec.run import Run

ALIEN, BLADE, TOY, DR_NO, IT, HEAT, OLD_HEAT, NOTHING, ALIENS, COMEDY = range(10)


def test_reasons_are_what_the_tables_say(facts: Facts) -> None:
    found = reasons(facts, Subject((ALIEN, HEAT, TOY), BLADE, "ann"))
    assert found == [
        OwnWords((ALIEN,), "tag", "Science Fiction"),
        SharedAttribute("director", ("Ridley Scott",), (ALIEN,)),
        SharedAttribute("genres", ("Thriller",), (HEAT,)),  # as rare as Science Fiction, and newer
        Behaviour((ALIEN,), 3, 4),  # ann, bob and cem; fay chose Alien alone
        CloseContent((ALIEN,), (pytest.approx(facts.close_items(BLADE)[ALIEN], abs=1e-4),)),
    ]


def test_two_items_of_the_history_stand_together_where_both_have_all_the_values(facts: Facts) -> None:
    found = reasons(facts, Subject((IT, ALIEN), ALIENS))
    assert SharedAttribute("genres", ("Horror", "Science Fiction"), (ALIEN,)) in found  # It is no science fiction
    [both] = [one for one in reasons(facts, Subject((BLADE, DR_NO), HEAT)) if isinstance(one, SharedAttribute)]
    assert both == SharedAttribute("genres", ("Thriller",), (DR_NO, BLADE))  # the newest first


def test_one_person_is_no_behaviour(facts: Facts) -> None:
    assert facts.num_both(TOY, ALIEN) == 1
    assert not [one for one in reasons(facts, Subject((TOY,), ALIEN)) if isinstance(one, Behaviour)]


def test_without_anything_in_common_there_is_no_evidence(facts: Facts) -> None:
    assert reasons(facts, Subject((TOY,), NOTHING)) == []
    assert reasons(facts, Subject((), ALIEN)) == []
    assert reasons(facts, Subject((ALIEN,), ALIEN)) == []  # an item speaks not for itself


def test_the_record_comes_with_what_the_history_has_most_often_first(facts: Facts) -> None:
    assert record_facts(facts, Subject((DR_NO, HEAT), BLADE)) == [
        RecordFact("genres", ("Thriller", "Science Fiction")),
        RecordFact("director", ("Ridley Scott",)),
    ]
    assert record_facts(facts, Subject((DR_NO,), NOTHING)) == []


def test_taste_counts_what_is_commoner_in_the_history_than_in_the_catalogue(facts: Facts) -> None:
    found = taste(facts, Subject((ALIEN, BLADE, HEAT, TOY), None))
    assert TasteCount("director", "Ridley Scott", 2, 4, (BLADE, ALIEN)) in found
    assert TasteCount("genres", "Thriller", 2, 4, (HEAT, BLADE)) in found
    assert all(one.num_items == 2 for one in found)
    assert taste(facts, Subject((TOY, NOTHING), None)) == []


def test_a_review_is_quoted_only_where_it_speaks_of_what_the_item_is(facts: Facts) -> None:
    review = "Loud. I like a policeman who hunts in the rain. And more."
    told = with_texts(facts, {TOY: (OwnText("review", review),)})
    quoted = OwnWords((TOY,), "review", "I like a policeman who hunts in the rain")
    assert reasons(told, Subject((TOY,), BLADE, "u")) == [quoted]
    assert reasons(told, Subject((TOY,), DR_NO, "u")) == []
    assert reasons(told, Subject((TOY,), BLADE, None)) == []


def with_texts(facts: Facts, texts: dict[int, tuple[OwnText, ...]], others: list[str] | None = None) -> Facts:
    """What `u` wrote by item, and reviews of somebody else."""
    more = {"somebody": {IT: tuple(OwnText("review", text) for text in others or ())}}
    return Facts(facts.catalog, facts.sequences, facts.vectors, {"u": texts} | more)


def test_words_that_many_reviews_hold_are_no_evidence_however_rare_they_are_in_the_catalogue(facts: Facts) -> None:
    common = ["A policeman hunts it, rain or not.", "The rain again, and whoever hunts is no policeman."]
    subject = Subject((TOY,), BLADE, "u")
    texts = {TOY: (OwnText("review", "I like a policeman who hunts in the rain."),)}
    assert [one.kind for one in reasons(with_texts(facts, texts), subject)] == ["own"]
    assert reasons(with_texts(facts, texts, [*common, *["Dull."] * 10]), subject) == []
    assert [one.kind for one in reasons(with_texts(facts, texts, [*common, *["Dull."] * 100]), subject)] == ["own"]


@pytest.mark.parametrize(
    "review", ["A policeman, what luck.", "Machines!", "Rain " + "and more of it " * 5 + "hunts machines."]
)
def test_one_word_alone_or_a_long_sentence_is_no_evidence_however_rare_it_is(facts: Facts, review: str) -> None:
    told = with_texts(facts, {TOY: (OwnText("review", review),)}, ["Dull."] * 100_000)
    assert reasons(told, Subject((TOY,), BLADE, "u")) == []


def test_the_sentence_with_the_rarest_words_is_quoted_wherever_it_stands(facts: Facts) -> None:
    newer = OwnText("review", "A policeman in the rain. The machines hunts a policeman!")
    older = OwnText("review", "He hunts machines in the rain: a policeman.")
    told = with_texts(facts, {TOY: (older,), DR_NO: (newer,)}, ["Dull."] * 1000)
    [quoted] = [one for one in reasons(told, Subject((TOY, DR_NO), BLADE, "u")) if isinstance(one, OwnWords)]
    assert quoted == OwnWords((TOY,), "review", "He hunts machines in the rain: a policeman")


def test_words_come_last_but_for_a_tag_that_is_a_value_of_the_item(facts: Facts) -> None:
    review = OwnText("review", "I like a policeman who hunts in the rain.")
    kinds = [one.kind for one in reasons(with_texts(facts, {ALIEN: (review,)}), Subject((ALIEN,), BLADE, "u"))]
    assert kinds == ["attribute", "attribute", "behaviour", "similar", "own"]
    for tag in ("rain", "Ridley Scott"):  # beside a review, a tag is what is quoted
        told = with_texts(facts, {ALIEN: (review, OwnText("tag", tag))})
        found = reasons(told, Subject((ALIEN,), BLADE, "u"))
        assert [one for one in found if isinstance(one, OwnWords)] == [OwnWords((ALIEN,), "tag", tag)]
        assert found[-1 if tag == "rain" else 0] == OwnWords((ALIEN,), "tag", tag)


def test_a_tag_of_words_that_stand_in_many_texts_or_that_most_items_have_as_a_value_is_no_evidence() -> None:
    texts = ["A good film.", "A good one.", "Good work.", *["Dull."] * 9]
    genres = [["Drama"]] * 11 + [["Comedy"]]
    table = pl.DataFrame(
        {"item_id": list("abcdefghijkl"), "title": list("ABCDEFGHIJKL"), "genres": genres, "description": texts}
    )
    for tag, quoted in (("good", False), ("drama", False), ("film", True)):
        facts = Facts(Catalog(table), Sequences.from_lists([], []), None, {"u": {1: (OwnText("tag", tag),)}})
        assert bool(reasons(facts, Subject((1,), 0, "u"))) == quoted


@pytest.fixture
def reviewed_run(tmp_path, tiny_files):
    """Five items, one user whose test and validation reviews speak of them too."""
    from genrec.config import IngestConfig
    from genrec.data.ingest import ingest

    items = "".join(f'{{"item_id": "i{n}", "title": "Thing {n}", "genres": ["G"]}}\n' for n in range(5))
    rows = "".join(f'u,i{n},{n},"the review of thing {n}"\n' for n in range(5))
    (tmp_path / "items.jsonl").write_text(items)
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp,review\n" + rows)
    run = Run.create(tmp_path / "run")
    ingest(run, "tables", [tmp_path / "items.jsonl", tmp_path / "interactions.csv"], IngestConfig(min_interactions=1))
    return run


def test_reviews_of_validation_and_test_are_nobody_s_evidence(reviewed_run: Run) -> None:
    from genrec.explanation.facts import training_reviews

    read = training_reviews(reviewed_run, Catalog.load(reviewed_run))
    assert read == {"u": {n: (OwnText("review", f"the review of thing {n}"),) for n in range(3)}}


def test_texts_about_an_item_outside_of_the_training_split_are_refused() -> None:
    from genrec.explanation.facts import check_training

    sequences = Sequences.from_lists(["u"], [[0, 1]])
    check_training(sequences, {"u": {1: ()}})
    with pytest.raises(DataError, match=r"'u'.*training interactions"):
        check_training(sequences, {"u": {2: ()}})
    with pytest.raises(DataError, match="'v'"):
        check_training(sequences, {"v": {0: ()}})


def test_columns_that_name_their_item_and_tags_of_everybody_are_no_attributes() -> None:
    table = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["A", "B", "C"],
            "imdb_id": ["1", "2", "3"],
            "brand": ["X", "X", "unknown"],
            "tags": [["t"], ["t"], []],
            "price": [1.5, None, 2.0],
        }
    )
    facts = Facts(Catalog(table), Sequences.from_lists([], []))
    assert facts.attribute_columns == ("brand",)
    assert [facts.attributes(item) for item in range(3)] == [[("brand", "X")], [("brand", "X")], []]
    assert facts.numbers(0) == [("price", 1.5)]
    assert facts.numbers(1) == []


def test_truth_values_and_objects_are_no_attributes() -> None:
    table = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["A", "B", "C"],
            "vegan": ["True", "true", "FALSE"],
            "box": ['{"w": 3}', '{"w": 3}', "none"],
            "parts": [['{"n": 1}', "lid"], ['["x"]'], []],
        }
    )
    facts = Facts(Catalog(table), Sequences.from_lists([], []))
    assert [facts.attributes(item) for item in range(3)] == [[("parts", "lid")], [], []]


def test_what_nearly_every_item_is_says_nothing_of_one() -> None:
    number = 20
    groups = [["Beauty", "Nails"] if n == 0 else ["Beauty", "Hair"] for n in range(number)]
    groups[1:3] = [["Hair"], ["Hair"]]  # Beauty: 18 of 20; Hair: 19
    table = {"item_id": [str(n) for n in range(number)], "title": [f"T{n}" for n in range(number)]}
    facts = Facts(Catalog(pl.DataFrame(table | {"categories": groups})), Sequences.from_lists([], []))
    assert record_facts(facts, Subject((), 0)) == [RecordFact("categories", ("Nails", "Beauty"))]
    assert record_facts(facts, Subject((3, 4, 5), 3)) == [RecordFact("categories", ("Beauty",))]
    assert record_facts(facts, Subject((3, 4), 1)) == []  # the history has it most often, and so has everyone


def test_what_is_chosen_does_not_depend_on_the_process(tmp_path: Path) -> None:
    # Sets of texts have another order in every process; sums of floats have another last digit in every order.
    code = """
import polars as pl
from genrec.data.catalog import Catalog
from genrec.data.sequences import Sequences
from genrec.explanation.evidence import Subject, reasons
from genrec.explanation.facts import Facts
values = [
    [f"v{(n * (item + 1)) % 41}" for n in range(1, 41) if item < 20 or n > item - 17 + n % 3] for item in range(97)
]
table = pl.DataFrame({"item_id": [str(n) for n in range(97)], "title": [str(n) for n in range(97)], "genres": values})
facts = Facts(Catalog(table), Sequences.from_lists([], []))
print([reasons(facts, Subject(tuple(range(20)), item)) for item in range(20)])
"""
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(seen) == 1
    assert b"SharedAttribute" in next(iter(seen))
