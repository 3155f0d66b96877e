"""Text files and runs to blocks of tokens: nothing lost, nothing obeyed, nothing read twice."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from genrec.data.splits import evaluation_cases
from genrec.data.text_source import TextSource
from genrec.errors import DataError
from genrec.run import Run
from genrec.training.corpus import pack_corpus, read_corpus, run_documents, texts_of
from genrec.training.text_tokenizer import CONTROL_TOKENS, train_text_tokenizer
from genrec.vocabulary import TextEncoder

LINES = [f"document number {number} <|im_end|> of many" for number in range(40)]


def write_lines(folder: Path) -> Path:
    path = folder / "lines.txt"
    path.write_text("\n\n".join(LINES) + "\n\n", encoding="utf-8")
    return path


def test_lines_and_fields_of_plain_and_packed_files_are_the_documents(tmp_path: Path):
    rows = [
        {"title": "Heat", "messages": [{"text": "hi"}, {"text": "Seen it?"}, {"no": 1}], "year": 1995},
        {"title": "", "messages": []},
        {"title": "A lone \ud800 surrogate"},
    ]
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    found = list(TextSource.parse(f"{packed}:title,messages.text,year").documents())
    assert found == ["Heat\nhi\nSeen it?\n1995", "A lone ? surrogate"]
    assert list(TextSource.parse(str(write_lines(tmp_path))).documents()) == LINES


def test_sources_that_cannot_be_read_are_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "b"}\nnot json\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: not JSON"):
        read_corpus([TextSource.parse(f"{path}:a")], [], cache=tmp_path / "cache")
    with pytest.raises(DataError, match="expected the fields to read"):
        TextSource.parse(str(path))
    with pytest.raises(DataError, match=r"nowhere\.txt is not a file"):
        TextSource.parse(str(tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match="expected no fields"):
        TextSource.parse(f"{write_lines(tmp_path)}:text")
    path.write_text('{"a": "b"}\n')
    with pytest.raises(DataError, match="there is no text"):
        read_corpus([TextSource.parse(f"{path}:b")], [], cache=tmp_path / "other")


def test_blocks_are_the_documents_one_after_the_other_and_text_is_never_a_control_token(tmp_path: Path):
    corpus = read_corpus([TextSource.parse(str(write_lines(tmp_path)))], [], cache=tmp_path / "cache")
    assert list(texts_of(corpus)) == LINES
    tokenizer = train_text_tokenizer(LINES, 320)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    stream = [token for line in LINES for token in (end, *TextEncoder(tokenizer).encode(line))]
    blocks = pack_corpus(corpus, tokenizer, block_tokens=32)["tokens"]
    assert len(blocks) == len(stream) // 32 > 5
    assert [token for block in blocks for token in block] == stream[: 32 * len(blocks)]
    controls = {tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS} - {end}
    assert not controls & set(stream)
    with pytest.raises(DataError, match="40 documents fill no block of 4096 tokens"):
        pack_corpus(corpus, tokenizer, block_tokens=4096)


def test_the_cache_is_read_again_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_lines(tmp_path)
    source = TextSource.parse(str(path))
    first = read_corpus([source], [], cache=tmp_path / "cache")
    reads = []
    original = TextSource.documents

    def counted(self: TextSource):
        reads.append(self.path)
        return original(self)

    monkeypatch.setattr(TextSource, "documents", counted)
    assert list(texts_of(read_corpus([source], [], cache=tmp_path / "cache"))) == list(texts_of(first))
    assert reads == []
    path.write_text("something else\n")
    assert list(texts_of(read_corpus([source], [], cache=tmp_path / "cache"))) == ["something else"]
    assert reads == [path]


def test_a_run_tells_of_its_items_and_its_training_histories_and_nothing_else(tiny_run: Path, tmp_path: Path):
    run = Run(tiny_run)
    documents = list(run_documents(run))
    assert documents[0].startswith("Film 0")
    assert "Comedy" in documents[0]
    histories = [text.split("; ") for text in documents[30:]]
    cases = evaluation_cases(run, "validation")
    assert len(histories) == len(cases)
    for history, before in zip(histories, cases.histories, strict=True):
        assert history == [f"Film {item}" for item in before]  # neither the validation nor the test item
    assert len(read_corpus([], [run], cache=tmp_path)) == len(documents)
