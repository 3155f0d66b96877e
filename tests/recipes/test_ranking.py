"""eval/ranking.py: the baselines of a run as `genrec evaluate` measures them, and the run is left as it is."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from genrec.catalogue_changes import remove_items
from genrec.config import EvaluateConfig, TuneConfig
from genrec.evaluation import evaluate
from genrec.run import Run, read_json
from genrec.tuning import tune_baselines

SCRIPT = Path(__file__).resolve().parents[2] / "eval" / "ranking.py"


def test_it_measures_as_an_evaluation_does_after_removals_and_tuning(tiny_copy: Path, tmp_path: Path) -> None:
    run = Run.open(tiny_copy)
    tune_baselines(run, TuneConfig(baselines=("transitions",), trials=3, users=20))
    (tmp_path / "gone.txt").write_text("".join(f"i{number}\n" for number in range(20, 30)))
    remove_items(run, tmp_path / "gone.txt", when="2026-01-01T00:00:00")
    manifest = (run.path / "manifest.json").read_bytes()
    config = EvaluateConfig(baselines=("popularity", "transitions"), cutoffs=(5, 10))
    found = json.loads(json.dumps(runpy.run_path(str(SCRIPT), run_name="ranking")["measure"](run, config).as_json))
    assert (run.path / "manifest.json").read_bytes() == manifest

    evaluate(run, config, recommend=None)
    expected = read_json(run.path / "evaluation" / "test.json")
    assert found["num_items"] == 20
    assert found["num_removed_targets"] > 0
    assert found["tuned"].keys() == {"transitions"}
    for figures in (found, expected):
        for method in figures["methods"]:
            del method["seconds"]
    same = ("methods", "num_items", "num_cases", "num_removed_targets", "tuned", "skipped")
    assert [found[name] for name in same] == [expected[name] for name in same]
