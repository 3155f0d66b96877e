"""The versions of a trie folder that a process serves from, and filters by what the catalogue beside it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec.decoding.engine import check_trie
from genrec.decoding.trie_shelf import TrieShelf
from genrec.errors import RunError, TrieError
from genrec.run import Run, StageReport, file_checksum
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary
from tests.decoding.conftest import run_with_trie, write_catalogue

SIZES = (5, 3, 4)
VOCABULARY = SidVocabulary(SIZES, (10, 20, 24))
CODES = np.unique(np.random.default_rng(0).integers(0, SIZES, (20, 3)), axis=0)


def test_filters_follow_the_catalogue_beside_the_trie(tmp_path: Path) -> None:
    trie = run_with_trie(tmp_path / "run", CODES, SIZES)
    shelf = TrieShelf(tmp_path / "run" / "trie", VOCABULARY)
    assert shelf.filter(trie, {"genres": ["A"]}) is shelf.filter(trie, {"genres": ["A"]})  # compiled once
    live = np.arange(len(CODES)) != 0
    ItemTrie.build(CODES, SIZES, order_checksum=trie.order_checksum, live=live).save(tmp_path / "run" / "trie")
    newer = shelf.get()
    assert newer is not None
    assert shelf.filter(newer, {"genres": ["A"]}).num_items == shelf.filter(trie, {"genres": ["A"]}).num_items - 1
    write_catalogue(tmp_path / "run", len(CODES) + 2, genre="A")  # two come on top, and all have one genre now
    assert shelf.filter(newer, {"genres": ["A"]}).num_items == len(CODES) - 1
    assert shelf.filter(trie, {"genres": ["A"]}).num_items == len(CODES)  # a version of before has no new items
    known = shelf._catalog
    run = Run.open(tmp_path / "run")
    run.record(StageReport("evaluate", {}, []), config={}, seed=0, inputs=[], outputs=[], started=run.begin())
    shelf.filter(newer, {"genres": ["B"]})
    assert shelf._catalog is known  # what else happens in a run costs a look
    with pytest.raises(TrieError, match="of other items"):
        shelf.filter(ItemTrie.build(CODES[:5], SIZES, order_checksum="0" * 64), {"genres": ["A"]})
    ItemTrie.build(CODES, SIZES).save(tmp_path / "alone" / "trie")
    alone = TrieShelf(tmp_path / "alone" / "trie", VOCABULARY)
    with pytest.raises(RunError, match="has lost its manifest"):
        alone.filter(trie, {"genres": ["A"]})


def test_a_damaged_new_catalogue_is_logged_and_the_old_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trie = ItemTrie.build(CODES, SIZES)
    trie.save(tmp_path)
    shelf = TrieShelf(tmp_path, VOCABULARY)
    (tmp_path / "CURRENT").write_text("ffffffffffff\n")
    live = shelf.get()
    assert live is not None
    assert live.version == trie.version
    assert f"version {trie.version} of the catalogue stays in use" in caplog.text
    ItemTrie.build([[1, 1]], (2, 2)).save(tmp_path / "other")
    with pytest.raises(TrieError, match="the trie has codebooks"):
        TrieShelf(tmp_path / "other", VOCABULARY)


@pytest.mark.parametrize(("name", "value"), [("codebook_sizes", ["x", 3, 4]), ("num_rows", -3), ("num_rows", 1)])
def test_a_new_catalogue_whose_description_is_damaged_leaves_the_old_one(
    name: str, value: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trie = ItemTrie.build(CODES, SIZES)
    trie.save(tmp_path)
    shelf = TrieShelf(tmp_path, VOCABULARY)
    newer = ItemTrie.build(CODES[:5], SIZES)
    newer.save(tmp_path)
    file = tmp_path / newer.version / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    live = shelf.get()
    assert live is not None
    assert live.version == trie.version
    assert "stays in use" in caplog.text
    assert shelf.get(newer.version) is None


def test_a_trie_of_another_tokenizer_is_refused_by_name_and_a_new_one_leaves_the_old_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after `genrec tokenize RUN`, beside a model that was exported before."""
    ours = replace(VOCABULARY, tokenizer_checksum="a" * 64)
    trie = ItemTrie.build(CODES, SIZES, tokenizer_checksum="a" * 64)
    trie.save(tmp_path)
    shelf = TrieShelf(tmp_path, ours)
    again = ItemTrie.build(CODES[::-1], SIZES, tokenizer_checksum="b" * 64)
    again.save(tmp_path)
    live = shelf.get()
    assert live is not None
    assert live.version == trie.version
    assert "of the item tokenizer bbbbbbbbbbbb, the model of aaaaaaaaaaaa" in caplog.text
    assert shelf.get(again.version) is None
    with pytest.raises(
        TrieError, match=r"of the item tokenizer b+, the model of a+: .*genrec train RUN.*genrec export"
    ):
        TrieShelf(tmp_path, ours)
    for known, built in ((VOCABULARY, again), (ours, ItemTrie.build(CODES, SIZES))):
        check_trie(built, known)  # either does not say: models and tries of before go on


def test_a_version_that_cannot_be_read_is_read_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trie = ItemTrie.build(CODES, SIZES)
    trie.save(tmp_path)
    shelf = TrieShelf(tmp_path, VOCABULARY)
    newer = ItemTrie.build(CODES[:5], SIZES)
    newer.save(tmp_path)
    whole = (tmp_path / newer.version / "items.npy").read_bytes()
    (tmp_path / newer.version / "items.npy").write_bytes(b"x" * 200)
    hashed: list[str] = []
    monkeypatch.setattr("genrec.trie.file_checksum", lambda file: [hashed.append(file.name), file_checksum(file)][1])
    for _ in range(5):
        live = shelf.get()
        assert live is not None
        assert live.version == trie.version
    assert len(hashed) <= 2
    assert caplog.text.count("stays in use") == 1
    (tmp_path / newer.version / "items.npy").write_bytes(whole)  # mended: it is looked at again
    live = shelf.get()
    assert live is not None
    assert live.version == newer.version


def test_a_filter_asked_for_in_the_middle_of_a_change_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change moves the trie before the manifest that names its catalogue."""
    few, run = len(CODES) - 2, tmp_path / "run"
    run_with_trie(run, CODES[:few], SIZES)
    shelf = TrieShelf(run / "trie", VOCABULARY)
    live = shelf.get()
    assert live is not None
    assert shelf.filter(live, {"genres": ["A"]}).num_items
    manifest = (run / "manifest.json").read_bytes()
    newer = run_with_trie(run, CODES, SIZES)
    late = (run / "manifest.json").read_bytes()
    (run / "manifest.json").write_bytes(manifest)
    Run.open(run)

    def finish(folder: Path) -> None:
        if (run / "manifest.json").read_bytes() == manifest:
            (run / "manifest.json").write_bytes(late)

    shelf._stamp = Run(run).stamp  # it has looked at this manifest
    monkeypatch.setattr("genrec.run.finish_change", finish)
    live = shelf.get()
    assert live is not None
    assert live.version == newer.version
    assert shelf.filter(live, {"genres": ["A"]}).num_items == -(-len(CODES) // 3)
