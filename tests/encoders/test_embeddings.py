"""Vectors of a modality on disk, and the cache that keeps what was encoded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.encoders.base import Embeddings
from genrec.encoders.cache import VectorCache, encode_items
from genrec.errors import ConfigError, ModelError, RunError, UnreadableInputError
from genrec.run import Run, StageReport


class HashEncoder:
    """A real encoder of the protocol: vectors from a hash of the text. Remembers what it was asked."""

    modality = "text"
    model = "hash"
    revision = "1"
    width = 4

    def __init__(self, fingerprint: str = "aa", fail_after: int | None = None) -> None:
        self.fingerprint = fingerprint
        self.asked: list[list[str]] = []
        self._fail_after = fail_after

    def content(self, value: str) -> bytes:
        return value.encode()

    def read(self, value: str) -> str:
        if value.startswith("broken"):
            raise UnreadableInputError(f"is {value}")
        return value

    def encode(self, values: list[str]) -> NDArray[np.float32]:
        if self._fail_after is not None and len(self.asked) >= self._fail_after:
            raise KeyboardInterrupt
        self.asked.append(values)
        return np.stack([vector_of(value) for value in values])


def vector_of(text: str) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    return np.random.default_rng(seed).normal(size=4).astype(np.float32)


def catalog_of(*item_ids: str) -> Catalog:
    return Catalog(pl.DataFrame({"item_id": list(item_ids), "title": list(item_ids)}))


def embeddings_of(catalog: Catalog, modality: str = "text") -> Embeddings:
    vectors = np.arange(3 * len(catalog), dtype=np.float32).reshape(-1, 3)
    mask = np.ones(len(catalog), dtype=bool)
    mask[-1], vectors[-1] = False, 0.0
    return Embeddings(modality, vectors, mask, "m", "r", catalog.order_checksum)


def save_and_record(run: Run, made: Embeddings) -> Path:
    """Save vectors as the stage `embed` does; the file."""
    written = made.save(run)
    run.record(StageReport("embed", {}, []), config={}, seed=0, inputs=[], outputs=written, started=run.begin())
    return written[0]


def test_saved_embeddings_load_as_they_were(tmp_path: Path) -> None:
    run, catalog = Run.create(tmp_path / "run"), catalog_of("a", "b", "c")
    made = embeddings_of(catalog)
    save_and_record(run, made)
    loaded = Embeddings.load(run, "text", catalog=catalog)
    assert (loaded.vectors == made.vectors).all()
    assert loaded.mask.tolist() == [True, True, False]
    assert (loaded.model, loaded.revision) == ("m", "r")


@pytest.mark.parametrize("other", [("b", "a", "c"), ("a", "b")])
def test_embeddings_of_another_catalogue_are_refused(tmp_path: Path, other: tuple[str, ...]) -> None:
    run = Run.create(tmp_path / "run")
    save_and_record(run, embeddings_of(catalog_of("a", "b", "c")))
    with pytest.raises(RunError, match="belong to another catalogue"):
        Embeddings.load(run, "text", catalog=catalog_of(*other))


def test_missing_and_damaged_embeddings_say_what_to_run(tmp_path: Path) -> None:
    run, catalog = Run.create(tmp_path / "run"), catalog_of("a", "b", "c")
    with pytest.raises(RunError, match=r"no vectors of modality 'text'.*genrec embed"):
        Embeddings.load(run, "text", catalog=catalog)
    file = save_and_record(run, embeddings_of(catalog))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(RunError, match="cannot be read"):
        Embeddings.load(run, "text", catalog=catalog)
    np.save(file, np.zeros((3, 2), np.float32))
    with pytest.raises(RunError, match=r"expected float32 \(3, 3\)"):
        Embeddings.load(run, "text", catalog=catalog)


def test_embeddings_that_no_finished_stage_vouches_for_are_refused(tmp_path: Path) -> None:
    run, catalog = Run.create(tmp_path / "run"), catalog_of("a", "b", "c")
    save_and_record(run, embeddings_of(catalog, "behaviour"))
    save_and_record(run, embeddings_of(catalog))  # embedded again, without behaviour
    Embeddings.load(run, "text", catalog=catalog)
    with pytest.raises(RunError, match=r"No finished stage vouches for the behaviour vectors.*genrec embed"):
        Embeddings.load(run, "behaviour", catalog=catalog)


def test_a_modality_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name a modality"):
        embeddings_of(catalog_of("a"), "../evil").save(Run.create(tmp_path / "run"))


def test_missing_inputs_are_masked_and_equal_inputs_encoded_once(tmp_path: Path) -> None:
    encoder = HashEncoder()
    inputs = ["x", None, "longer", "x"]
    made = encode_items(encoder, inputs, run=Run.create(tmp_path / "run"), batch_size=8)
    assert made.mask.tolist() == [True, False, True, True]
    assert encoder.asked == [["longer", "x"]]
    assert made.num_encoded == 2
    expected = [np.zeros(4) if text is None else vector_of(text) for text in inputs]
    np.testing.assert_array_equal(made.vectors, np.stack(expected))


def test_what_was_encoded_is_never_encoded_again_in_any_order(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    encode_items(HashEncoder(), ["a", "b", "c"], run=run, batch_size=2)
    encoder = HashEncoder()
    made = encode_items(encoder, ["c", "new", "a"], run=run, batch_size=2)
    assert encoder.asked == [["new"]]
    assert made.num_encoded == 1
    np.testing.assert_array_equal(made.vectors, np.stack([vector_of(text) for text in ("c", "new", "a")]))


def test_a_killed_run_loses_only_the_batch_it_was_encoding(tmp_path: Path) -> None:
    run, texts = Run.create(tmp_path / "run"), [f"text {number}" for number in range(7)]
    with pytest.raises(KeyboardInterrupt):
        encode_items(HashEncoder(fail_after=2), texts, run=run, batch_size=2)
    encoder = HashEncoder()
    made = encode_items(encoder, texts, run=run, batch_size=2)
    assert made.num_encoded == 3
    np.testing.assert_array_equal(made.vectors, np.stack([vector_of(text) for text in texts]))


def test_what_a_kill_left_half_written_is_encoded_again_and_the_rest_is_not(tmp_path: Path) -> None:
    run, texts = Run.create(tmp_path / "run"), ["a", "b", "c"]
    whole = encode_items(HashEncoder(), texts, run=run, batch_size=1)
    (file,) = (run.path / "embeddings" / "cache").iterdir()
    content = file.read_bytes()
    record_bytes = 32 + 4 * 4 + 4
    assert len(content) == 3 * record_bytes
    for cut in (1, record_bytes - 1, record_bytes, 2 * record_bytes + 5, 3 * record_bytes - 1):
        file.write_bytes(content[:cut])
        encoder = HashEncoder()
        made = encode_items(encoder, texts, run=run, batch_size=1)
        assert made.num_encoded == 3 - cut // record_bytes
        assert (made.vectors == whole.vectors).all()
        assert sorted(file.read_bytes()) == sorted(content)
    assert len(VectorCache(run, modality="text", fingerprint="aa", width=4)) == 3


def test_two_processes_that_encode_one_run_lose_nothing_of_each_other(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")

    def opened() -> VectorCache:
        return VectorCache(run, modality="text", fingerprint="aa", width=4)

    def add(cache: VectorCache, *texts: str) -> None:
        cache.append([cache.key(text.encode()) for text in texts], np.stack([vector_of(text) for text in texts]))

    first, second = opened(), opened()
    add(first, "a", "b")
    add(second, "c")
    (file,) = (run.path / "embeddings" / "cache").iterdir()
    with file.open("ab") as stream:
        stream.write(b"half a record")  # of a third one, which was killed
    add(first, "d")
    add(second, "e", "f")
    every = opened()
    assert len(every) == 6
    for text in "abcdef":
        np.testing.assert_array_equal(every.vector(every.key(text.encode())), vector_of(text))


def test_a_cache_that_is_deleted_while_it_is_written_begins_anew(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    cache = VectorCache(run, modality="text", fingerprint="aa", width=4)
    for text in "ab":
        cache.append([cache.key(text.encode())], vector_of(text)[None])
        for file in (run.path / "embeddings" / "cache").iterdir():
            file.unlink()
    cache.append([cache.key(b"c")], vector_of("c")[None])
    again = VectorCache(run, modality="text", fingerprint="aa", width=4)
    np.testing.assert_array_equal(again.vector(again.key(b"c")), vector_of("c"))


def test_inputs_that_cannot_be_read_are_masked_with_a_reason_and_tried_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    inputs = ["a", "broken 1", None, "broken 2", "broken 1", "b"]
    for encoded in (2, 0):
        made = encode_items(HashEncoder(), inputs, run=run, batch_size=2)
        assert made.num_encoded == encoded
        assert made.mask.tolist() == [True, False, False, False, False, True]
        assert made.unreadable == {1: "is broken 1", 3: "is broken 2", 4: "is broken 1"}
        np.testing.assert_array_equal(made.vectors[5], vector_of("b"))
    mended = encode_items(HashEncoder(), ["a", "mended"], run=run, batch_size=2)
    assert (mended.num_encoded, mended.unreadable) == (1, {})


def test_another_model_has_its_own_cache(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    encode_items(HashEncoder("aa"), ["a"], run=run, batch_size=1)
    encoder = HashEncoder("bb")
    encode_items(encoder, ["a"], run=run, batch_size=1)
    assert encoder.asked == [["a"]]


def test_a_damaged_record_is_named_with_what_to_delete(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    encode_items(HashEncoder(), ["a", "b"], run=run, batch_size=2)
    (file,) = (run.path / "embeddings" / "cache").iterdir()
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    for damaged in (content, b"something else altogether, and longer than a record is" * 2):
        file.write_bytes(damaged)
        with pytest.raises(RunError, match=r"text-aa\.records is damaged: record 0 of 2.*Delete this file"):
            encode_items(HashEncoder(), ["a"], run=run, batch_size=1)


def test_a_model_that_gives_nan_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    class Broken(HashEncoder):
        def encode(self, values: list[str]) -> NDArray[np.float32]:
            return np.full((len(values), 4), np.nan, np.float32)

    run = Run.create(tmp_path / "run")
    with pytest.raises(ModelError, match="not finite"):
        encode_items(Broken(), ["a"], run=run, batch_size=1)
    assert not (run.path / "embeddings").exists()
