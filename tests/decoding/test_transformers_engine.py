"""The transformers engine beyond the contract: what it does to the model, refuses, writes and loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from genrec.decoding.text import TextUnderWay
from genrec.decoding.transformers_engine import TransformersEngine, users_together
from genrec.errors import ConfigError, ModelError, TrieError
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary, sid_token

VOCABULARY = SidVocabulary((4, 4), (40, 44))
TRIE = ItemTrie.build([[a, b] for a in range(4) for b in range(4)], (4, 4))
SMALL = {
    "vocab_size": 48,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}


def qwen(**options: object) -> Qwen3ForCausalLM:
    torch.manual_seed(1)
    model = Qwen3ForCausalLM(Qwen3Config(**{**SMALL, "head_dim": 8, "eos_token_id": 2, **options}))
    for parameter in model.parameters():
        parameter.data.mul_(8.0) if parameter.dim() > 1 else None
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    words = {chr(ord("A") + index): index for index in range(40)}
    words |= {sid_token(level, code): 40 + 4 * level + code for level in range(2) for code in range(4)}
    raw = Tokenizer(WordLevel(words, unk_token="A"))
    raw.decoder = Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="C")


def engine(model: PreTrainedModel, **options: object) -> TransformersEngine:
    return TransformersEngine(model, tokenizer(), vocabulary=VOCABULARY, **options)  # type: ignore[arg-type]


def test_a_model_in_training_stays_in_training_and_can_go_on() -> None:
    model = qwen(attention_dropout=0.5).train()
    model.lm_head.eval()
    modes = [module.training for module in model.modules()]
    ranked = engine(model)
    first = ranked.rank([[1, 2, 3]], TRIE, beam_width=16, k=16)
    assert ranked.rank([[1, 2, 3]], TRIE, beam_width=16, k=16) == first  # no dropout while ranking
    assert [module.training for module in model.modules()] == modes
    tokens = torch.tensor([[1, 2, 3, 4]])
    model(input_ids=tokens, labels=tokens).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_ranking_does_not_depend_on_the_batch_size_and_prompts_come_back_in_order() -> None:
    model = qwen()
    prompts = [[index % 40] * length for index, length in enumerate([5, 1, 9, 3, 3, 7])]
    small = engine(model, batch_size=2).rank(prompts, TRIE, beam_width=8, k=3)
    large = engine(model, batch_size=16).rank(prompts, TRIE, beam_width=8, k=3)
    assert [[i.item_index for i in a] for a in small] == [[i.item_index for i in a] for a in large]


def test_a_frozen_model_ranks_and_writes_as_a_live_one_does() -> None:
    live, frozen = engine(qwen()), engine(qwen(), frozen=True, remembered_bytes=1 << 20)
    for _ in range(2):  # the second time from what is remembered
        found, expected = (
            [(i.item_index, i.score) for answer in one.rank(PROMPTS, TRIE, beam_width=8, k=8) for i in answer]
            for one in (frozen, live)
        )
        assert [item for item, _ in found] == [item for item, _ in expected]
        np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], atol=1e-4)
    assert frozen.generate(PROMPTS, max_new_tokens=5) == live.generate(PROMPTS, max_new_tokens=5)
    assert [*frozen.stream([1, 2], max_new_tokens=5)] == [*live.stream([1, 2], max_new_tokens=5)]


def test_more_users_are_searched_together_the_smaller_model_and_beam_are() -> None:
    model, wide = qwen(), qwen()
    wide.config.hidden_size = 4096
    assert users_together(model, TRIE, 10) == 64
    assert users_together(model, TRIE, (2, 256)) == min(64, 200_000 // (256 * model.config.hidden_size))
    assert users_together(wide, TRIE, 256) == 16
    prompts = [[index % 40] * (1 + index % 7) for index in range(70)]
    together = engine(model).rank(prompts, TRIE, beam_width=8, k=3)
    apart = engine(model, batch_size=1).rank(prompts, TRIE, beam_width=8, k=3)
    assert [[i.item_index for i in a] for a in together] == [[i.item_index for i in a] for a in apart]


@pytest.mark.parametrize("cast_weights", [True, False])
def test_bfloat16_ranks_nearly_as_float32(cast_weights: bool) -> None:
    expected = engine(qwen()).rank([[1, 2, 3]], TRIE, beam_width=16, k=16)[0]
    rounded = engine(qwen().bfloat16()) if cast_weights else engine(qwen(), dtype=torch.bfloat16)
    found = {item.item_index: item.score for item in rounded.rank([[1, 2, 3]], TRIE, beam_width=16, k=16)[0]}
    scores = np.array([[item.score, found[item.item_index]] for item in expected])
    assert 0 < np.abs(scores[:, 0] - scores[:, 1]).max() < 0.1 * np.abs(scores).max()


def test_raw_scores_in_chunks_of_the_vocabulary_equal_raw_scores_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = qwen()
    at_once = engine(model, score_mode="raw").rank([[1, 2], [3]], TRIE, beam_width=16, k=16)
    monkeypatch.setattr("genrec.decoding.shared_prefix._LOGITS_AT_ONCE", 100)
    in_chunks = engine(model, score_mode="raw").rank([[1, 2], [3]], TRIE, beam_width=16, k=16)
    for one, other in zip(at_once, in_chunks, strict=True):
        np.testing.assert_allclose([i.score for i in one], [i.score for i in other], atol=1e-5)


def test_models_that_would_be_scored_wrongly_are_refused_by_name() -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=48, hidden_size=16, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match="BloomForCausalLM takes no position_ids"):
        engine(bloom)
    convolutional = Lfm2ForCausalLM(Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]))
    with pytest.raises(ModelError, match="Lfm2ForCausalLM has layers of type conv"):
        engine(convolutional)
    flex = qwen()
    flex.config._attn_implementation = "flex_attention"
    with pytest.raises(ModelError, match="flex_attention"):
        engine(flex)
    with pytest.raises(ModelError, match="48 output rows, but its vocabulary of items needs 49"):
        TransformersEngine(qwen(), None, vocabulary=SidVocabulary((4, 4), (40, 45)))


def test_prompts_that_do_not_fit_are_refused() -> None:
    ranked = engine(qwen())
    assert ranked.rank([[1] * 38], TRIE, beam_width=2, k=2)
    with pytest.raises(ModelError, match=r"needs 41 tokens .* context .* is 40"):
        ranked.rank([[1] * 39], TRIE, beam_width=2, k=2)
    with pytest.raises(ModelError, match="prompt 1 is empty"):
        ranked.rank([[1], []], TRIE, beam_width=2, k=2)
    sliding = engine(MistralForCausalLM(MistralConfig(**SMALL, sliding_window=10)))
    assert sliding.rank([[1] * 8], TRIE, beam_width=2, k=2)
    with pytest.raises(ModelError, match="sliding window of MistralForCausalLM is 10"):
        sliding.rank([[1] * 9], TRIE, beam_width=2, k=2)
    with pytest.raises(TrieError, match="the model"):
        ranked.rank([[1]], ItemTrie.build([[0]], (4,)), beam_width=1, k=1)
    known = TransformersEngine(qwen(), None, vocabulary=replace(VOCABULARY, tokenizer_checksum="ours"))
    with pytest.raises(TrieError, match="of the item tokenizer theirs, the model of ours"):
        known.rank([[1]], ItemTrie.build([[0, 0]], (4, 4), tokenizer_checksum="theirs"), beam_width=1, k=1)


PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


def test_greedy_text_equals_generate_of_transformers_and_ignores_generation_config() -> None:
    model = qwen()
    expected = []
    for prompt in PROMPTS:
        options: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "suppress_tokens": [*range(40, 48)]}
        tokens = model.generate(torch.tensor([prompt]), max_new_tokens=9, **options)
        expected.append([token for token in tokens[0, len(prompt) :].tolist() if token != 2])
    model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=9.0, temperature=3.0)
    found = engine(model, batch_size=2).generate(PROMPTS, max_new_tokens=9)
    assert [list(text.token_ids) for text in found] == expected
    assert [text.text for text in found] == [tokenizer().decode(tokens) for tokens in expected]
    assert all(text.finish_reason == ("length" if len(text.token_ids) == 9 else "stop") for text in found)


def test_sampled_text_depends_on_seed_only_and_streams_the_same() -> None:
    writer = engine(qwen(), batch_size=2)
    state = torch.get_rng_state()
    texts = writer.generate(PROMPTS, max_new_tokens=12, temperature=2.0, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    alone = [writer.generate([p], max_new_tokens=12, temperature=2.0, seed=3)[0] for p in PROMPTS]
    streamed = ["".join(writer.stream(p, max_new_tokens=12, temperature=2.0, seed=3)) for p in PROMPTS]
    assert [t.text for t in texts] == [t.text for t in alone] == streamed
    assert texts != writer.generate(PROMPTS, max_new_tokens=12, temperature=2.0, seed=4)


def test_text_is_words_whatever_the_model_would_rather_name() -> None:
    model = qwen()
    model.lm_head.weight.data[40:] *= 30  # every step has a code before all words, at both ends
    told = model(torch.tensor(PROMPTS[:1])).logits[0, -1]
    assert told.argmax() >= 40
    for temperature in (0.0, 2.0):
        texts = engine(model).generate(PROMPTS, max_new_tokens=12, temperature=temperature, seed=3)
        streamed = [
            "".join(engine(model).stream(p, max_new_tokens=12, temperature=temperature, seed=3)) for p in PROMPTS
        ]
        assert all(token < 40 for text in texts for token in text.token_ids)
        assert [text.text for text in texts] == streamed
        assert any(texts)


def test_tokens_of_another_catalogues_items_are_no_words_either(tmp_path: Path) -> None:
    model = qwen()
    model.lm_head.weight.data[44:] *= 30
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    known = SidVocabulary((4,), (40,), item_rows=(0, 1, 2, 3), items_checksum="-", item_share=0.5)  # tokens 44 to 47
    known.save(tmp_path)
    loaded = TransformersEngine.load(tmp_path, vocabulary=known.of_catalogue(()), device="cpu")
    texts = loaded.generate(PROMPTS, max_new_tokens=12, temperature=2.0, seed=3)
    assert all(token < 40 for text in texts for token in text.token_ids)


def test_text_ends_before_a_stop_string_and_streams_nothing_of_it() -> None:
    writer = engine(qwen())
    whole = writer.generate(PROMPTS, max_new_tokens=12, temperature=2.0, seed=3)
    for prompt, text in zip(PROMPTS, whole, strict=True):
        mark = text.text[3:6]
        (cut,) = writer.generate([prompt], max_new_tokens=12, temperature=2.0, seed=3, stop=[mark, "never"])
        assert (cut.text, cut.finish_reason) == (text.text[: text.text.index(mark)], "stop")
        pieces = writer.stream(prompt, max_new_tokens=12, temperature=2.0, seed=3, stop=[mark])
        assert "".join(pieces) == cut.text


class Bytes:
    """A tokenizer whose tokens are UTF-8 bytes."""

    eos_token_id = None

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return bytes(token_ids).decode(errors="replace")


def test_a_streamed_character_is_held_back_until_it_is_whole() -> None:
    text = TextUnderWay(Bytes(), end_ids=set(), stop=["END"], max_new_tokens=20)
    pieces = []
    for byte in "é E ENEND after".encode():
        text.add(byte)
        pieces.append(text.news())
    assert pieces[:3] == ["", "é", " "]
    assert "".join(pieces) == "é E EN" == text.finished().text


def test_wrong_requests_for_text_are_refused() -> None:
    writer = engine(qwen())
    with pytest.raises(ConfigError, match="max_new_tokens is 0"):
        writer.generate([[1]], max_new_tokens=0)
    for temperature in (-1, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=f"temperature is {temperature}"):
            writer.generate([[1]], max_new_tokens=1, temperature=temperature)
    for seed in (-1, 2**64, 0.5):
        with pytest.raises(ConfigError, match="the seed is"):
            writer.generate([[1]], max_new_tokens=1, seed=seed)  # type: ignore[arg-type]
    for strange in (-1, 10_000):
        with pytest.raises(ModelError, match=f"prompt 1 holds the token {strange}; the model has tokens from 0 to"):
            writer.rank([[1], [2, strange]], TRIE, beam_width=4, k=2)
    coldest = writer.generate([[1, 2]], max_new_tokens=6, temperature=1e-45)
    assert coldest == writer.generate([[1, 2]], max_new_tokens=6)
    with pytest.raises(ModelError, match="no tokenizer"):
        TransformersEngine(qwen(), None, vocabulary=VOCABULARY).generate([[1]], max_new_tokens=1)
    assert writer.generate([], max_new_tokens=1) == []
    writer.close()
    with pytest.raises(ModelError, match="closed"):
        writer.rank([[1]], TRIE, beam_width=1, k=1)


def test_a_saved_folder_loads_and_ranks_the_same(tmp_path: Path) -> None:
    model = qwen()
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    loaded = TransformersEngine.load(tmp_path, vocabulary=VOCABULARY, device="cpu")
    assert loaded.rank(PROMPTS, TRIE, beam_width=9, k=9) == engine(model).rank(PROMPTS, TRIE, beam_width=9, k=9)
    assert loaded.generate(PROMPTS, max_new_tokens=4) == engine(model).generate(PROMPTS, max_new_tokens=4)


@pytest.mark.parametrize(
    "damage", ["nothing there", "no weights", "cut weights", "missing weight", "unknown type", "no tokenizer"]
)
def test_a_damaged_folder_is_a_clear_error(tmp_path: Path, damage: str) -> None:
    qwen().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    if damage == "nothing there":
        config.unlink()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "missing weight":
        tensors = load_file(weights)
        del tensors["model.norm.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    elif damage == "unknown type":
        config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "nonesuch"}))
    else:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name).unlink()
    with pytest.raises(ModelError):
        TransformersEngine.load(tmp_path, vocabulary=VOCABULARY)
