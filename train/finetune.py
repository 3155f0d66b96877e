"""Fine-tune the language model of a run: what `genrec train` does, in a form that `accelerate launch` can start.

One process:        python train/finetune.py train/configs/default.yaml --run runs/beauty
Several processes:  accelerate launch --num_processes 4 train/finetune.py train/configs/default.yaml --run runs/beauty
Go on after a kill: add --resume
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from genrec.config import TrainConfig, load_config
from genrec.console import ConsoleProgress, print_error, print_report
from genrec.errors import GenrecError
from genrec.pipeline import train
from genrec.progress import SILENT
from genrec.run import Run, check_unfinished


def main() -> int:
    """Read the options, train, print the report from the first process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="YAML file of genrec.config.TrainConfig")
    parser.add_argument("--run", type=Path, required=True, help="run directory with semantic IDs")
    parser.add_argument("--resume", action="store_true", help="go on where a killed training stopped")
    options = parser.parse_args()
    from accelerate import PartialState

    first = PartialState().is_main_process
    try:
        config, run = load_config(TrainConfig, options.config), Run.open(options.run)
        if options.resume:
            check_unfinished(run)
        progress = ConsoleProgress() if first else SILENT
        report = train(run, config, resume=options.resume, progress=progress)
    except GenrecError as error:
        print_error(error)
        return error.exit_status
    if first:
        print_report(report, as_json=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
