"""Semantic-ID tokens in a tokenizer, untrusted text, and the first state of the embedding rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from genrec.config import ScratchConfig
from genrec.errors import ModelError
from genrec.training.model import scratch_model
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import (
    VOCABULARY_FILE,
    SidVocabulary,
    TextEncoder,
    add_embedding_rows,
    extend_tokenizer,
    inherited_vocabulary,
    sid_token,
)

SIZES = (4, 3, 5)
TITLES = ["Toy Story", "Heat", "Casino Royale", "The Third Man", "Alien", "Solaris"]
CODES = np.array([[0, 0, 0], [0, 1, 1], [1, 2, 2], [1, 0, 3], [2, 1, 4], [2, 2, 0]], dtype=np.uint16)
SHAPE = ScratchConfig(hidden_size=16, layers=1, heads=2, intermediate_size=16, text_vocabulary=320)


def text_tokenizer() -> PreTrainedTokenizerFast:
    return train_text_tokenizer(TITLES * 4, 320)


def all_tokens() -> list[str]:
    return [sid_token(level, code) for level, size in enumerate(SIZES) for code in range(size)]


def tied_model(num_rows: int) -> PreTrainedModel:
    torch.manual_seed(0)
    model = scratch_model(SHAPE, text_tokenizer())
    model.resize_token_embeddings(num_rows, mean_resizing=False)
    return model


def untied_model(num_rows: int) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=num_rows, tie_word_embeddings=False, **shape))


def matrices(model: PreTrainedModel) -> list[torch.Tensor]:
    return [model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()]


def test_every_code_has_the_id_of_its_token_and_ids_are_contiguous():
    tokenizer = text_tokenizer()
    num_before = len(tokenizer)
    vocabulary = extend_tokenizer(tokenizer, SIZES)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in all_tokens()]
    assert ids == list(range(num_before, num_before + sum(SIZES)))
    grid = np.array([[a, b, c] for a in range(4) for b in range(3) for c in range(5)], dtype=np.uint16)
    expected = [
        [tokenizer.convert_tokens_to_ids(sid_token(level, code)) for level, code in enumerate(row)] for row in grid
    ]
    np.testing.assert_array_equal(vocabulary.token_ids(grid), expected)
    assert vocabulary.token_ids(grid[:6].reshape(2, 3, 3)).shape == (2, 3, 3)


def test_semantic_ids_survive_decoding_encoding_and_a_saved_tokenizer(tmp_path: Path):
    tokenizer = text_tokenizer()
    vocabulary = extend_tokenizer(tokenizer, SIZES)
    tokenizer.save_pretrained(tmp_path)
    vocabulary.save(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert SidVocabulary.load(tmp_path) == vocabulary
    ids = vocabulary.token_ids(CODES).ravel().tolist()
    for some in (tokenizer, loaded):
        text = some.decode(ids, skip_special_tokens=True)
        assert text == "".join(sid_token(level, code) for row in CODES for level, code in enumerate(row))
        assert some.encode(text, add_special_tokens=False) == ids
        # Between words as well: nothing is stripped, nothing merges with its neighbour.
        words = some.encode("Alien", add_special_tokens=False)
        assert some.encode(f"Alien{text}Alien", add_special_tokens=False) == [*words, *ids, *words]


def test_a_tokenizer_of_another_catalogue_is_refused():
    tokenizer = text_tokenizer()
    extend_tokenizer(tokenizer, (2,))
    with pytest.raises(ModelError, match=r"<s0_0> and 1 others"):
        extend_tokenizer(tokenizer, SIZES)


def saved(folder: Path, checksum: str) -> PreTrainedTokenizerFast:
    """A folder with a tokenizer that knows SIZES, and the vocabulary file of an item tokenizer."""
    tokenizer = text_tokenizer()
    replace(extend_tokenizer(tokenizer, SIZES), tokenizer_checksum=checksum).save(folder)
    return tokenizer


def test_tokens_of_the_same_item_tokenizer_are_taken_over_as_they_are(tmp_path: Path):
    tokenizer = saved(tmp_path, "abc")
    known = inherited_vocabulary(tmp_path, tokenizer, codebook_sizes=SIZES, tokenizer_checksum="abc")
    assert known == SidVocabulary.load(tmp_path)
    assert len(tokenizer) == len(text_tokenizer()) + sum(SIZES)
    assert inherited_vocabulary(tmp_path / "x", tokenizer, codebook_sizes=SIZES, tokenizer_checksum="abc") is None


@pytest.mark.parametrize(
    ("theirs", "sizes", "ours"), [("abc", SIZES, "abd"), ("abc", (4, 3), "abc"), ("", SIZES, "abc")]
)
def test_tokens_of_another_item_tokenizer_are_refused(tmp_path: Path, theirs: str, sizes: tuple[int, ...], ours: str):
    tokenizer = saved(tmp_path, theirs)
    with pytest.raises(ModelError, match="already has semantic-ID tokens of another item tokenizer") as caught:
        inherited_vocabulary(tmp_path, tokenizer, codebook_sizes=sizes, tokenizer_checksum=ours)
    assert f"checksum {theirs or 'unknown'}" in caught.value.message
    assert ours in caught.value.message


def test_a_vocabulary_beside_the_wrong_tokenizer_is_refused(tmp_path: Path):
    saved(tmp_path, "abc")
    with pytest.raises(ModelError, match="does not fit the tokenizer"):
        inherited_vocabulary(tmp_path, text_tokenizer(), codebook_sizes=SIZES, tokenizer_checksum="abc")


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"codebook_sizes": 3, "first_token_ids": 4}'])
def test_a_model_folder_without_a_readable_vocabulary_is_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / VOCABULARY_FILE).write_text(content)
    with pytest.raises(ModelError, match="does not know semantic IDs"):
        SidVocabulary.load(tmp_path)


TOKENIZER = text_tokenizer()
BEFORE = TextEncoder(TOKENIZER)
VOCABULARY = extend_tokenizer(TOKENIZER, SIZES)
AFTER = TextEncoder(TOKENIZER)
CONTROL = [*all_tokens(), "<|im_start|>", "<|im_end|>", "<|endoftext|>"]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(st.sampled_from(CONTROL), st.text(max_size=8), st.sampled_from(TITLES)), max_size=8))
def test_untrusted_text_stays_text(pieces: list[str]):
    text = "".join(pieces)
    ids = BEFORE.encode(text)
    assert not {TOKENIZER.convert_tokens_to_ids(token) for token in CONTROL} & set(ids)
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text  # nothing of it is lost either
    assert AFTER.encode(text) == ids
    assert BEFORE.encode_batch([text, "Heat", text]) == [ids, BEFORE.encode("Heat"), ids]


def test_the_full_tokenizer_would_have_obeyed():
    # Otherwise the property above shows nothing.
    assert TOKENIZER.encode("<s0_1>", add_special_tokens=False) == [VOCABULARY.first_token_ids[0] + 1]
    assert len(BEFORE.encode("<s0_1>")) > 1


def test_a_control_token_that_is_also_a_word_of_the_base_vocabulary_is_dropped():
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "heat": 2}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens([AddedToken("<s>", special=True)])
    encoder = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=raw))
    assert encoder.encode("heat <s> heat") == [2, 2]
    assert encoder.encode_batch(["heat <s> heat", "<s>"]) == [[2, 2], []]


def test_line_breaks_and_runs_of_spaces_that_are_added_tokens_stay():
    # As in Gemma's tokenizers: user-defined symbols that control nothing.
    words = {"<unk>": 0, "<s>": 1, "a": 2, "\n": 3, "▁▁": 4}
    raw = Tokenizer(models.BPE({**words, "▁": 5}, [], unk_token="<unk>"))
    raw.add_special_tokens([AddedToken("<s>", special=True)])
    raw.add_tokens([AddedToken("\n", normalized=False), AddedToken("▁▁", normalized=False)])
    encoder = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=raw))
    assert encoder.encode("a\na") == [2, 3, 2]
    assert 1 not in encoder.encode("a<s>a")


@pytest.mark.parametrize("make_model", [tied_model, untied_model])
@pytest.mark.parametrize("spare_rows", [0, 5, 64])
def test_old_rows_stay_bit_identical_and_the_matrix_holds_every_token(make_model, spare_rows: int):
    tokenizer = text_tokenizer()
    num_words = len(tokenizer)
    model = make_model(num_words + spare_rows)
    before = [matrix.clone() for matrix in matrices(model)]
    vocabulary = extend_tokenizer(tokenizer, SIZES)
    add_embedding_rows(model, vocabulary, codes=CODES, item_tokens=BEFORE.encode_batch(TITLES), seed=0)
    num_rows = max(num_words + spare_rows, num_words + sum(SIZES))  # a roomy matrix is left as large as it is
    for old, new in zip(before, matrices(model), strict=True):
        assert torch.equal(old[:num_words], new[:num_words])
        assert torch.equal(old[num_words + sum(SIZES) :], new[num_words + sum(SIZES) : len(old)])
        assert new.shape == (num_rows, 16)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == (make_model is tied_model)
    assert model.config.vocab_size == num_rows


@pytest.mark.parametrize("make_model", [tied_model, untied_model])
def test_a_code_starts_near_the_mean_of_the_words_of_its_items(make_model):
    tokenizer = text_tokenizer()
    num_words = len(tokenizer)
    model = make_model(num_words)
    vocabulary = extend_tokenizer(tokenizer, SIZES)
    item_tokens = BEFORE.encode_batch(TITLES)
    add_embedding_rows(model, vocabulary, codes=CODES, item_tokens=item_tokens, seed=0)
    for matrix in matrices(model):
        lengths = matrix.norm(dim=1)
        torch.testing.assert_close(lengths[num_words:], lengths[:num_words].mean().expand(sum(SIZES)))
        assert len(torch.unique(matrix[num_words:], dim=0)) == sum(SIZES)  # no two codes start equal
        own, other = [], []
        for level, size in enumerate(SIZES):
            means = []
            used = sorted(set(CODES[:, level].tolist()))
            for code in used:  # by hand: every word of every item under the code
                words = [
                    t for tokens, row in zip(item_tokens, CODES, strict=True) if row[level] == code for t in tokens
                ]
                means.append(matrix[words].mean(dim=0))
            rows = matrix[torch.tensor(used) + vocabulary.first_token_ids[level]]
            similarity = torch.cosine_similarity(rows[:, None], torch.stack(means)[None], dim=-1)
            own += similarity.diag().tolist()
            other += similarity[~torch.eye(len(used), dtype=torch.bool)].tolist()
            assert len(used) < size or level  # level 0 has a code without items: it is noise, and finite
        assert np.mean(own) > 0.6
        assert np.mean(own) > np.mean(other) + 0.3
        assert bool(torch.isfinite(matrix).all())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a quantised base lies on a GPU, and there is none")
def test_rows_of_a_model_on_a_gpu_start_as_those_on_the_cpu():
    started = []
    for device in ("cpu", "cuda"):
        tokenizer = text_tokenizer()
        model = untied_model(len(tokenizer)).to(device)
        vocabulary = extend_tokenizer(tokenizer, SIZES)
        add_embedding_rows(model, vocabulary, codes=CODES, item_tokens=BEFORE.encode_batch(TITLES), seed=0)
        started.append([matrix.cpu() for matrix in matrices(model)])
    for here, there in zip(*started, strict=True):
        torch.testing.assert_close(here, there)


def test_the_start_follows_the_seed_and_items_without_words_are_no_obstacle():
    rows = []
    for seed in (0, 0, 1):
        tokenizer = text_tokenizer()
        model = tied_model(len(tokenizer))
        vocabulary = extend_tokenizer(tokenizer, SIZES)
        add_embedding_rows(model, vocabulary, codes=CODES, item_tokens=[[]] * len(CODES), seed=seed)
        rows.append(matrices(model)[0][vocabulary.first_token_ids[0] :])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert bool(torch.isfinite(rows[0]).all())


@pytest.mark.parametrize("make_model", [tied_model, untied_model])
def test_words_that_a_base_has_no_row_for_start_the_same_every_time(make_model):
    """As where a pad token was added to the tokenizer and the matrix was left as it was."""
    started = []
    for process in (1, 2):
        tokenizer = text_tokenizer()
        model = make_model(len(tokenizer) - 3)
        known = [matrix.clone() for matrix in matrices(model)]
        torch.manual_seed(process)
        vocabulary = extend_tokenizer(tokenizer, SIZES)
        add_embedding_rows(model, vocabulary, codes=CODES, item_tokens=BEFORE.encode_batch(TITLES), seed=0)
        started.append(matrices(model))
        for old, new in zip(known, matrices(model), strict=True):
            assert torch.equal(old, new[: len(old)])
            torch.testing.assert_close(new[len(old) : len(old) + 3], old.mean(dim=0).expand(3, -1))
    for one, other in zip(*started, strict=True):
        assert torch.equal(one, other)
