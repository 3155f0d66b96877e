"""Train a run's model on its own recommendations: GRPO with a reward by rank, or DPO against sampled items.

    python train/reinforce.py runs/films --out runs/films-grpo
    python train/reinforce.py runs/films --out runs/films-dpo --config dpo.yaml

The configuration is a YAML file of genrec.config.ReinforceConfig. The result is a run of its own, for
`genrec evaluate`; where validation NDCG@10 never rose, its model is the old one, and the report says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from genrec.config import ReinforceConfig, load_config
from genrec.console import ConsoleProgress, print_error, print_report
from genrec.errors import GenrecError
from genrec.reinforcement import reinforce
from genrec.run import Run


def main() -> int:
    """Read the options, reinforce, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a trained run; it is not changed")
    parser.add_argument("--out", type=Path, required=True, help="the run to make")
    parser.add_argument("--config", type=Path, help="YAML file of genrec.config.ReinforceConfig")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    try:
        config = ReinforceConfig() if options.config is None else load_config(ReinforceConfig, options.config)
        report = reinforce(Run.open(options.run), config, out=options.out, progress=ConsoleProgress())
    except GenrecError as error:
        print_error(error)
        return error.exit_status
    print_report(report, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
