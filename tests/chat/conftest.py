"""The bundled films as a dialogue."""

from __future__ import annotations

import pytest

from genrec.chat import Dialogue
from tests.films import film_recommender


@pytest.fixture(scope="session")
def film_dialogue(tmp_path_factory: pytest.TempPathFactory) -> Dialogue:
    return Dialogue.over(film_recommender(tmp_path_factory.mktemp("films") / "run"))
