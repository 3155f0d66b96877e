"""A catalogue small enough to know every answer: films, who chose them, what they are close to."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from genrec.data.catalog import Catalog
from genrec.data.sequences import Sequences
from genrec.explanation.facts import Facts, OwnText
from genrec.explanation.language import Language, load_language
from genrec.prompting import default_prompts

FILMS = [
    # title, year, genres, director, description
    ("Alien", 1979, ["Horror", "Science Fiction"], "Ridley Scott", "A crew meets a stranger on a cold ship."),
    ("Blade Runner", 1982, ["Science Fiction", "Thriller"], "Ridley Scott", "A policeman hunts machines in the rain."),
    ("Toy Story", 1995, ["Animation", "Comedy"], "John Lasseter", "Toys come alive when nobody looks."),
    ("Dr. No", 1962, ["Thriller"], "Terence Young", None),
    ("It", 2017, ["Horror"], "Andy Muschietti", None),
    ("Heat", 1995, ["Thriller", "Crime"], "Michael Mann", None),
    ("Heat", 1986, ["Crime"], "Dick Richards", None),
    ("Nothing Known", None, [], None, None),
    ("Aliens", 1986, ["Horror", "Science Fiction"], "James Cameron", None),
    ("Comedy", 2012, ["Drama"], "Rick Alverson", None),
]
HISTORIES = {"ann": [0, 1, 5, 2], "bob": [0, 1, 8], "cem": [0, 1], "dan": [1, 3], "eve": [2, 3, 5], "fay": [0, 8]}
ALIEN, BLADE, TOY, DR_NO, IT, HEAT, OLD_HEAT, NOTHING, ALIENS, COMEDY = range(10)
TEXTS = {
    "ann": {
        ALIEN: (
            OwnText("review", "Never so afraid. The cold ship is the best of it!"),
            OwnText("tag", "Science Fiction"),
        ),
        TOY: (OwnText("review", "My children laughed."),),
    }
}


@pytest.fixture(scope="session")
def facts() -> Facts:
    """Content vectors: films of one director point one way; `Nothing Known` has none."""
    table = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(len(FILMS))],
            "title": [film[0] for film in FILMS],
            "year": [film[1] for film in FILMS],
            "genres": [film[2] for film in FILMS],
            "director": [film[3] for film in FILMS],
            "description": [film[4] for film in FILMS],
        }
    )
    vectors = np.random.default_rng(0).normal(size=(len(FILMS), 16)).astype(np.float32)
    vectors[BLADE] = vectors[ALIEN] + 0.1
    vectors[NOTHING] = 0
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    sequences = Sequences.from_lists(list(HISTORIES), list(HISTORIES.values()))
    return Facts(Catalog(table), sequences, vectors, TEXTS)


@pytest.fixture(scope="session")
def english() -> Language:
    """The English that comes with the repository."""
    return load_language(default_prompts(), "en")


@pytest.fixture(scope="session")
def german() -> Language:
    """The German that comes with the repository."""
    return load_language(default_prompts(), "de")
