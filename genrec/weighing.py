"""The stage `evidence`: what counts, texts and a retriever are worth beside the run's model.

The retriever (`baselines.two_tower`) learns from training histories, the weights from the validation split. With
`learn_from: dialogues` the cases are those of the run's dialogues that are kept for validation: what somebody
recommended after what had been mentioned. While weights are fitted, only training dialogues are counted.

Most users fit a blend (see `baselines.blend`), and say whether a weighted sum is enough: unless a hidden layer that the
other half of them taught is ahead by two standard errors. The others choose, by decoding, how strongly evidence joins
and as what. Choices of that list
differ by less than they can tell, so of those within one standard error of the best it takes the first of the list (the
rule of Breiman et al. 1984, sec. 3.4.3, with the list in the order of what did best on other users). `nothing` is among
the choices: evidence that harms is not used.

C users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec import metrics
from genrec.baselines.base import rank_all
from genrec.baselines.blend import Blend, BlendBaseline, fit_blend, held_out_ranks, with_network
from genrec.baselines.candidates import Candidates, gather_candidates
from genrec.baselines.signals import SignalSource
from genrec.baselines.two_tower import train_two_tower
from genrec.config import EvidenceConfig, dump_config
from genrec.data.catalog import Catalog, removed_items
from genrec.data.dialogues import dialogues_file, load_turns, turn_cases
from genrec.data.sequences import EvaluationCases
from genrec.data.splits import cold_items, evaluation_cases, training_sequences
from genrec.decoding.engine import EngineOptions
from genrec.encoders.base import embedding_files
from genrec.errors import DataError
from genrec.evidence import Join
from genrec.evidence_source import (
    STAGES,
    EvidenceSource,
    content_modality,
    load_content,
    load_signals,
    retriever_file,
    weights_file,
    weights_json,
)
from genrec.files import atomic_file
from genrec.progress import SILENT, Progress
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run, StageReport, write_json, writes
from genrec.trie_filters import ItemFilter

_CUTOFF = 10
# The model weighs 1. On other users than those who chose, 5 was ahead on Amazon Beauty (docs/experiments.md).
_PRODUCTS = (5.0, 3.0, 8.0, 2.0, 1.4, 1.0)
_MIXTURES = (0.8, 0.4)
_LEAST_FITTING = 10  # users, below which nothing can be told
_CHOOSERS = 2000  # at most: every one is decoded nine times
_SHARES_OF = 200  # users over whom the report averages what spoke


@writes("genrec evidence")
def weigh_evidence(
    run: Run,
    config: EvidenceConfig,
    *,
    engine: str = "transformers",
    engine_options: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> StageReport:
    """Learn the weights, write them below `evidence/` and record the stage. `engine_options` are vLLM's own arguments.

    Raises RunError where the run is not trained, DataError where it has too few validation users or dialogues.
    """
    started = run.begin()
    catalog = Catalog.load(run)
    fitting, choosing = _split_users(run, config, catalog)
    options: EngineOptions = {"engine_options": engine_options or {}}
    recommender = Recommender.load(run.path, engine, beam_width=config.beam_width, evidence=False, **options)
    with closing(recommender.engine):
        modality = content_modality(run)
        turns = load_turns(run, "train", catalog=catalog) if config.learn_from == "dialogues" else None
        vectors, mask = load_content(run, modality, catalog=catalog)
        tower = train_two_tower(
            training_sequences(run), len(catalog), vectors=vectors, mask=mask, seed=config.seed, progress=progress
        )
        signals = load_signals(run, modality, catalog=catalog, tower=tower, turns=turns)
        # Items that were held out teach nothing here either: they are no candidates and in no answer.
        known = ~removed_items(run, catalog=catalog) & ~cold_items(run)
        blend = _fit(signals, fitting, known=known, seed=config.seed, progress=progress)
        found, chosen = _choose(recommender, signals, choosing, blend, known=known, progress=progress)
        report = _report(
            recommender.with_evidence(chosen), config, choosing, found=found, num_fitting=len(fitting), path=run.path
        )
    written = [weights_file(run, config.learn_from), retriever_file(run, config.learn_from)]
    with atomic_file(written[1]) as temporary:
        tower.save(temporary)
    write_json(written[0], weights_json(chosen, modality=modality))
    files = [run.path / "items.parquet", run.path / "splits.parquet"]
    files += [dialogues_file(run)] if config.learn_from == "dialogues" else []
    files += embedding_files(run, modality) if modality is not None else []
    files += [run.path / file for file in run.require("train", verify=False).outputs]
    run.record(
        report,
        config=dump_config(config),
        seed=config.seed,
        inputs=files,
        outputs=written,
        started=started,
    )
    return report


def _split_users(run: Run, config: EvidenceConfig, catalog: Catalog) -> tuple[EvaluationCases, EvaluationCases]:
    """Cases that fit and cases that choose, a third and not too many; those of one user or dialogue stay together."""
    if config.learn_from == "users":
        cases = evaluation_cases(run, "validation")
    else:
        cases = turn_cases(load_turns(run, "validation", catalog=catalog), ~cold_items(run))
    cases = cases.select(~removed_items(run, catalog=catalog)[cases.targets]).sample(config.users, seed=config.seed)
    users = {user: row for row, user in enumerate(dict.fromkeys(cases.user_ids))}
    if len(users) < 3:
        what = {"users": "Ingest data in which users have three items or more.", "dialogues": "Run `genrec dialogues`."}
        raise DataError(
            f"{run.path} has {len(users)} validation {config.learn_from}; evidence needs three at least.",
            what[config.learn_from],
        )
    chosen = np.random.default_rng(config.seed).permutation(len(users)) < min(len(users) // 3, _CHOOSERS)
    chooses = chosen[[users[user] for user in cases.user_ids]]
    return cases.select(~chooses), cases.select(chooses)


def _fit(
    signals: SignalSource,
    fitting: EvaluationCases,
    *,
    known: NDArray[np.bool_],
    seed: int,
    progress: Progress,
) -> Blend:
    """What the fitting users say, in the shape that pays among them."""
    candidates = gather_candidates(signals, fitting, may_teach=known, seed=seed, progress=progress)
    if len(candidates.starts) == 0:
        raise DataError("no validation user's next item is among anybody's candidates.", "Use more users.")
    plain = fit_blend(candidates)
    if not _layer_pays(candidates, seed=seed, progress=progress):
        return plain
    return with_network(plain, candidates, seed=seed, progress=progress)


def _layer_pays(candidates: Candidates, *, seed: int, progress: Progress) -> bool:
    """Whether the hidden layer is worth its two thousand numbers: ahead of the sum by more than two standard errors.

    All fitting users tell, each by what the other half of them taught: the choosing users are too few, and whether they
    saw the gain was chance.
    """
    if len(candidates.starts) < _LEAST_FITTING:
        return False
    ranks = held_out_ranks(candidates, seed=seed, progress=progress)
    ndcg = {name: metrics.ndcg(one.astype(np.float64), _CUTOFF) for name, one in ranks.items()}
    return first_of_the_best(ndcg, errors=2.0) == "layered"


def _choose(
    recommender: Recommender,
    signals: SignalSource,
    cases: EvaluationCases,
    blend: Blend,
    *,
    known: NDArray[np.bool_],
    progress: Progress,
) -> tuple[dict[str, tuple[float, float]], EvidenceSource]:
    """Recall and NDCG of every choice on the choosing users, and the choice: see the module's first words."""
    options: list[tuple[Join, float]] = [("product", weight) for weight in _PRODUCTS]
    options += [("mixture", share) for share in _MIXTURES]
    choices = {f"{join} {weight:g}": EvidenceSource(signals, blend, weight, join) for join, weight in options}
    choices["model alone"] = EvidenceSource(signals, blend, 0.0, "product")
    found: dict[str, tuple[float, float]] = {}
    ndcg: dict[str, NDArray[np.float64]] = {}
    with progress.track("Choosing the weight", len(choices), "choices") as task:
        for name, source in choices.items():
            ndcg[name], found[name] = _quality(recommender.with_evidence(source), cases, known)
            task.advance(note=f"{name}: NDCG@{_CUTOFF} {found[name][1]:.4f}")
    best = first_of_the_best(ndcg)
    found["evidence alone"] = _figures(_ranked(signals, blend, cases, known), cases)
    found["chosen"] = found[best]
    return found, choices[best]


