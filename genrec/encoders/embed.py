"""The stage `embed`: what items are, to one set of vectors per modality in `embeddings/`.

Every modality takes the same path: an encoder and one input per item, or vectors at once, become `Embeddings`
with a mask, facts and words. `_encoders` is the list of modalities.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genrec.config import EmbedConfig, dump_config
from genrec.data.catalog import Catalog
from genrec.data.sources.cells import MEDIA_FIELDS
from genrec.data.splits import training_sequences
from genrec.encoders.audio import audio_encoder
from genrec.encoders.base import Embeddings, ItemEncoder, check_modality
from genrec.encoders.behaviour import behaviour_revision, behaviour_vectors
from genrec.encoders.cache import encode_items
from genrec.encoders.image import image_encoder
from genrec.encoders.media import MediaFile, media_files
from genrec.encoders.precomputed import read_vectors, vectors_revision
from genrec.encoders.texts import item_texts
from genrec.encoders.video import video_encoder
from genrec.errors import ConfigError, DataError, RunError
from genrec.files import atomic_file
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport, writes

_MAX_SHOWN = 20


@dataclass(frozen=True)
class EmbedJob:
    """What every modality is made from."""

    run: Run
    config: EmbedConfig
    catalog: Catalog
    progress: Progress
    is_whole: bool = True  # the catalogue of the run, in which a modality without one readable input is a mistake


@dataclass(frozen=True, eq=False)
class MadeModality:
    """The vectors of one modality, and what else there is to say: lines of facts and of words."""

    embeddings: Embeddings
    facts: dict[str, Any] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)  # item_id, file, reason


Maker = Callable[[EmbedJob], MadeModality]


@writes("genrec embed")
def embed(run: Run, config: EmbedConfig, *, progress: Progress = SILENT) -> StageReport:
    """Write one set of vectors per modality of `config` and record the stage.

    Inputs that cannot be read are masked, listed in the report and in `embeddings/<modality>.problems.jsonl`,
    and stop nothing. Raises ConfigError where nothing or one modality twice is asked for, ModelError and
    MissingDependencyError from the encoders, DataError from the files of precomputed vectors and where a
    modality has not one input that can be read.
    """
    started = run.begin()
    config = _anchored(config)
    makers = _wanted(config)
    job = EmbedJob(run, config, Catalog.load(run), progress)
    outputs: list[Path] = []
    facts: dict[str, dict[str, object]] = {}
    words = []
    # All of them before the first is written: where one fails, the vectors of a finished run stay what they were.
    every = {modality: make(job) for modality, make in makers.items()}
    for modality, made in every.items():
        outputs += [*made.embeddings.save(run), *write_problems(run, modality, made.problems)]
        facts[modality] = {**_facts(made.embeddings), **made.facts}
        words += [" ".join([_sentence(made.embeddings), *made.words]), *problem_words(modality, made.problems)]
    report = StageReport("embed", {"modalities": facts}, words, f"genrec tokenize {run.path}")
    histories = [run.path / "splits.parquet"] if config.behaviour_model is not None else []
    run.record(
        report,
        config=dump_config(config),
        seed=0,
        inputs=[run.path / "items.parquet", *histories, *config.precomputed.values()],
        outputs=outputs,
        started=started,
    )
    return report


def _anchored(config: EmbedConfig) -> EmbedConfig:
    """The same with whole paths: new items are encoded later, and from another directory."""
    models = {name: getattr(config, name) for name in ("text_model", "image_model", "audio_model", "video_model")}
    folders = {name: str(Path(model).resolve()) for name, model in models.items() if model and Path(model).is_dir()}
    root = None if config.media_root is None else config.media_root.resolve()
    files = {name: file.resolve() for name, file in config.precomputed.items()}
    return config.model_copy(update={**folders, "media_root": root, "precomputed": files})


def content_modalities(config: EmbedConfig) -> list[str]:
    """Modalities that `config` names an encoder for which reads items alone, and not what people did with them."""
    return list(_encoders(config.model_copy(update={"behaviour_model": None})))


def encode_modality(
    run: Run, config: EmbedConfig, catalog: Catalog, modality: str, *, progress: Progress = SILENT
) -> MadeModality | None:
    """Vectors of the items of `catalog`, any items, by the encoder that `config` names for one of its modalities.

    None where not one of the items names a file of that modality. Inputs that cannot be read are listed and masked.
    Reads the run's cache of vectors and adds to it; writes nothing else.
    """
    if modality in MEDIA_FIELDS and not _any_file(catalog, modality):
        return None
    return _encoders(config)[modality](EmbedJob(run, config, catalog, progress, is_whole=False))


def _any_file(catalog: Catalog, column: str) -> bool:
    return column in catalog.table.columns and any(catalog.table[column].to_list())


def _encoders(config: EmbedConfig) -> dict[str, Maker]:
    """What makes each modality that `config` names a model for. A new one is one line here and its maker below."""
    encoders: list[tuple[str, bool, Maker]] = [
        ("text", config.text_model is not None, _text),
        ("image", config.image_model is not None, _image),
        ("behaviour", config.behaviour_model is not None, _behaviour),
        ("audio", config.audio_model is not None, _audio),
        ("video", config.video_model is not None, _video),
    ]
    return {name: make for name, wanted, make in encoders if wanted}


def _wanted(config: EmbedConfig) -> dict[str, Maker]:
    """What makes each modality that `config` asks for."""
    asked = _encoders(config)
    for name in config.precomputed:
        check_modality(name)
        if name in asked:
            raise ConfigError(
                f"Modality {name!r} is asked for twice: from a model and from a file.",
                f"Give the file another name, or set {name}_model to null.",
            )
    if not asked and not config.precomputed:
        raise ConfigError(
            "There is nothing to embed.",
            "Give --text, --image, --audio, --video or --behaviour MODEL, or --precomputed NAME=FILE.",
        )
    # Files first: they are read in a second, and a bad one should not show only after an hour of encoding.
    files = {name: partial(_precomputed, modality=name, file=file) for name, file in config.precomputed.items()}
    return {**files, **asked}


def _precomputed(job: EmbedJob, *, modality: str, file: Path) -> MadeModality:
    vectors, mask = read_vectors(file, job.catalog)
    revision = vectors_revision(file)
    return MadeModality(Embeddings(modality, vectors, mask, file.name, revision, job.catalog.order_checksum))


def _text(job: EmbedJob) -> MadeModality:
    from genrec.encoders.text import text_encoder

    texts = item_texts(job.catalog, job.config)
    return _encode(job, text_encoder(job.config, progress=job.progress), texts, batch_size=job.config.batch_size)


def _image(job: EmbedJob) -> MadeModality:
    files = media_files(job.run, job.catalog, "image", root=job.config.media_root)
    encoder = image_encoder(job.config, progress=job.progress)
    return _encode(job, encoder, files, batch_size=job.config.batch_size)


def _behaviour(job: EmbedJob) -> MadeModality:
    model, width = job.config.behaviour_model, job.config.behaviour_width
    assert model is not None
    sequences = training_sequences(job.run)
    revision = behaviour_revision(sequences)
    words = ["From training histories alone; new items have none."]
    known = _known_behaviour(job, revision)
    if known is not None:
        return MadeModality(known, words=[*words, "They are those of before: neither histories nor settings changed."])
    vectors, mask = behaviour_vectors(
        sequences, len(job.catalog), model=model, width=width, seed=0, progress=job.progress
    )
    return MadeModality(
        Embeddings("behaviour", vectors, mask, model, revision, job.catalog.order_checksum), words=words
    )


def _known_behaviour(job: EmbedJob, revision: str) -> Embeddings | None:
    """The run's behaviour vectors where they are of the same histories and were made in the same way."""
    record = job.run.stages.get("embed")
    settings = {"behaviour_model": job.config.behaviour_model, "behaviour_width": job.config.behaviour_width}
    if record is None or any(record.config.get(name) != value for name, value in settings.items()):
        return None
    try:
        job.run.require("embed")
        known = Embeddings.load(job.run, "behaviour", catalog=job.catalog)
    except RunError:  # damaged, or of another catalogue: they are made again
        return None
    return known if known.revision == revision else None


