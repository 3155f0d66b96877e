"""Align the modalities of a run: what `genrec embed --align` does, in a form that `accelerate launch` can start.

One process:        python train/pretrain_encoders.py --run runs/films
Several processes:  accelerate launch --num_processes 4 train/pretrain_encoders.py CONFIG.yaml --run runs/films
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from genrec.config import AlignConfig, load_config
from genrec.console import ConsoleProgress, print_error, print_report
from genrec.encoders.alignment import align
from genrec.errors import GenrecError
from genrec.progress import SILENT
from genrec.run import Run


def main() -> int:
    """Read the options, align, print the report from the first process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", help="YAML file of genrec.config.AlignConfig")
    parser.add_argument("--run", type=Path, required=True, help="run directory with embeddings (genrec embed)")
    options = parser.parse_args()
    from accelerate import PartialState

    first = PartialState().is_main_process
    try:
        config = AlignConfig() if options.config is None else load_config(AlignConfig, options.config)
        report = align(Run.open(options.run), config, progress=ConsoleProgress() if first else SILENT)
    except GenrecError as error:
        print_error(error)
        return error.exit_status
    if first:
        print_report(report, as_json=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
