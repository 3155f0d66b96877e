"""`genrec items add | remove | update`: a catalogue that changes while its run is in use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, RunPath, app, names_and_files, open_run
from genrec.console import ConsoleProgress, print_report

items = typer.Typer(
    no_args_is_help=True,
    help="Add, remove or update items of a run. Nothing is trained, and running processes follow.",
)
app.add_typer(items, name="items")
Precomputed = Annotated[
    list[str] | None, typer.Option(metavar="NAME=FILE", help="Vectors of these items for a modality from a file.")
]


@items.command()
def add(
    run: RunPath,
    table: Annotated[Path, typer.Argument(metavar="NEW", help="Table of new items, in the layout of the first one.")],
    precomputed: Precomputed = None,
    json_: AsJson = False,
) -> None:
    """Add items: encoded, given free semantic IDs, recommendable at once. No other item's ID changes.

    `genrec items add runs/mine new.jsonl`
    """
    opened, files = open_run(run, "tokenize"), names_and_files(precomputed)
    from genrec.catalogue_changes import add_items

    report = add_items(opened, table, when=_now(), precomputed=files, progress=ConsoleProgress())
    print_report(report, as_json=json_)


@items.command()
def remove(
    run: RunPath,
    ids: Annotated[Path, typer.Argument(metavar="IDS", help="Text file with one item_id a line.")],
    json_: AsJson = False,
) -> None:
    """Remove items: recommended to nobody any more. They may stand in histories; adding one again restores it.

    `genrec items remove runs/mine ids.txt`
    """
    opened = open_run(run, "tokenize")
    from genrec.catalogue_changes import remove_items

    print_report(remove_items(opened, ids, when=_now()), as_json=json_)


@items.command()
def update(
    run: RunPath,
    table: Annotated[Path, typer.Argument(metavar="CHANGED", help="Table of item_id and the columns that change.")],
    reencode: Annotated[bool, typer.Option("--reencode", help="Give these items new semantic IDs as well.")] = False,
    precomputed: Precomputed = None,
    json_: AsJson = False,
) -> None:
    """Change titles, attributes and texts of items. Their semantic IDs stay, unless `--reencode`.

    `genrec items update runs/mine changed.jsonl`
    """
    opened, files = open_run(run, "tokenize"), names_and_files(precomputed)
    from genrec.catalogue_changes import update_items

    report = update_items(opened, table, when=_now(), reencode=reencode, precomputed=files, progress=ConsoleProgress())
    print_report(report, as_json=json_)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
