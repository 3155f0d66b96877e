"""Rank the users of a run with the baselines alone and print the table as Markdown; the run is not changed.

    python eval/ranking.py RUN [--split test] [--baselines transitions,hybrid] [--max-users N] [--seed 0]

For the model's row beside these, with the report and its plots: `genrec evaluate RUN`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from genrec.baselines_of_run import make_baselines, tuned_settings
from genrec.config import EvaluateConfig, build_config
from genrec.data.catalog import Catalog, removed_items
from genrec.data.splits import evaluation_cases, training_sequences
from genrec.errors import GenrecError
from genrec.evaluation import check_config, evaluate_methods
from genrec.report import EvaluationResult, markdown_report
from genrec.run import Run


def measure(run: Run, config: EvaluateConfig) -> EvaluationResult:
    """The baselines of `config` on a split of the run."""
    check_config(config, with_model=False)
    catalog = Catalog.load(run)
    cases = evaluation_cases(run, config.split)
    live = ~removed_items(run, catalog=catalog)
    num_removed = int((~live[cases.targets]).sum())
    cases = cases.select(live[cases.targets])
    if config.max_users is not None:
        cases = cases.sample(config.max_users, seed=config.users_seed)
    baselines, skipped = make_baselines(run, config, catalog)
    result = evaluate_methods(
        training_sequences(run), cases, num_items=len(catalog), config=config, baselines=baselines, live=live
    )
    tuned = tuned_settings(run, config.baselines)
    return replace(result, skipped=skipped, tuned=tuned, num_removed_targets=num_removed)


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Baselines of a run, as a Markdown table.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--baselines", default=",".join(EvaluateConfig().baselines))
    parser.add_argument("--max-users", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    folder = given.pop("run")
    given["baselines"] = tuple(given["baselines"].split(","))
    try:
        result = measure(Run.open(folder), build_config(EvaluateConfig, given, source="options"))
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(markdown_report(result, title=f"Baselines of {folder.resolve().name}, {result.split} split"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
