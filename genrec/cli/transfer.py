"""`genrec transfer`: what one catalogue's tokenizer and model are worth on another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, ConfigFile, app, open_run, resolve
from genrec.config import TransferConfig
from genrec.console import ConsoleProgress, print_report


@app.command()
def transfer(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A trained run.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="An ingested and embedded run.")],
    epochs: Annotated[int | None, typer.Option(help="Times that every training reads the target.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the variants go.  [default: TARGET/transfer]")] = None,
    collisions: Annotated[str | None, typer.Option(help="`reassign`, `extra-level` or `shared`.")] = None,
    same_encoder: Annotated[
        bool | None, typer.Option("--same-encoder", help="Vectors of other names are of one encoder, on your word.")
    ] = None,
    own_tokenizer: Annotated[
        bool | None, typer.Option(help="Also train on codes learned on the target.  [default: yes]")
    ] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Try SOURCE's tokenizer and model on TARGET: zero-shot, fine-tuned, beside training from scratch and baselines.

    Neither run is changed; every variant is a run of its own. A transfer that was killed goes on when it is
    called again: a finished variant is not made twice.
    """
    resolved = resolve(
        TransferConfig,
        config,
        epochs=epochs,
        collisions=collisions,
        same_encoder=same_encoder,
        own_tokenizer=own_tokenizer,
    )
    opened_source = open_run(source, "embed", "tokenize", "trie", "train")
    opened_target = open_run(target, "ingest", "embed")
    from genrec.transfer import transfer as run_transfer

    report = run_transfer(opened_source, opened_target, resolved, out=out, progress=ConsoleProgress())
    print_report(report, as_json=json_)
