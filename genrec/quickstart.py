"""`genrec quickstart`: the whole way on the bundled films, then recommendations for three real people."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genrec import pipeline
from genrec.config import (
    EmbedConfig,
    EvaluateConfig,
    EvidenceConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
)
from genrec.data.ingest import ingest
from genrec.data.sources.movielens import bundled_movielens
from genrec.data.splits import evaluation_cases
from genrec.encoders.embed import embed
from genrec.errors import ConfigError, RunError
from genrec.progress import SILENT, Progress
from genrec.recommender import RankRequest, Recommendation, Recommender
from genrec.run import Run, StageReport
from genrec.weighing import weigh_evidence

# The defaults of `genrec train`, but for long histories of few people: 148 films each, of which the newest 50 are read.
TRAINING = TrainConfig(
    max_history_items=50, epochs=10, batch_tokens=2048, validation_users=300, validate_every=5, patience=2
)


@dataclass(frozen=True)
class Person:
    """A real user of the test split: what they liked last, what they then took, what the model says."""

    user_id: str
    history: list[str]  # titles, oldest first
    next_title: str
    recommendations: list[Recommendation]


@dataclass(frozen=True)
class QuickstartResult:
    """Everything that the command prints at the end."""

    run: Run
    people: list[Person]
    evaluation: StageReport
    seconds: float


def quickstart(out: Path, *, training: TrainConfig = TRAINING, progress: Progress = SILENT) -> QuickstartResult:
    """Ingest, embed, tokenize, train, weigh evidence and evaluate on the bundled MovieLens films into the run `out`."""
    started = time.monotonic()
    run = Run.create(out)
    stages: list[tuple[str, Callable[[], StageReport]]] = [
        ("ingest", lambda: ingest(run, "movielens", [bundled_movielens()], IngestConfig(), progress=progress)),
        ("embed", lambda: embed(run, EmbedConfig(), progress=progress)),
        ("tokenize", lambda: pipeline.tokenize(run, TokenizeConfig(), progress=progress)),
        ("train", lambda: _train(run, training, progress)),
        ("evidence", lambda: weigh_evidence(run, EvidenceConfig(), progress=progress)),
        ("evaluate", lambda: pipeline.evaluate(run, EvaluateConfig(), progress=progress)),
    ]
    for number, (name, stage) in enumerate(stages, start=1):
        progress.say(f"[{number}/{len(stages)}] {name}")
        report = stage()
        if name != "evaluate":  # its table comes last, after the people
            for line in report.words:
                progress.say(f"  {line}")
    return QuickstartResult(run, three_people(run), report, time.monotonic() - started)


def _train(run: Run, config: TrainConfig, progress: Progress) -> StageReport:
    """Go on with the training that a kill has left here; begin anew where it was another one, or is damaged."""
    if (run.path / "training" / "checkpoint").exists():
        try:
            return pipeline.train(run, config, resume=True, progress=progress)
        except (ConfigError, RunError):
            progress.say("  The unfinished training here had other settings, or is damaged: it begins anew.")
    return pipeline.train(run, config, progress=progress)


def three_people(run: Run, *, k: int = 5, shown: int = 5) -> list[Person]:
    """Three users of the test split, spread over the list, with their `k` recommendations."""
    recommender = Recommender.load(run.path)
    cases = evaluation_cases(run, "test")
    chosen = [len(cases) * part // 4 for part in (1, 2, 3)]
    answers = recommender.rank([RankRequest(cases.histories[case]) for case in chosen], k)
    titles = recommender.catalog.titles
    return [
        Person(
            cases.user_ids[case],
            [titles[item] for item in cases.histories[case][-shown:]],
            titles[cases.targets[case]],
            recommender.describe(ranked),
        )
        for case, ranked in zip(chosen, answers, strict=True)
    ]
