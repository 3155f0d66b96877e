"""Train a small language model and its tokenizer from text at hand, for machines without a model hub.

    python train/pretrain_base.py --out models/small --run runs/films --text reviews.jsonl.gz:reviewText
    python train/pretrain_base.py --out models/small --run runs/films --config shape.yaml --resume

`--text` takes text files (a line is a document) and JSON lines as FILE:field,field; `--run` takes a run's items,
and of its training interactions the reviews and the titles in order. Both may be given several times.
What it makes is small, and says so in its README.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from genrec.config import PretrainConfig, load_config
from genrec.console import ConsoleProgress, print_error, print_report
from genrec.errors import GenrecError
from genrec.progress import SILENT
from genrec.run import Run


def main() -> int:
    """Read the options, pretrain, print the report from the first process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the base to make")
    parser.add_argument("--text", action="append", default=[], metavar="FILE[:fields]", help="a file of text")
    parser.add_argument("--run", type=Path, action="append", default=[], help="a run directory")
    parser.add_argument("--config", type=Path, help="YAML file of genrec.config.PretrainConfig")
    parser.add_argument("--resume", action="store_true", help="go on where a killed training stopped")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    from accelerate import PartialState

    from genrec.data.text_source import TextSource
    from genrec.training.pretraining import pretrain

    first = PartialState().is_main_process
    try:
        report = pretrain(
            [TextSource.parse(text) for text in options.text],
            [Run.open(path) for path in options.run],
            PretrainConfig() if options.config is None else load_config(PretrainConfig, options.config),
            out=options.out,
            resume=options.resume,
            progress=ConsoleProgress() if first else SILENT,
        )
    except GenrecError as error:
        print_error(error)
        return error.exit_status
    if first:
        print_report(report, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
