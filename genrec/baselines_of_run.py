"""The baselines of a run by name, made from its vectors and its evidence: who is asked beside the model."""

from __future__ import annotations

from pathlib import Path

from genrec.baselines.base import Baseline
from genrec.baselines.blend import BlendBaseline
from genrec.baselines.dense_knn import DenseKNN
from genrec.baselines.hybrid import Hybrid
from genrec.baselines.item_knn import ItemKNN
from genrec.baselines.popularity import Popularity
from genrec.baselines.sasrec import SASRec
from genrec.baselines.transitions import Transitions
from genrec.baselines.two_tower import TwoTower, TwoTowerBaseline
from genrec.config import EvaluateConfig
from genrec.data.catalog import Catalog
from genrec.data.splits import evaluation_cases
from genrec.encoders.base import Embeddings, embedding_files
from genrec.evidence_source import STAGES, EvidenceSource, content_modality, load_content, retriever_file, weights_file
from genrec.run import Run

BASELINES = ("popularity", "item-knn", "transitions", "dense-knn", "hybrid", "evidence", "two-tower", "sasrec")


def make_baselines(run: Run, config: EvaluateConfig, catalog: Catalog) -> tuple[list[Baseline], dict[str, str]]:
    """The baselines that can run, in the order asked for, and why the others cannot."""
    made: list[Baseline] = []
    skipped: dict[str, str] = {}
    for name in dict.fromkeys(config.baselines):
        if name == "popularity":
            made.append(Popularity())
        elif name == "item-knn":
            made.append(ItemKNN())
        elif name == "transitions":
            made.append(Transitions())
        elif name == "evidence":
            source = EvidenceSource.load(run, catalog=catalog)
            if source is None:
                skipped[name] = "the run has no weights of evidence (make them with `genrec evidence`)."
            else:
                made.append(BlendBaseline(source.signals, source.alone))
        elif name == "two-tower":
            content = load_content(run, content_modality(run), catalog=catalog)
            trained = None
            if STAGES["users"] in run.stages:  # its retriever is this model: no need to train it twice
                trained = TwoTower.load(retriever_file(run)).over(len(catalog), *content)
            made.append(TwoTowerBaseline(*content, trained=trained))
        elif name in {"hybrid", "dense-knn"}:
            modality = _modality(name, config)
            if not _has_vectors(run, modality):
                skipped[name] = f"the run has no {modality} embeddings (make them with `genrec embed`)."
                continue
            vectors = Embeddings.load(run, modality, catalog=catalog)
            kind = Hybrid if name == "hybrid" else DenseKNN
            made.append(kind(vectors.vectors, vectors.mask))
        else:
            validation = evaluation_cases(run, "validation")
            if len(validation):
                made.append(SASRec(validation))
            else:
                skipped[name] = "the run has no validation cases, which decide when its training stops."
    return made, skipped


def _modality(baseline: str, config: EvaluateConfig) -> str:
    return "text" if baseline == "hybrid" else config.dense_modality


def _has_vectors(run: Run, modality: str) -> bool:
    # One file of the two is a damaged run, about which `Embeddings.load` has something to say.
    return any(file.exists() for file in embedding_files(run, modality))


def baseline_inputs(run: Run, config: EvaluateConfig) -> list[Path]:
    """The files of a run that its baselines read."""
    inputs = [run.path / "items.parquet", run.path / "splits.parquet"]
    wanted = {_modality(name, config) for name in config.baselines if name in {"hybrid", "dense-knn"}}
    wanted |= {"text"} if "two-tower" in config.baselines else set()
    for modality in sorted(wanted):
        inputs += embedding_files(run, modality) if _has_vectors(run, modality) else []
    inputs += [file for file in (weights_file(run), retriever_file(run)) if file.exists()]
    return inputs
