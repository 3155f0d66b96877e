"""Text at hand becomes blocks of token ids: documents read one at a time, tokenised and packed by `datasets`.

Every step is cached on disk under the checksum of what goes into it, and memory-mapped: a second training on the same
text starts at once, and the text may be larger than the memory. Documents follow each other in a block, parted
by the end-of-text token. They are encoded without any added token: text never becomes a control token.

Shapes: N blocks, T tokens of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import datasets
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from genrec.data.catalog import Catalog
from genrec.data.dialogues import dialogues_file, load_turns, spoken_lines
from genrec.data.interactions import load_interactions, read_run_table
from genrec.data.splits import cold_items, training_sequences
from genrec.data.text_source import TextSource
from genrec.errors import DataError
from genrec.run import Run, file_checksum, text_checksum
from genrec.training.text_tokenizer import END_OF_TEXT
from genrec.vocabulary import TextEncoder

_RUN_FILES = ("items.parquet", "interactions.parquet", "splits.parquet")
_DOCUMENTS_AT_ONCE = 1000


def run_documents(run: Run) -> Iterator[str]:
    """What a run says in words: its items, its training dialogues, and of its training interactions the reviews and the
    titles in order.

    Held-out items and interactions of validation and test stay out, so a base may be pretrained on the run that it
    is then trained for.
    """
    catalog = Catalog.load(run)
    warm = ~cold_items(run)
    for text, known in zip(catalog.texts(_fields(catalog)), warm, strict=True):
        if known:
            yield text
    titles, sequences = catalog.worded_titles, training_sequences(run)
    for history in sequences:
        if told := "; ".join(titles[item] for item in history if titles[item]):
            yield told
    yield from spoken_lines(load_turns(run, "train", catalog=catalog), warm)
    interactions = load_interactions(run)
    if "review" in interactions.columns:
        splits = read_run_table(run, "splits.parquet")  # row by row the interactions
        reviews = interactions.filter(splits["split"] == "train")["review"].to_list()
        yield from (review for review in reviews if review)


def read_corpus(sources: Sequence[TextSource], runs: Sequence[Run], *, cache: Path) -> Dataset:
    """All documents as a dataset with the one column `text`, read anew only where a file has changed.

    Raises DataError where there is no text.
    """
    files = [source.path for source in sources] + [run.path / name for run in runs for name in _RUN_FILES]
    files += [dialogues_file(run) for run in runs if dialogues_file(run).is_file()]
    key = text_checksum([repr(source) for source in sources] + [file_checksum(file) for file in files])

    def documents() -> Iterator[dict[str, str]]:
        read = [source.documents() for source in sources] + [run_documents(run) for run in runs]
        found = False
        for text in chain.from_iterable(read):
            found = True
            yield {"text": text}
        if not found:
            raise DataError("there is no text to train on.", "Give text files, JSON lines with fields, or a run.")

    datasets.disable_progress_bars()
    features = datasets.Features({"text": datasets.Value("string")})
    try:
        made = Dataset.from_generator(documents, features=features, cache_dir=str(cache), fingerprint=key[:32])
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise
    return cast(Dataset, made)


def texts_of(corpus: Dataset) -> Iterator[str]:
    """The documents one after the other, read from disk in batches."""
    for batch in corpus.iter(batch_size=_DOCUMENTS_AT_ONCE):
        yield from cast(dict[str, list[str]], batch)["text"]


def pack_corpus(corpus: Dataset, tokenizer: PreTrainedTokenizerFast, *, block_tokens: int) -> Dataset:
    """Documents (column `text`) to blocks (column `tokens`, each T ids); what fills no whole block is left out.

    Raises DataError where the text fills not one block.
    """
    encoder = TextEncoder(tokenizer)
    end = cast(int, tokenizer.convert_tokens_to_ids(END_OF_TEXT))

    def blocks(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        stream = [token for ids in encoder.encode_batch(batch["text"]) for token in (end, *ids)]
        starts = range(0, len(stream) - block_tokens + 1, block_tokens)
        return {"tokens": [stream[start : start + block_tokens] for start in starts]}

    # The function cannot be hashed (tokenizers have state of their own); what it depends on can.
    parts: Iterable[Any] = (corpus._fingerprint, tokenizer.backend_tokenizer.to_str(), str(block_tokens))
    packed = corpus.map(
        blocks,
        batched=True,
        batch_size=_DOCUMENTS_AT_ONCE,
        remove_columns=["text"],
        features=datasets.Features({"tokens": datasets.List(datasets.Value("int32"))}),
        new_fingerprint=text_checksum(list(parts))[:32],
    )
    if len(packed) == 0:
        raise DataError(
            f"{len(corpus)} documents fill no block of {block_tokens} tokens.", "Give more text or smaller blocks."
        )
    return packed


def _fields(catalog: Catalog) -> list[str]:
    known = ("title", "brand", "categories", "genres", "description", "plot", "director", "actors")
    return [field for field in known if field in catalog.table.columns]