def first_of_the_best(quality: Mapping[str, NDArray[np.float64]], *, errors: float = 1.0) -> str:
    """The first of the choices whose users, (C,), are on average within so many standard errors of the best choice's.

    The error is that of the difference between the two, over the same users.
    """
    best = quality[max(quality, key=lambda name: quality[name].mean())]

    def level(one: NDArray[np.float64]) -> bool:
        behind = best - one
        return bool(behind.mean() <= errors * behind.std() / np.sqrt(len(behind)))

    return next(name for name, one in quality.items() if level(one))


def _quality(
    recommender: Recommender, cases: EvaluationCases, known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """NDCG of every user, (C,); then the means of recall and NDCG."""
    trie = recommender.trie
    only = None if known[trie.items].all() else ItemFilter.allowing(trie, known)
    answers = recommender.rank([RankRequest(history, allowed=only) for history in cases.histories], _CUTOFF)
    ranked = metrics.pad_rankings([[item.item_index for item in answer] for answer in answers], _CUTOFF)
    return _ndcg(ranked, cases), _figures(ranked, cases)


def _ranked(signals: SignalSource, blend: Blend, cases: EvaluationCases, known: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The best items by evidence alone, (C, 10), among those that are `known` (I,)."""
    baseline, histories = BlendBaseline(signals, blend), list(cases.histories)
    return rank_all(baseline, histories, _CUTOFF, num_items=signals.num_items, seed=0, allowed=known)


def _ndcg(ranked: NDArray[np.int32], cases: EvaluationCases) -> NDArray[np.float64]:
    return metrics.ndcg(metrics.target_ranks(ranked, cases.targets), _CUTOFF)


def _figures(ranked: NDArray[np.int32], cases: EvaluationCases) -> tuple[float, float]:
    ranks = metrics.target_ranks(ranked, cases.targets)
    return float(metrics.recall(ranks, _CUTOFF).mean()), float(metrics.ndcg(ranks, _CUTOFF).mean())


def _mean_shares(recommender: Recommender, histories: Sequence[NDArray[np.int32]]) -> dict[str, float]:
    """What spoke for the recommended items, on average, largest first."""
    total: dict[str, float] = {}
    answers = recommender.rank([RankRequest(history) for history in histories], _CUTOFF)
    shares = [
        share
        for history, ranked in zip(histories, answers, strict=True)
        for share in recommender.shares(history, ranked)
    ]
    for share in shares:
        for name, part in share.items():
            total[name] = total.get(name, 0.0) + part / len(shares)
    return {name: round(total[name], 4) for name in sorted(total, key=lambda name: -total[name])}


def _report(
    recommender: Recommender,
    config: EvidenceConfig,
    cases: EvaluationCases,
    *,
    found: dict[str, tuple[float, float]],
    num_fitting: int,
    path: Path,
) -> StageReport:
    source = recommender.evidence
    assert source is not None
    shares = _mean_shares(recommender, list(cases.histories)[:_SHARES_OF])
    figures = {name: {"recall@10": round(one[0], 6), "ndcg@10": round(one[1], 6)} for name, one in found.items()}
    facts = {
        "join": source.join,
        "weight": round(source.weight, 4),
        "hidden_layer": source.blend.network is not None,
        "num_fitting_users": num_fitting,
        "num_choosing_users": len(cases),
        "shares": shares,
        "choices": figures,
    }
    words = [
        f"  {name:18} Recall@10 {recall:.4f}  NDCG@10 {ndcg:.4f}"
        for name, (recall, ndcg) in found.items()
        if name != "chosen"
    ]
    layered = " and a hidden layer over them" if source.blend.network else "; a hidden layer was not surely better"
    words.append(f"Evidence is a weighted sum of signals{layered}.")
    if source.weight == 0:
        words.append("Evidence beside the model did not help on validation: the model stays alone.")
    else:
        words.append(f"Evidence joins the model as a {source.join} of weight {source.weight:g}. Of the answers speaks:")
        words.append("  " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    if config.learn_from == "users":
        words.insert(0, f"On {len(cases):,} validation users that fitted nothing:")
    else:
        words.insert(0, f"On {len(cases):,} recommendations of validation dialogues that fitted nothing:")
    verb = "evaluate" if config.learn_from == "users" else "chat"
    return StageReport(STAGES[config.learn_from], facts, words, f"genrec {verb} {path}")