def _audio(job: EmbedJob) -> MadeModality:
    files = media_files(job.run, job.catalog, "audio", root=job.config.media_root)
    encoder = audio_encoder(job.config, progress=job.progress)
    return _encode(job, encoder, files, batch_size=job.config.clip_batch_size)


def _video(job: EmbedJob) -> MadeModality:
    files = media_files(job.run, job.catalog, "video", root=job.config.media_root)
    encoder = video_encoder(job.config, progress=job.progress)
    return _encode(job, encoder, files, batch_size=job.config.clip_batch_size)


def _encode(job: EmbedJob, encoder: ItemEncoder[Any, Any], inputs: Sequence[Any], *, batch_size: int) -> MadeModality:
    """Encode one input per item (None: missing), whatever the modality is."""
    made = encode_items(encoder, inputs, run=job.run, batch_size=batch_size, progress=job.progress)
    problems = [
        {"item_id": job.catalog.item_ids[row], "file": _file_name(inputs[row]), "reason": reason}
        for row, reason in made.unreadable.items()
    ]
    if problems and job.is_whole and not made.mask.any():
        raise DataError(
            f"Not one {encoder.modality} can be read:\n" + "\n".join(problem_words(encoder.modality, problems)[1:]),
            "Is the folder right (--media-root), and are these the files that the table means?",
        )
    embeddings = Embeddings(
        encoder.modality, made.vectors, made.mask, encoder.model, encoder.revision, job.catalog.order_checksum
    )
    words = [f"{made.num_encoded:,} inputs were encoded now; the cache had the others."]
    facts = {"encoded_now": made.num_encoded, "unreadable": len(problems)}
    return MadeModality(embeddings, facts, words, problems)


