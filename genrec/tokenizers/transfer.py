"""One run's frozen tokenizer on another run's items: the same codebooks, so a model that knows them can read on.

The tokenizer's files are copied, so the run stands alone afterwards. Codebook sizes stay those of the source,
its extra level included: they are the vocabulary of its model.

Behaviour vectors do not travel: their axes come from the histories of one catalogue, and the same numbers mean
something else in another. To a tokenizer that reads them, every item of the new catalogue is one without any, and
they are guessed from the other modalities.
"""

from __future__ import annotations

from typing import Any

from genrec.config import TokenizeConfig, build_config, dump_config
from genrec.data.catalog import Catalog
from genrec.data.splits import training_sequences
from genrec.encoders.base import WRITTEN_BY_ALIGN, Embeddings, embedding_files, vouched_modalities
from genrec.encoders.behaviour import MODELS as BEHAVIOUR_MODELS
from genrec.errors import ConfigError, RunError
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport
from genrec.tokenizers.codes import Policy, SemanticIds
from genrec.tokenizers.files import tokenizer_checksum
from genrec.tokenizers.item_level import ItemIdCodes
from genrec.tokenizers.room import resolve_within
from genrec.tokenizers.stage import (
    ItemVectors,
    load_fusion,
    load_tokenizer,
    measure_health,
    unseen_steps,
    write_semantic_ids,
)


def tokenize_from(
    run: Run,
    source: Run,
    *,
    collisions: Policy | None = None,
    same_encoder: bool = False,
    progress: Progress = SILENT,
) -> StageReport:
    """Write `semantic_ids/` of `run` with the tokenizer of `source`, and record the stage `tokenize`.

    `collisions` None takes the source's policy; `same_encoder` is the user's word that vectors of different
    names come from one encoder. Raises RunError where the vectors of the two runs do not match or one lacks a
    stage, DataError where the source's codes are too few, ConfigError for a policy that they do not allow.
    """
    started = run.begin()
    if run.path.resolve() == source.path.resolve():
        raise ConfigError(f"{run.path} cannot be tokenized from itself.", "Name another run with --from.")
    config = source_config(source)
    if config.method == ItemIdCodes.method:
        raise ConfigError(
            f"{source.path} has one code for each of its own items, which says nothing about those of {run.path}.",
            "Tokenize the source with --method rqvae and train it again.",
        )
    config = config.model_copy(update={"collisions": collisions or config.collisions})
    sizes = SemanticIds.load(source, catalog=Catalog.load(source)).codebook_sizes
    catalog = Catalog.load(run)
    items = matching_vectors(run, source, same_encoder=same_encoder)
    fusion, tokenizer = load_fusion(source), load_tokenizer(source)
    whole = items.completed(fusion, num_items=len(catalog))
    fused, _ = fusion.apply(whole.vectors, whole.masks)
    progress.say(f"Encoding {len(catalog):,} items with the tokenizer of {source.path}.")
    before = tokenizer.encode(fused)
    after = resolve_within(before, sizes, policy=config.collisions, tokenizer=tokenizer, vectors=fused)
    histories = training_sequences(run)
    steps = histories, unseen_steps(run)
    health = measure_health(tokenizer, fusion, items, before=before, after=after, sizes=sizes, steps=steps)
    ids = SemanticIds(after, sizes, catalog.order_checksum)
    outputs = write_semantic_ids(run, tokenizer, fusion, ids=ids, health=health)
    kept = before.shape[1] - 1
    facts = {
        "method": config.method,
        "modalities": list(fusion.names),
        "guessed_modalities": [name for name in fusion.names if name not in items.vectors],
        "tokenized_from": str(source.path),
        "tokenizer_checksum": tokenizer_checksum(run.path / "semantic_ids" / "tokenizer"),
        "same_encoder": same_encoder,
        "moved_prefixes": int((before[:, :kept] != after[:, :kept]).any(axis=1).sum()),
        **health.facts,
    }
    for level in facts["levels"]:
        level.pop("counts")  # health.json has them; the manifest stays readable
    source_files = [file for file in source.require("tokenize").outputs if "/tokenizer/" in file]
    report = StageReport("tokenize", facts, [*_words(facts, source), *health.words()], f"genrec train {run.path}")
    run.record(
        report,
        config=dump_config(config),
        seed=config.seed,
        inputs=[
            *(run.path / name for name in ("items.parquet", "splits.parquet")),
            *(file for name in items.vectors for file in embedding_files(run, name)),
            *(source.path / file for file in source_files),
        ],
        outputs=outputs,
        started=started,
    )
    return report


