"""A run ─► what explains its items: its facts, its languages and, where its model knows words, the model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast, get_args

from genrec.adapter import base_run
from genrec.decoding.engine import Engine
from genrec.errors import ConfigError
from genrec.explanation.explainer import Explainer, TextModel
from genrec.explanation.facts import Facts, OwnTexts
from genrec.explanation.language import prompt_folder
from genrec.explanation.lessons import taught_languages
from genrec.explanation.model_text import EngineText
from genrec.live_catalogue import LiveCatalogue
from genrec.run import Run, text_checksum

WriterName = Literal["auto", "template", "model"]


def load_explainer(
    run: Run,
    live: LiveCatalogue,
    *,
    engine: Engine | None,
    writer: WriterName = "auto",
    prompts: Path | None = None,
    tags: OwnTexts | None = None,
) -> Explainer:
    """Read what explanations of a run need; `engine` may be None where `writes_with_model` says no.

    Raises RunError where the run is damaged, ConfigError for a writer that does not exist.
    """
    facts = run.read_unchanged(lambda: Facts.load(run, live.catalog, tags=tags))
    model: TextModel | None = None
    if writes_with_model(run, writer):
        assert engine is not None
        model = EngineText.load(run, engine)
    return Explainer(
        facts,
        prompt_folder(run.path, prompts),
        model=model,
        taught=None if writer == "model" else languages_known(run),
        model_version=model_version(run),
        catalog_version=live.trie.version,
    )


def as_writer(name: str) -> WriterName:
    """A writer by its name. Raises ConfigError for one that does not exist."""
    for writer in get_args(WriterName):
        if name == writer:
            return cast(WriterName, writer)
    raise ConfigError(f"there is no writer {name!r}.", f"Choose one of: {', '.join(get_args(WriterName))}.")


def writes_with_model(run: Run, writer: WriterName) -> bool:
    """Whether the run's model writes. Raises ConfigError for a writer that does not exist."""
    return as_writer(writer) == "model" or (writer == "auto" and knows_words(run))


def model_version(run: Run) -> str:
    """The first digits of a checksum of all of the run's weights, those of an adapter as well; "" without any."""
    outputs = run.require("train", verify=False).outputs
    weights = sorted((file, sum_) for file, sum_ in outputs.items() if file.endswith(".safetensors"))
    return text_checksum([text for pair in weights for text in pair])[:12] if weights else ""


def knows_words(run: Run) -> bool:
    """Whether the run's model can write: it was made from one that knows words, or was trained on explanations.

    A model from scratch that has read semantic IDs, or titles beside them, cannot.
    """
    return languages_known(run) != frozenset()


def languages_known(run: Run) -> frozenset[str] | None:
    """Codes of the languages that the run's model can write, None for a model that may know any: one from a base.

    A model from scratch knows those in which it was taught to explain, and so does what was trained further from its
    run. A run that was its own base (or a base of its base) has nothing on record of what it began as: None.
    """
    return _languages_known(run, frozenset())


def _languages_known(run: Run, later: frozenset[Path]) -> frozenset[str] | None:
    """As `languages_known`; `later` are the folders of the runs that were made from this one."""
    base = str(run.require("train", verify=False).config["base"])
    taught = taught_languages(run)
    if base == "scratch":
        return taught
    before, seen = base_run(base), later | {run.path.resolve()}
    if before is None or before.path.resolve() in seen or "train" not in before.stages:
        return None
    known = _languages_known(before, seen)
    return None if known is None else known | taught
