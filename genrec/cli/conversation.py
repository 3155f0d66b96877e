"""`genrec serve | chat | dialogues`: a run behind HTTP or in the terminal, and what real dialogues teach it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, ConfigFile, EngineOption, RunPath, app, engine_options, open_run, resolve
from genrec.config import DialoguesConfig
from genrec.console import print_lines, print_report
from genrec.errors import MissingDependencyError


@app.command()
def serve(
    run: RunPath,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.  [default: 8000]")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with one API key a line; needed beyond this machine.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A further name that browsers may call this service by.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Where conversations are kept.  [default: SQLite inside the run]")
    ] = None,
    media_root: Annotated[Path | None, typer.Option(help="Folder of the pictures, where it has moved.")] = None,
    proposals: Annotated[
        str | None,
        typer.Option(
            help="Does the model propose what messages say? `on`, `off`, `auto`: if it was taught to.  [auto]"
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Which engine decodes.  [default: transformers]")] = None,
    engine_option: EngineOption = None,
    weights: Annotated[
        str | None,
        typer.Option(help="How it holds the model: `float32`, `bfloat16`, `int8`, `nf4`.  [default: float32]"),
    ] = None,
    beam_width: Annotated[int | None, typer.Option(help="Beams per request.  [default: 50]")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the engine.  [default: one less than there are cores]")
    ] = None,
    remember_mb: Annotated[
        int | None, typer.Option(help="Megabytes for keys and values of prompts that come again.  [default: 0]")
    ] = None,
    queue_size: Annotated[int | None, typer.Option(help="Requests that may wait.  [default: 512]")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a request may take.  [default: 30]")] = None,
) -> None:
    """Serve a run over HTTP: an API, OpenAI-compatible chat, and a chat page.

    `genrec serve runs/mine` and open <http://127.0.0.1:8000>
    """
    opened = open_run(run, "tokenize", "train")
    for package in ("fastapi", "uvicorn", "prometheus_client", "sqlalchemy", "alembic"):
        if find_spec(package) is None:  # looked for, not imported: the page is there before them
            raise MissingDependencyError(f"{package} is not installed.", "Install the extra `serve` (docs/install.md).")
    from genrec.server.process import serve_run
    from genrec.server.settings import ServeConfig, read_keys

    settings = resolve(
        ServeConfig,
        None,
        host=host,
        port=port,
        api_keys=None if api_key_file is None else read_keys(api_key_file),
        allowed_hosts=None if allowed_host is None else tuple(allowed_host),
        database=database,
        media_root=media_root,
        proposals=proposals,
        engine=engine,
        engine_options=engine_options(engine_option) or None,
        weights=weights,
        beam_width=beam_width,
        threads=threads,
        remember_mb=remember_mb,
        queue_size=queue_size,
        timeout=timeout,
    )
    serve_run(opened.path, settings, say=lambda line: print_lines([line]))


@app.command()
def chat(
    run: RunPath,
    user: Annotated[str | None, typer.Option(help="Begin with the history of this user of the run.")] = None,
    state: Annotated[Path | None, typer.Option(help="JSON file that keeps the conversation.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show what was understood and decided.")] = False,
    number: Annotated[int, typer.Option(min=1, max=20, help="Items of one list.")] = 5,
    proposals: Annotated[
        str, typer.Option(help="Does the model propose what messages say? `on`, `off`, `auto`: if it was taught to.")
    ] = "auto",
    engine: Annotated[str, typer.Option(help="Which engine decodes.")] = "transformers",
    engine_option: EngineOption = None,
) -> None:
    """Talk to a run in the terminal. An empty line or Ctrl-D ends.

    `genrec chat runs/mine --state me.json`
    """
    opened = open_run(run, "tokenize", "train")
    from genrec.cli.terminal_chat import first_state, talk

    begun = first_state(opened, user=user, path=state)
    from genrec.chat import Dialogue
    from genrec.chat.speaker import as_proposals
    from genrec.recommender import Recommender

    way, options = as_proposals(proposals), engine_options(engine_option)
    recommender = Recommender.load(opened.path, engine, engine_options=options)
    dialogue = Dialogue.over(recommender, number=number, proposals=way)
    talk(dialogue, begun, keep=state, show_trace=trace)


@app.command()
def dialogues(
    run: RunPath,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Dialogues as JSON lines, plain or .gz.")],
    seed: Annotated[int | None, typer.Option(help="Seed of which dialogues are kept for validation.")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Make real dialogues a part of the run, for `genrec train` (tasks F2, F3) and `genrec evidence --dialogues`."""
    resolved = resolve(DialoguesConfig, config, seed=seed)
    opened = open_run(run, "ingest")
    from genrec.chat.learning import learn_dialogues

    print_report(learn_dialogues(opened, files, resolved), as_json=json_)
