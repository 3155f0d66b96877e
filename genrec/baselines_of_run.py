"""The baselines of a run by name, made from its vectors and its evidence: who is asked beside the model.

Where `genrec tune` has chosen settings for a baseline (`evaluation/tuned.json`), it is made with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genrec.baselines.base import Baseline
from genrec.baselines.blend import BlendBaseline
from genrec.baselines.dense_knn import DenseKNN
from genrec.baselines.ease import EASE
from genrec.baselines.gru4rec import GRU4Rec
from genrec.baselines.hybrid import Hybrid
from genrec.baselines.item_knn import ItemKNN
from genrec.baselines.next_item import NextItemSettings
from genrec.baselines.popularity import Popularity
from genrec.baselines.sasrec import SASRec
from genrec.baselines.star import STAR
from genrec.baselines.transitions import Transitions
from genrec.baselines.two_tower import TwoTower, TwoTowerBaseline
from genrec.config import EvaluateConfig
from genrec.data.catalog import Catalog
from genrec.data.splits import evaluation_cases, forgotten_items
from genrec.encoders.base import Embeddings, embedding_files, vouched_modalities
from genrec.errors import RunError
from genrec.evidence_source import STAGES, EvidenceSource, content_modality, load_content, retriever_file, weights_file
from genrec.run import Run, read_json

Settings = Mapping[str, Any]

COUNTING: dict[str, type[ItemKNN | Transitions | EASE]] = {
    "item-knn": ItemKNN,
    "transitions": Transitions,
    "ease": EASE,
}
OF_TEXTS: dict[str, type[Hybrid | STAR]] = {"hybrid": Hybrid, "star": STAR}
NEURAL: dict[str, type[SASRec | GRU4Rec]] = {"sasrec": SASRec, "gru4rec": GRU4Rec}
# What `genrec tune` may choose, per baseline: the default first.
SPACES: dict[str, Mapping[str, tuple[Any, ...]]] = {
    **{name: kind.SPACE for name, kind in COUNTING.items()},
    **{name: kind.SPACE for name, kind in OF_TEXTS.items()},
    **{name: kind.SPACE for name, kind in NEURAL.items()},
}
BASELINES = (
    *("popularity", "item-knn", "ease", "transitions", "dense-knn", "star", "hybrid"),
    *("evidence", "two-tower", "sasrec", "gru4rec"),
)
TUNING = "tune"


def tuned_file(run: Run) -> Path:
    """Where a run keeps the settings that were chosen for its baselines."""
    return run.path / "evaluation" / "tuned.json"


def default_settings(name: str) -> dict[str, Any]:
    """The settings that a baseline has by itself: the first value of everything that can be chosen."""
    return {setting: values[0] for setting, values in SPACES[name].items()}


def tuned_settings(run: Run, baselines: Sequence[str]) -> dict[str, Settings]:
    """The chosen settings of those of `baselines` that were tuned, by name: what differs from today's defaults.

    Raises RunError for a damaged file.
    """
    if TUNING not in run.stages or not SPACES.keys() & set(baselines):
        return {}
    run.require(TUNING)
    try:
        found = read_json(tuned_file(run))["baselines"]
        return {name: _not_default(name, found[name]) for name in dict.fromkeys(baselines) if name in found}
    except (KeyError, TypeError) as error:
        raise RunError(f"{tuned_file(run)} lacks {error}.", f"Run `genrec tune {run.path}` again.") from error


def _not_default(name: str, found: Mapping[str, Any]) -> Settings:
    """The choice against today's defaults: it was made against those of its day, which may be others."""
    today = default_settings(name)
    chosen = {**found.get("defaults", {}), **found["settings"]}  # the former is younger than the file
    return {key: value for key, value in chosen.items() if key not in today or today[key] != value}


def make_baselines(run: Run, config: EvaluateConfig, catalog: Catalog) -> tuple[list[Baseline], dict[str, str]]:
    """The baselines that can run, in the order asked for, and why the others cannot."""
    made: list[Baseline] = []
    skipped: dict[str, str] = {}
    tuned = tuned_settings(run, config.baselines)
    for name in dict.fromkeys(config.baselines):
        found = make_baseline(name, run, catalog, settings=tuned.get(name, {}), dense_modality=config.dense_modality)
        if isinstance(found, str):
            skipped[name] = found
        else:
            made.append(found)
    return made, skipped


def make_baseline(
    name: str, run: Run, catalog: Catalog, *, settings: Settings, dense_modality: str = "text"
) -> Baseline | str:
    """One baseline with these settings, the others at their defaults; or why it cannot run, as a sentence."""
    if name == "popularity":
        return Popularity()
    if name == "ease" and len(catalog) > EASE.MOST_ITEMS:
        return f"it inverts a matrix of all pairs of items, here {len(catalog):,}; {EASE.MOST_ITEMS:,} is the most."
    if name in COUNTING:
        return COUNTING[name](**settings)
    if name == "evidence":
        source = EvidenceSource.load(run, catalog=catalog)
        missing = "the run has no weights of evidence (make them with `genrec evidence`)."
        return missing if source is None else BlendBaseline(source.signals, source.blend)
    if name == "two-tower":
        content = load_content(run, content_modality(run), catalog=catalog)
        trained = None
        if STAGES["users"] in run.stages:  # its retriever is this model: no need to train it twice
            forgotten = forgotten_items(run, catalog=catalog)
            trained = TwoTower.load(retriever_file(run)).over(len(catalog), *content, forgotten=forgotten)
        return TwoTowerBaseline(*content, trained=trained)
    if name in NEURAL:
        validation = evaluation_cases(run, "validation")
        if not len(validation):
            return "the run has no validation cases, which choose the epoch that it keeps."
        return NEURAL[name](validation, NextItemSettings(**{**NEURAL[name].DEFAULTS, **settings}))
    modality = _modality(name, dense_modality)
    if not _has_vectors(run, modality):
        return f"the run has no {modality} embeddings (make them with `genrec embed`)."
    vectors = Embeddings.load(run, modality, catalog=catalog)
    if name == "dense-knn":
        return DenseKNN(vectors.vectors, vectors.mask)
    return OF_TEXTS[name](vectors.vectors, vectors.mask, **settings)


def _modality(baseline: str, dense_modality: str) -> str:
    return dense_modality if baseline == "dense-knn" else "text"


def _has_vectors(run: Run, modality: str) -> bool:
    # One file of the two is a damaged run, about which `Embeddings.load` has something to say.
    return modality in vouched_modalities(run) and any(file.exists() for file in embedding_files(run, modality))


def baseline_inputs(run: Run, baselines: Sequence[str], *, dense_modality: str = "text") -> list[Path]:
    """The files of a run that these baselines read."""
    inputs = [run.path / "items.parquet", run.path / "splits.parquet"]
    of_vectors = {*OF_TEXTS, "dense-knn", "two-tower"}
    for modality in sorted({_modality(name, dense_modality) for name in baselines if name in of_vectors}):
        inputs += embedding_files(run, modality) if _has_vectors(run, modality) else []
    if {"evidence", "two-tower"} & set(baselines):
        inputs += [file for file in (weights_file(run), retriever_file(run)) if file.exists()]
    return inputs
