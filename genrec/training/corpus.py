"""Text at hand becomes blocks of token ids: documents read one at a time, tokenised and packed by `datasets`.

Every step is cached on disk under the checksum of what goes into it, and memory-mapped: a second training on the same
text starts at once, and the text may be larger than the memory. Documents follow each other in a block, parted
by the end-of-text token. They are encoded without any added token: text never becomes a control token.

Shapes: N blocks, T tokens of a block.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import datasets
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from genrec.data.catalog import Catalog
from genrec.data.interactions import load_interactions, read_run_table
from genrec.data.splits import cold_items, training_sequences
from genrec.errors import DataError
from genrec.run import Run, file_checksum, text_checksum
from genrec.training.text_tokenizer import END_OF_TEXT
from genrec.vocabulary import TextEncoder

_RUN_FILES = ("items.parquet", "interactions.parquet", "splits.parquet")
_DOCUMENTS_AT_ONCE = 1000


@dataclass(frozen=True)
class TextSource:
    """A text file, of which each line is a document, or fields of a JSON-lines file; either may be `.gz`.

    A field is a path such as `messages.text`; where it leads through a list, all values are joined by line breaks.
    """

    path: Path
    fields: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TextSource:
        """`FILE` or `FILE:field,field`. Raises DataError for a file that is not there and for JSON without fields."""
        name, _, fields = text.partition(":")
        source = cls(Path(name), tuple(field for field in fields.split(",") if field))
        if not source.path.is_file():
            raise DataError(f"{name} is not a file.", "Give text files, or JSON lines as FILE:field,field.")
        is_json = Path(name.removesuffix(".gz")).suffix in (".json", ".jsonl")
        if is_json != bool(source.fields):
            wanted = "the fields to read, as FILE:field,field" if is_json else "no fields: its lines are the documents"
            raise DataError(f"{text}: expected {wanted}.")
        return source

    def documents(self) -> Iterator[str]:
        """Its documents, the empty ones left out. Raises DataError naming the line that is not JSON or has no field."""
        opener: Any = gzip.open if self.path.suffix == ".gz" else open
        with cast(IO[bytes], opener(self.path, "rb")) as stream:
            for number, line in enumerate(stream, start=1):
                text = line.decode(errors="replace").strip()
                if self.fields and text:
                    text = self._joined(text, number)
                if text:
                    yield text

    def _joined(self, line: str, number: int) -> str:
        where = f"{self.path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error}).", "Expected one JSON object per line.") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object, found {type(row).__name__}.")
        parts = [part for field in self.fields for part in _values(row, field.split("."))]
        # What is no text (a lone surrogate) cannot be tokenised.
        return "\n".join(parts).encode(errors="replace").decode().strip()


def run_documents(run: Run) -> Iterator[str]:
    """What a run says in words: its items, and of its training interactions the reviews and the titles in order.

    Held-out items and interactions of validation and test stay out, so a base may be pretrained on the run that it
    is then trained for.
    """
    catalog = Catalog.load(run)
    warm = ~cold_items(run)
    for text, known in zip(catalog.texts(_fields(catalog)), warm, strict=True):
        if known:
            yield text
    titles, sequences = catalog.titles, training_sequences(run)
    for history in sequences:
        yield "; ".join(titles[item] for item in history)
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


def _values(value: Any, path: list[str]) -> list[str]:
    """The texts at a path; lists on the way are walked through, what is missing is nothing."""
    if isinstance(value, list):
        return [text for one in value for text in _values(one, path)]
    if path:
        return _values(value.get(path[0]), path[1:]) if isinstance(value, dict) else []
    return [] if value is None or value == "" else [str(value)]


def _fields(catalog: Catalog) -> list[str]:
    known = ("title", "brand", "categories", "genres", "description", "plot", "director", "actors")
    return [field for field in known if field in catalog.table.columns]
