"""People and pictures of a run, for the chat page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from genrec.chat import Dialogue
from genrec.data.catalog import Catalog
from genrec.data.splits import evaluation_cases
from genrec.encoders.media import MediaFile, media_files
from genrec.errors import DataError
from genrec.run import Run
from genrec.server.schemas import Person

_NUM_PEOPLE = 12
_NUM_TITLES = 3
_NUM_HISTORY = 50


def demo_people(path: Path) -> list[Person]:
    """Users of the test split, spread over the list, whose histories a visitor can borrow."""
    run = Run.open(path)
    catalog = Catalog.load(run)
    cases = evaluation_cases(run, "test")
    number = min(_NUM_PEOPLE, len(cases))
    chosen = [len(cases) * part // number for part in range(number)]
    return [
        Person(
            user_id=str(cases.user_ids[case]),
            history=[catalog.item_ids[item] for item in cases.histories[case][-_NUM_HISTORY:]],
            last_titles=[catalog.titles[item] for item in cases.histories[case][-_NUM_TITLES:]],
        )
        for case in chosen
    ]


def item_images(path: Path, root: Path | None) -> Callable[[Dialogue, int], MediaFile | None]:
    """A function from an item's row to its picture's file, over whatever catalogue the dialogue has."""
    run = Run.open(path)
    latest: list[tuple[Catalog, list[MediaFile | None]]] = []

    def image(dialogue: Dialogue, row: int) -> MediaFile | None:
        catalog = dialogue.index.catalog
        if not latest or latest[0][0] is not catalog:
            try:
                files = media_files(run, catalog, "image", root=root)
            except DataError:  # a catalogue without pictures is nothing to complain about here
                files = [None] * len(catalog)
            latest[:] = [(catalog, files)]
        return latest[0][1][row]

    return image
