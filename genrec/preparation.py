"""What a training starts from: a base with rows for semantic IDs, for items with tokens of their own, for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.adapter import adapter_folder, base_run
from genrec.config import TrainConfig
from genrec.data.catalog import Catalog
from genrec.data.sequences import Sequences
from genrec.prompting import default_prompts
from genrec.run import file_checksum
from genrec.tasks.loading import template_words
from genrec.tokenizers.codes import SemanticIds
from genrec.training.model import load_base
from genrec.vocabulary import (
    SidVocabulary,
    TextEncoder,
    add_embedding_rows,
    add_soft_prompt_rows,
    extend_tokenizer,
    extend_with_items,
    extend_with_soft_prompt,
    inherited_vocabulary,
    soft_prompt,
)

_TEXT_FIELDS = ("title", "brand", "categories", "genres")
# The words of the tasks' templates count so often beside the catalogue where a text tokenizer is trained: often
# enough to become few tokens, and never the larger part.
_TEXTS_PER_COPY = 20
_BASE_FILES = ("config.json", "tokenizer.json")  # beside the weights of a base
_MOST_RENAMED = 0.5  # titles change now and then; where most are others, so are the items
_MOST_ITEM_TOKENS = 1 << 16  # of the most used items; every step of the training scores them all


@dataclass(frozen=True)
class Prepared:
    """A base with rows for the semantic IDs. `rows` are the token ids that learn where the base does not."""

    model: Any
    tokenizer: Any
    vocabulary: SidVocabulary
    rows: list[int]


_GENTLE_RATES = {
    "none": {"learning_rate": 5e-5},
    "lora": {"learning_rate": 5e-4},
    "qlora": {"learning_rate": 5e-4},
}


def resolve_base(config: TrainConfig) -> tuple[TrainConfig, Path | None]:
    """The configuration with a model folder as its base where it names a run, and that run's adapter.

    The defaults are for models from scratch: where the base is a pretrained one, a rate and a dropout that were not
    given become such as leave it what it has learned. A run is what it was made from.
    """
    gentle = {"dropout": 0.0, **_GENTLE_RATES.get(config.adapter, {})} if _is_pretrained(config.base) else {}
    unset = {name: value for name, value in gentle.items() if name not in config.model_fields_set}
    run = base_run(config.base)
    if run is None:
        return config.model_copy(update=unset), None
    run.require("train")
    return config.model_copy(update=unset | {"base": str(run.path / "model")}), adapter_folder(run)


def _is_pretrained(base: str) -> bool:
    while (run := base_run(base)) is not None:
        base = str(run.require("train", verify=False).config["base"])
    return base != "scratch"


def base_checksums(base: str, adapter: Path | None) -> dict[str, str]:
    """What a base in a folder is made of: its weights, its tokenizer, the adapter of its run; file → SHA-256.

    Takes what `resolve_base` gives. Empty for `scratch` and for names of a hub, which say themselves what they are.
    """
    folder = Path(base)
    if base == "scratch" or not folder.is_dir():
        return {}
    files = [*folder.glob("*.safetensors"), *(folder / name for name in _BASE_FILES)]
    files += [] if adapter is None else adapter.iterdir()
    return {str(path): file_checksum(path) for path in sorted(files) if path.is_file()}


def prepare_model(
    config: TrainConfig,
    catalog: Catalog,
    *,
    codes: SemanticIds,
    checksum: str,
    histories: Sequences,
    warm: NDArray[np.bool_],
    base_adapter: Path | None,
    spoken: Sequence[str],
) -> Prepared:
    """The base model and its tokenizer, both with the semantic-ID tokens of the item tokenizer of `checksum`.

    What is new in them is made from the items of `warm` (I,); a text tokenizer made here also knows words of `spoken`.
    Items that `histories` use get tokens of their own, if they are wanted.
    """
    texts = [text for text, known in zip(catalog.texts(_TEXT_FIELDS), warm, strict=True) if known]
    words = template_words(task_folders(config), config.task_names, copies=len(texts) // _TEXTS_PER_COPY)
    model, tokenizer = load_base(config, [*texts, *words, *spoken], adapter=base_adapter)
    sizes = codes.codebook_sizes
    vocabulary = None
    if config.base != "scratch":
        vocabulary = inherited_vocabulary(
            Path(config.base), tokenizer, codebook_sizes=sizes, tokenizer_checksum=checksum
        )
        if vocabulary is not None and names_others(Path(config.base), vocabulary.item_rows, catalog):
            vocabulary = vocabulary.of_catalogue(())
    text_tokens = TextEncoder(tokenizer).encode_batch(texts)  # before there are tokens that are no text
    if vocabulary is None:
        vocabulary = replace(extend_tokenizer(tokenizer, sizes), tokenizer_checksum=checksum)
        add_embedding_rows(model, vocabulary, codes=codes.codes[warm], item_tokens=text_tokens, seed=config.seed)
    share = config.item_share if len(sizes) > 1 else 0.0  # a code on the only level is an item's own token already
    vocabulary = vocabulary.of_catalogue(catalog.item_ids if share else ())
    if share and not vocabulary.item_rows and len(histories.items):
        uses = np.bincount(histories.items, minlength=len(catalog))
        named = np.sort(np.argsort(-uses, kind="stable")[: min(_MOST_ITEM_TOKENS, np.count_nonzero(uses))])
        vocabulary = extend_with_items(tokenizer, vocabulary, item_ids=catalog.item_ids, rows=named, share=share)
        numbers = np.full(len(catalog), -1)
        numbers[named] = np.arange(len(named))
        add_embedding_rows(
            model,
            vocabulary,
            codes=numbers[warm, None],
            item_tokens=text_tokens,
            seed=config.seed,
            groups=slice(len(sizes), None),
        )
    vocabulary = replace(vocabulary, item_share=share if vocabulary.item_rows else 0.0)
    first = vocabulary.first_token_ids[0]
    rows = list(range(first, sum(vocabulary.groups[-1])))
    if config.adapter == "prompt":
        learned = soft_prompt(tokenizer)
        ids = extend_with_soft_prompt(tokenizer, config.prompt_tokens)
        if not learned:
            add_soft_prompt_rows(model, ids, num_words=first, seed=config.seed)
        rows = list(range(first, max(ids) + 1))  # in one piece, also where a base has tokens of other items in between
    return Prepared(model, tokenizer, vocabulary, rows)


def names_others(base: Path, rows: Sequence[int], catalog: Catalog) -> bool:
    """Whether the items with tokens of their own are called something else where the base was trained.

    Ids alone may be the same by chance: two catalogues that number their items. Unknown for a base beside no run.
    """
    file = base.parent / "items.parquet"
    if not rows or not file.is_file() or max(rows) >= len(catalog):
        return False
    theirs = pl.read_parquet(file, columns=["title"])["title"].gather(list(rows)).to_numpy()
    return float(np.mean(theirs != catalog.table["title"].gather(list(rows)).to_numpy())) > _MOST_RENAMED


def task_folders(config: TrainConfig) -> list[Path]:
    """Where the templates of a training's tasks are: ours, and those of a folder of the user's."""
    return [default_prompts(), *([config.prompts] if config.prompts else [])]