def source_config(source: Run) -> TokenizeConfig:
    """What a run was tokenized with. Raises RunError where it was not, or its files have changed."""
    config = source.require("tokenize").config
    return build_config(TokenizeConfig, config, source=f"{source.path}, stage tokenize")


def matching_vectors(run: Run, source: Run, *, same_encoder: bool) -> ItemVectors:
    """The run's vectors of the modalities that the source's tokenizer reads, without behaviour of its own.

    Raises RunError, naming both, unless width, model and revision of each are those of the source (`same_encoder`
    leaves only the width to compare), and where no modality is left.
    """
    source.require("tokenize")
    found = {}
    for name in load_fusion(source).names:
        wanted = Embeddings.load(source, name, catalog=Catalog.load(source))
        own = _own_vectors(run, source, wanted)
        if own is None:
            continue
        same_width = own.vectors.shape[1] == wanted.vectors.shape[1]
        trusted = same_encoder and name.split("-")[0] not in WRITTEN_BY_ALIGN
        if not same_width or not (trusted or (own.model, own.revision) == (wanted.model, wanted.revision)):
            raise _mismatch(run, source, own, wanted)
        found[name] = own
    if not any(own.mask.any() for own in found.values()):
        raise RunError(
            f"No item of {run.path} has a vector that the tokenizer of {source.path} can read.",
            "Behaviour alone does not travel: tokenize the source from what its items are, too.",
        )
    present = {name: own for name, own in found.items() if own.mask.any()}
    return ItemVectors(
        {name: own.vectors for name, own in present.items()}, {name: own.mask for name, own in present.items()}
    )


def _own_vectors(run: Run, source: Run, wanted: Embeddings) -> Embeddings | None:
    """The run's vectors of one modality; None for behaviour of other histories."""
    vouched = wanted.modality in vouched_modalities(run)
    own = Embeddings.load(run, wanted.modality, catalog=Catalog.load(run)) if vouched else None
    if wanted.model in BEHAVIOUR_MODELS:
        return own if own is not None and (own.model, own.revision) == (wanted.model, wanted.revision) else None
    if own is None and wanted.modality.split("-")[0] in WRITTEN_BY_ALIGN:
        raise _is_aligned(source, wanted.modality)
    if own is None:
        raise RunError(
            f"{run.path} has no vectors of modality {wanted.modality!r}, which the tokenizer of {source.path} reads.",
            f"Embed {run.path} with the same encoder ({wanted.model}) first.",
        )
    return own


def _mismatch(run: Run, source: Run, own: Embeddings, wanted: Embeddings) -> RunError:
    if own.modality.split("-")[0] in WRITTEN_BY_ALIGN:
        return _is_aligned(source, own.modality)
    hint = f"Embed {run.path} with {wanted.model}"
    if own.vectors.shape[1] == wanted.vectors.shape[1]:
        hint += "; if both come from one encoder all the same (files of --precomputed), say --same-encoder"
    return RunError(
        f"The {own.modality} vectors of {run.path} are of {_origin(own)}, "
        f"those of {source.path}'s tokenizer of {_origin(wanted)}.",
        f"{hint}.",
    )


def _is_aligned(source: Run, modality: str) -> RunError:
    return RunError(
        f"The tokenizer of {source.path} reads {modality!r}, which that run's own alignment made: "
        "no other catalogue has vectors in that space.",
        "Tokenize the source from what its encoders made (--modalities text, for example), then train it again.",
    )


def _origin(embeddings: Embeddings) -> str:
    return f"{embeddings.model} (revision {embeddings.revision[:12]}, width {embeddings.vectors.shape[1]})"


def _words(facts: dict[str, Any], source: Run) -> list[str]:
    words = [f"The tokenizer of {source.path}, frozen; the codebooks are those that its model knows."]
    words += [
        f"Vectors of {name} do not travel or are missing here: they are guessed from the others, for every item."
        for name in facts["guessed_modalities"]
    ]
    if facts["moved_prefixes"]:
        words.append(f"{facts['moved_prefixes']:,} items went to a sibling prefix: theirs had no room left.")
    if facts["same_encoder"]:
        words.append("That the vectors come from one encoder is taken on your word (--same-encoder).")
    words += [
        f"Warning: the codes leave out {errors[-1]:.2f} times the variance of {name}: they say less about these items "
        "than their mean does. For this encoder the two catalogues are far apart."
        for name, errors in facts["reconstruction"].items()
        if errors[-1] >= 1.0
    ]
    return words
