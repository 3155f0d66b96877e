"""MovieLens as published: folders, zips, the `.dat` layout, and the bundled films."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.interactions import load_interactions
from genrec.data.sources.movielens import bundled_movielens, split_title
from genrec.data.splits import evaluation_cases, training_sequences
from genrec.errors import BadRowsError, DataError
from genrec.run import Run

EVERY_ITEM = IngestConfig(min_interactions=1)
FILES = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,30\n1,20,2.5,10\n2,10,5.0,20\n",
    "movies.csv": 'movieId,title,genres\n10,"Matrix, The (1999)",Action|Sci-Fi\n20,Moonlight,(no genres listed)\n',
    "tags.csv": "userId,movieId,tag,timestamp\n1,10,Funny,1\n2,10,dark,2\n2,10,funny ,3\n2,99,odd,3\n",
    "links.csv": "movieId,imdbId,tmdbId\n10,0133093,603\n20,,\n",
}


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Toy Story (1995)", "Toy Story", 1995),
        ("Matrix, The (1999)", "The Matrix", 1999),
        ("Bug's Life, A (1998)", "A Bug's Life", 1998),
        ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (Adventure, The)", 1960),
        (
            "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
            "The City of Lost Children (Cité des enfants perdus, La)",
            1995,
        ),
        ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto", 2006),
        ("This World, Then the Fireworks (1997)", "This World, Then the Fireworks", 1997),
        ("2001 (a.k.a. Odyssey, The)", "2001 (a.k.a. Odyssey, The)", None),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", 2009),
        ("Paterson", "Paterson", None),
    ],
)
def test_a_title_is_put_in_reading_order_and_the_year_apart(text: str, title: str, year: int | None) -> None:
    assert split_title(text) == (title, year)


def check(run: Run) -> None:
    assert Catalog.load(run).table.to_dicts() == [
        {
            "item_id": "10",
            "title": "The Matrix",
            "genres": ["Action", "Sci-Fi"],
            "tags": ["funny", "dark"],
            "year": 1999,
            "imdb_id": "0133093",
            "tmdb_id": "603",
        },
        {
            "item_id": "20",
            "title": "Moonlight",
            "genres": [],
            "tags": [],
            "year": None,
            "imdb_id": None,
            "tmdb_id": None,
        },
    ]
    assert load_interactions(run).select("user_id", "item_id", "timestamp", "rating").rows() == [
        ("1", "20", 10.0, 2.5),
        ("1", "10", 30.0, 4.0),
        ("2", "10", 20.0, 5.0),
    ]


def test_a_folder_a_packed_folder_and_a_zip_give_the_same(tmp_path: Path) -> None:
    for name in ("plain", "packed"):
        (tmp_path / name).mkdir()
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        for name, text in FILES.items():
            (tmp_path / "plain" / name).write_text(text)
            (tmp_path / "packed" / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
            archive.writestr(f"__MACOSX/ml/{name}", "junk")
            archive.writestr(f"ml/{name}", text)
    for path in ("plain", "packed", "ml.zip"):
        run = Run.create(tmp_path / f"run-{path}")
        ingest(run, "movielens", [tmp_path / path], EVERY_ITEM)
        check(run)


def test_posters_and_plots_beside_the_tables_belong_to_their_films(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "omdb_text.jsonl").write_text(
        '{"movieId": 10, "plot": "A hacker wakes up.", "director": "L. Wachowski", "actors": "K. Reeves, C. Moss"}\n'
        '{"movieId": 999, "plot": "Not in the catalogue."}\n'
        '{"movieId": 20, "actors": ["A. Bee", "C. Dee"]}\n'
    )
    (tmp_path / "posters").mkdir()
    (tmp_path / "posters" / "20.JPG").write_bytes(b"not looked at by ingest")
    (tmp_path / "posters" / "notes.txt").write_text("no picture")
    run = Run.create(tmp_path / "run")
    report = ingest(run, "movielens", [tmp_path], EVERY_ITEM)
    table = Catalog.load(run).table
    assert table["image"].to_list() == [None, "posters/20.JPG"]
    assert table["description"].to_list() == ["A hacker wakes up.", None]
    assert table["director"].to_list() == ["L. Wachowski", None]
    assert table["actors"].to_list() == [["K. Reeves", "C. Moss"], ["A. Bee", "C. Dee"]]
    assert report.facts["media_root"] == str(tmp_path.resolve())
    assert any(line.startswith("Posters: 1 of 2 films") for line in report.words)


def test_the_dat_layout_is_read_in_latin_1_too(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::4::30\n1::20::3::10\n")
    (tmp_path / "movies.dat").write_bytes(
        "10::Misérables, Les (1995)::Drama\r\n20::Hélas: pour moi (1993)::Drama|War\n".encode("latin-1")
    )
    run = Run.create(tmp_path / "run")
    ingest(run, "movielens", [tmp_path], EVERY_ITEM)
    assert Catalog.load(run).titles == ["Les Misérables", "Hélas: pour moi"]
    assert Catalog.load(run).table["genres"].to_list() == [["Drama"], ["Drama", "War"]]
    assert load_interactions(run)["item_id"].to_list() == ["20", "10"]


def test_bad_rows_are_named_with_the_columns_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::4::30\n1::77::x::10\n1::10::4\n")
    (tmp_path / "movies.dat").write_text("10::Up (2009)::Drama\n::Down (2010)::Drama\n10::Up (2009)::Drama\n")
    with pytest.raises(BadRowsError) as caught:
        ingest(Run.create(tmp_path / "run"), "movielens", [tmp_path], EVERY_ITEM)
    expected = [
        'movies.dat, line 2, column "movieId": is empty',
        'movies.dat, line 3, column "movieId": "10" is already on line 1',
        'ratings.dat, line 2, column "movieId": "77" is not an item of movies.dat',
        'ratings.dat, line 2, column "rating": "x" is not a number',
        "ratings.dat, line 3: has 3 field(s). Expected 4 separated by `::`",
    ]
    found = caught.value.problems
    assert [problem.startswith(start) for problem, start in zip(found, expected, strict=True)] == [True] * 5


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in FILES.items():
            archive.writestr(name, text * 50)
    whole = bytearray((tmp_path / "ml.zip").read_bytes())
    whole[60:90] = b"\0" * 30
    (tmp_path / "ml.zip").write_bytes(whole)
    with pytest.raises(DataError, match=r"ml\.zip is truncated or damaged"):
        ingest(Run.create(tmp_path / "run"), "movielens", [tmp_path / "ml.zip"], EVERY_ITEM)


def test_the_bundled_films_have_the_published_size_of_their_5_core(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    report = ingest(run, "movielens", [bundled_movielens()], IngestConfig())
    facts = report.facts
    assert (facts["num_users"], facts["num_items"], facts["num_interactions"]) == (610, 3650, 90_274)
    assert facts["steps"][0]["num_interactions"] == 100_836
    assert (len(training_sequences(run)), len(evaluation_cases(run, "test"))) == (610, 610)
    assert Catalog.load(run).titles[0] == "Toy Story"
    assert report.next_command == f"genrec embed {run.path}"


def test_the_terms_of_the_bundled_films_travel_with_them() -> None:
    terms = (bundled_movielens() / "README.md").read_text() + (bundled_movielens() / "README.txt").read_text()
    for needed in ("GroupLens", "10.1145/2827872", "non-commercial", "same license conditions"):
        assert needed in terms
