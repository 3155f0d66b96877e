"""What every verb shares: the Typer application, common options, and how flags and a file become a configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml

from genrec.config import Config, build_config, read_values
from genrec.errors import ConfigError
from genrec.files import is_stream
from genrec.run import Run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Recommendation by a language model that can only name items that exist.

Items become *semantic IDs*, a language model learns to write the next one, a trie keeps every answer real.
A **run** is one directory; each verb adds its part to it, in this order:

`ingest` tables → `embed` items → `tokenize` into semantic IDs → `train` the model →
`evidence` beside it → `evaluate` → `recommend`

Start with `genrec quickstart`: it does all of it on the films of the repository.""",
)

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of options; flags win over it.")]
EngineOption = Annotated[
    list[str] | None,
    typer.Option("--engine-option", metavar="NAME=VALUE", help="An argument of vLLM's own, as YAML. Repeatable."),
]
ConfigT = TypeVar("ConfigT", bound=Config)


def resolve(kind: type[ConfigT], path: Path | None, **flags: Any) -> ConfigT:
    """Defaults, then the file, then the flags that were given; validated together, for some keys belong together."""
    given = {name: value for name, value in flags.items() if value is not None}
    if path is None:
        return build_config(kind, given, source="options")
    values = read_values(path)
    if not given or not isinstance(values, dict):
        return build_config(kind, values, source=str(path))
    return build_config(kind, values | given, source=f"{path} and the options given")


def open_run(path: Path, *stages: str) -> Run:
    """The run, where `stages` are done: what is missing is said here, before anything heavy is imported.

    Their files are compared with what was recorded when they are loaded. Raises RunError.
    """
    run = Run.open(path)
    for stage in stages:
        run.require(stage, verify=False)
    return run


def is_standard_output(path: Path) -> bool:
    """Whether what was written to `path` went to standard output: then a summary has no place there."""
    try:
        return is_stream(path) and os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # one of the two is closed by now
        return False


def names_and_files(pairs: Sequence[str] | None) -> dict[str, Path]:
    """`--precomputed NAME=FILE …` as name → file. Raises ConfigError for anything else."""
    files = {}
    for pair in pairs or ():
        name, found, file = pair.partition("=")
        if not (name and found and file):
            raise ConfigError(f"--precomputed {pair!r} is not NAME=FILE.", "For example: mine=vectors.npy")
        files[name] = Path(file)
    return files


def engine_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`--engine-option NAME=VALUE …` as name → value. Raises ConfigError for anything else."""
    options = {}
    for pair in pairs or ():
        name, found, value = pair.partition("=")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            found = ""
        if not (name and found and value):
            raise ConfigError(f"--engine-option {pair!r} is not NAME=VALUE.", "For example: max_model_len=512")
    return options
