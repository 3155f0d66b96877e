"""`genrec …`: every verb reads its options, calls one function of the library and prints its report.

Exit status: 0 done, 1 something in the data, the run or a line of a batch is wrong, 2 wrong usage.
Nothing heavy is imported before the options and the run are known to be right, so that `--help` and a
misspelt key answer at once.
"""

from __future__ import annotations

import io
import logging
import os
import sys

# A verb enters itself into `app` when its module is imported.
from genrec.cli import catalogue, conversation, explain, items, model, transfer, whole  # noqa: F401
from genrec.cli.options import app
from genrec.console import print_error
from genrec.errors import GenrecError

# As --help lists them: the way to a run, its use, and what else can be done with it.
_ORDER = (
    "quickstart ingest embed tokenize dialogues train evidence tune evaluate recommend explain chat serve export "
    "transfer inspect"
)
app.registered_commands.sort(
    key=lambda verb: _ORDER.split().index(str(verb.name or getattr(verb.callback, "__name__", "")))
)


def main() -> None:
    """Run the command line; errors of ours become one clear message and their exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal or locale cannot show must not end a command
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):  # nor what was typed in another encoding
        sys.stdin.reconfigure(errors="replace")
    if not sys.stderr.isatty():  # transformers draws its bars into files as well
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # It looks for a faster kernel in a package that nobody asked for; what is missed here is said by our own errors.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        app()
    except GenrecError as error:
        print_error(error)
        sys.exit(error.exit_status)