def _file_name(value: Any) -> str:
    return value.name if isinstance(value, MediaFile) else ""


def problems_file(run: Run, modality: str) -> Path:
    """Where the inputs of a modality that could not be read are listed; it is there where there are some."""
    return run.path / "embeddings" / f"{modality}.problems.jsonl"


def read_problems(run: Run, modality: str) -> list[dict[str, str]]:
    """What `write_problems` wrote: item_id, file and reason of every input that could not be read."""
    path = problems_file(run, modality)
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_problems(run: Run, modality: str, problems: Sequence[dict[str, str]]) -> list[Path]:
    """List what could not be read, one a line; no file where there is nothing to list. The path written."""
    path = problems_file(run, modality)
    if not problems:
        path.unlink(missing_ok=True)
        return []
    with atomic_file(path) as temporary:
        lines = (json.dumps(problem, ensure_ascii=False) + "\n" for problem in problems)
        temporary.write_text("".join(lines), encoding="utf-8")
    return [path]


def problem_words(modality: str, problems: Sequence[dict[str, str]]) -> list[str]:
    """What to say of inputs that could not be read: the first of them with their reasons."""
    if not problems:
        return []
    words = [
        f"{modality}: {len(problems):,} inputs cannot be read and count as missing "
        f"(all of them in embeddings/{modality}.problems.jsonl):"
    ]
    for problem in problems[:_MAX_SHOWN]:
        file = f" ({problem['file']})" if problem["file"] else ""
        words.append(f"  {problem['item_id']}{file}: {problem['reason']}.")
    if len(problems) > _MAX_SHOWN:
        words.append(f"  … and {len(problems) - _MAX_SHOWN:,} more.")
    return words


def _facts(made: Embeddings) -> dict[str, object]:
    return {
        "model": made.model,
        "revision": made.revision,
        "num_items": len(made.vectors),
        "width": int(made.vectors.shape[1]),
        "missing": int(np.count_nonzero(~made.mask)),
    }


def _sentence(made: Embeddings) -> str:
    missing = int(np.count_nonzero(~made.mask))
    gaps = f", {missing:,} of them without a vector" if missing else ""
    items, width = made.vectors.shape
    return f"{made.modality}: {items:,} items{gaps}, width {width}, from {made.model}."
