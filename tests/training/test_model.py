"""Base models of several families, the packed loss against each example alone, dropout."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    CodeGenConfig,
    CodeGenForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from genrec.adapter import OutputLayer
from genrec.config import LoraOptions, ScratchConfig, TrainConfig
from genrec.errors import ModelError
from genrec.examples import Example
from genrec.training.adapters import add_lora, train_rows
from genrec.training.batching import pack
from genrec.training.model import PackedLoss, load_base, packed_mask, scratch_model
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import SidVocabulary

VOCABULARY = SidVocabulary((4, 5), (300, 304))
NUM_TOKENS = 312
WORDS = [*range(300), *range(309, NUM_TOKENS)]  # some stand behind the semantic IDs
GROUPS = (WORDS, [*range(300, 304)], [*range(304, 309)])
SMALL = {"vocab_size": NUM_TOKENS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
INNER = {"intermediate_size": 24, "max_position_embeddings": 64}
SHAPE = ScratchConfig(hidden_size=16, layers=2, heads=2, intermediate_size=24, text_vocabulary=300)
TEXTS = ["Toy Story", "Heat", "<|im_start|>Alien"]
FAMILIES = ["scratch", "llama", "gpt-neox", "gpt2", "phi", "granite", "cohere"]


def tiny_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel
    if family == "scratch":
        model = scratch_model(SHAPE, train_text_tokenizer(TEXTS, 300))
        model.resize_token_embeddings(NUM_TOKENS, mean_resizing=False)
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SMALL, **INNER, num_key_value_heads=2, tie_word_embeddings=False))
    elif family == "gpt-neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, **INNER))
    elif family == "granite":  # it divides its logits
        model = GraniteForCausalLM(GraniteConfig(**SMALL, **INNER, logits_scaling=3.0))
    elif family == "cohere":  # it multiplies them
        ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        model = CohereForCausalLM(CohereConfig(**SMALL, **INNER, **ends, logit_scale=0.3))
    elif family == "phi":  # its output layer has a bias
        model = PhiForCausalLM(PhiConfig(**SMALL, **INNER))
        model.lm_head.bias.data.normal_()
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=NUM_TOKENS, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    for parameter in model.parameters():  # so that the tokens differ clearly
        parameter.data.mul_(5.0) if parameter.dim() > 1 else None
    return model


def examples(rng: np.random.Generator, count: int = 7) -> list[Example]:
    """Words and semantic IDs mixed, about half of either being targets."""
    made = []
    for length in rng.integers(3, 20, size=count):
        words = rng.integers(0, 300, size=length)
        codes = rng.integers(300, NUM_TOKENS, size=length)
        tokens = np.where(rng.random(length) < 0.5, words, codes).astype(np.int64)
        made.append(Example(tokens, rng.random(length) < 0.6))
    return made


def packed(some: list[Example], row_tokens: int = 24) -> list[torch.Tensor]:
    rows = pack(some, row_tokens, np.random.default_rng(0))
    return [torch.from_numpy(array) for array in (rows.tokens, rows.positions, rows.segments, rows.targets, rows.words)]


def loss_of_each_alone(model: PreTrainedModel, some: list[Example], smoothing: float) -> float:
    """One plain forward pass per example; each target's loss spelled out from its probabilities."""
    losses = []
    for example in some:
        logits = model(input_ids=torch.from_numpy(example.tokens)[None]).logits[0].double()
        for place in np.flatnonzero(example.targets):
            if place == 0:
                continue  # nothing before it
            token = int(example.tokens[place])
            among = next(group for group in GROUPS if token in group)
            token, row = among.index(token), logits[place - 1, among]
            log_probabilities = row - row.exp().sum().log()
            wanted = torch.full_like(row, smoothing / len(row))
            wanted[token] += 1 - smoothing
            losses.append(-float((wanted * log_probabilities).sum()))
    return float(np.mean(losses))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_packed_loss_is_the_mean_of_the_losses_of_the_examples_alone(family: str, smoothing: float):
    model = tiny_model(family).eval()
    some = examples(np.random.default_rng(1))
    assert len(packed(some)[0]) < len(some)  # rows are shared
    loss = PackedLoss(model, VOCABULARY, dropout=0.0, label_smoothing=smoothing)
    with torch.no_grad():
        assert float(loss(*packed(some))) == pytest.approx(loss_of_each_alone(model, some, smoothing), rel=1e-5)


@pytest.mark.parametrize("at_once", [None, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_packed_loss_has_the_gradient_of_the_examples_alone(
    family: str, at_once: int | None, monkeypatch: pytest.MonkeyPatch
):
    model = tiny_model(family).eval()
    some = examples(np.random.default_rng(2))
    seen: list[int] = []
    whole = OutputLayer.logits_without

    def logits_without(output: OutputLayer, rows: torch.Tensor, tokens: slice) -> torch.Tensor:
        seen.append(len(rows))
        with FlopCounterMode(display=False) as counter:
            logits = whole(output, rows, tokens)
        assert counter.get_total_flops() == 2 * rows.numel() * len(WORDS)  # no product with the row of a code
        return logits

    if at_once is not None:
        monkeypatch.setattr("genrec.training.model._LOGITS_AT_ONCE", at_once * len(WORDS) + 1)
    monkeypatch.setattr(OutputLayer, "logits_without", logits_without)
    PackedLoss(model, VOCABULARY, dropout=0.0, label_smoothing=0.0)(*packed(some)).backward()
    # In parts, each computed again in the backward pass; or once as a whole.
    assert (len(seen) > 2 and max(seen) == at_once) if at_once else len(seen) == 1
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    total, count = 0.0, 0
    for example in some:
        tokens = torch.from_numpy(example.tokens)
        logits = model(input_ids=tokens[None]).logits[0]
        for place in np.flatnonzero(example.targets)[np.flatnonzero(example.targets) > 0]:
            token = int(tokens[place])
            among = next(group for group in GROUPS if token in group)
            total = total + F.cross_entropy(logits[place - 1, among], torch.tensor(among.index(token)))
            count += 1
    (total / count).backward()
    assert len(gradients) > 8
    for name, weight in model.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, atol=2e-5, rtol=1e-3)


def test_no_targets_cost_nothing():
    loss = PackedLoss(tiny_model("scratch"), VOCABULARY, dropout=0.0, label_smoothing=0.1)
    tokens, positions, segments, targets, _ = packed(examples(np.random.default_rng(0)))
    assert loss(tokens, positions, segments, torch.zeros_like(targets)).item() == 0.0


def test_a_token_sees_earlier_ones_of_its_own_example_and_empty_space_sees_itself():
    mask = packed_mask(torch.tensor([[1, 1, 2, 2, 0]]))[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]


@pytest.mark.parametrize("family", ["scratch", "gpt-neox"])
def test_dropout_changes_the_loss_in_training_only(family: str):
    model = tiny_model(family)
    rows = packed(examples(np.random.default_rng(3)))
    plain = PackedLoss(model.eval(), VOCABULARY, dropout=0.0, label_smoothing=0.0)(*rows).item()
    loss = PackedLoss(model, VOCABULARY, dropout=0.3, label_smoothing=0.0)
    loss.eval()
    assert loss(*rows).item() == plain
    loss.train()
    torch.manual_seed(0)
    first, second = loss(*rows).item(), loss(*rows).item()
    torch.manual_seed(0)
    assert len({plain, first, second}) == 3
    assert loss(*rows).item() == first  # drawn from torch's generator alone


def test_examples_that_are_no_histories_have_a_dropout_of_their_own():
    model = tiny_model("scratch")
    tokens, positions, segments, _, _ = packed(examples(np.random.default_rng(3)))
    words = (segments % 2 == 0) & (segments > 0)  # every second example of a row
    assert words.any()

    def losses(dropout: float, word_dropout: float | None, of: torch.Tensor) -> list[float]:
        loss = PackedLoss(model, VOCABULARY, dropout=dropout, label_smoothing=0.0, word_dropout=word_dropout)
        torch.manual_seed(0)
        found = [loss.train()(tokens, positions, segments, of, words).item() for _ in range(2)]
        loss.finish()
        return found

    (plain, _) = losses(0.0, None, words)
    assert losses(0.3, 0.0, words) == [pytest.approx(plain, rel=1e-5)] * 2  # they see no history, and drop nothing
    first, second = losses(0.3, 0.0, ~words)
    assert first != second
    first, second = losses(0.0, 0.3, words)
    assert first != second
    assert losses(0.3, 0.3, words) == losses(0.3, None, words)


def test_dropout_on_a_model_without_known_blocks_is_refused():
    bloom = BloomForCausalLM(BloomConfig(vocab_size=NUM_TOKENS, hidden_size=16, n_layer=1, n_head=2))
    for module in bloom.transformer.h:
        module.feed = module._modules.pop("mlp")
        module.look = module._modules.pop("self_attention")
    with pytest.raises(ModelError, match="BloomForCausalLM has no blocks named") as caught:
        PackedLoss(bloom, VOCABULARY, dropout=0.1, label_smoothing=0.0)
    assert "dropout: 0" in caught.value.hint


def save_base(folder: Path, family: str) -> PreTrainedModel:
    tokenizer = train_text_tokenizer(TEXTS, 300)
    model = tiny_model(family)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_of_any_family_is_loaded_from_its_folder(family: str, tmp_path: Path):
    saved = save_base(tmp_path, family).bfloat16()
    saved.save_pretrained(tmp_path)
    model, tokenizer = load_base(TrainConfig(base=str(tmp_path)), [])
    assert type(model) is type(saved)
    assert tokenizer.encode("Heat") == train_text_tokenizer(TEXTS, 300).encode("Heat")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for name, weight in saved.named_parameters():
        assert torch.equal(model.get_parameter(name), weight.float())


def test_scratch_is_the_same_model_for_the_same_seed_and_writes_chatml():
    config = TrainConfig(scratch=SHAPE)
    first, tokenizer = load_base(config, TEXTS)
    torch.manual_seed(99)
    again, _ = load_base(config, TEXTS)
    other, _ = load_base(config.model_copy(update={"seed": 1}), TEXTS)
    embeddings = [model.get_input_embeddings().weight for model in (first, again, other)]
    assert torch.equal(embeddings[0], embeddings[1])
    assert not torch.equal(embeddings[0], embeddings[2])
    assert len(embeddings[0]) == len(tokenizer)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_width_that_the_heads_do_not_divide_is_refused():
    for heads, problem in ((3, "hidden_size 16 is not a multiple of heads 3"), (16, "heads of 1 numbers cannot be")):
        with pytest.raises(ModelError, match=problem):
            load_base(TrainConfig(scratch=SHAPE.model_copy(update={"heads": heads})), TEXTS)


def cut(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:300])


def other_architecture(folder: Path) -> None:
    model = CodeGenForCausalLM(CodeGenConfig(vocab_size=NUM_TOKENS, n_embd=16, n_layer=1, n_head=2, rotary_dim=4))
    model.save_pretrained(folder)


def without_output(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def narrower(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": config["intermediate_size"] // 2}))


def slow_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CanineTokenizer"}))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: cut(folder, "model.safetensors"), "cannot be loaded"),
        (lambda folder: cut(folder, "tokenizer.json"), "cannot be loaded"),
        (lambda folder: cut(folder, "config.json"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "nothing"}'), "cannot be loaded"),
        # Its attention would add the packing mask to the scores as ones and zeros.
        (other_architecture, "cannot be loaded: .*does not support .*scaled_dot_product_attention"),
        (narrower, r"\.weight of shape \(.*\); its config\.json says \("),
        (without_output, r"no weights for lm_head\.weight and 0 others"),
        (slow_tokenizer, "has no fast tokenizer"),
    ],
)
def test_a_base_that_is_damaged_or_not_fit_is_refused(damage, problem: str, tmp_path: Path):
    save_base(tmp_path, "llama")
    damage(tmp_path)
    with pytest.raises(ModelError, match=problem) as caught:
        load_base(TrainConfig(base=str(tmp_path)), [])
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("name", ["nobody/nothing", "folder-that-is-not-here", "./neither/this/one", "!"])
def test_a_base_that_is_nowhere_is_refused_without_a_word_to_the_network(name: str, monkeypatch: pytest.MonkeyPatch):
    def no_network(*_arguments: object, **_named: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_base(TrainConfig(base=name), [])
    assert repr(name) in caught.value.message


ITEMS = SidVocabulary((4, 5), (300, 304), item_rows=(1, 2, 5), items_checksum="-", item_share=0.9)
ITEM_VECTORS = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)


def item_rows_model(family: str, base_folder: Callable[[str], Path]) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base_folder(family), dtype=torch.float32)
    model.resize_token_embeddings(ITEMS.first_item_token + 3, mean_resizing=False)
    return model


def test_a_token_of_an_items_own_weighs_as_much_as_its_codes_together():
    model = tiny_model("scratch").eval()
    tokens = np.array([7, 301, 306, 309, 311, 8])
    loss = PackedLoss(model, ITEMS, dropout=0.0, label_smoothing=0.0).eval()
    with torch.no_grad():
        found = loss(*packed([Example(tokens, np.arange(6) > 0)]))
        logits = model(input_ids=torch.from_numpy(tokens)[None]).logits[0]
    groups = [(300, 304), (304, 309), (309, 312), (309, 312), (0, 300)]
    losses = [
        F.cross_entropy(logits[place, first:last], torch.tensor(tokens[place + 1] - first)).item()
        for place, (first, last) in enumerate(groups)
    ]
    assert found.item() == pytest.approx(np.average(losses, weights=[1, 1, 2, 2, 1]), rel=1e-5)
    rows = pack([Example(tokens, np.arange(6) > 0)], 8, np.random.default_rng(0))
    assert loss.row_weights(rows).tolist() == [1 + 1 + 2 + 2 + 1]


@pytest.mark.parametrize("adapter", ["none", "rows", "lora"])
@pytest.mark.parametrize("family", ["qwen3", "qwen3-untied", "gemma", "gemma3"])
def test_what_vectors_teach_is_in_the_rows_when_the_training_is_over(
    family: str, adapter: str, base_folder: Callable[[str], Path]
) -> None:
    model = item_rows_model(family, base_folder)
    rows = range(ITEMS.first_token_ids[0], ITEMS.first_item_token + 3)
    if adapter == "rows":
        train_rows(model, rows)
    elif adapter == "lora":
        add_lora(model, LoraOptions(), rows=rows, seed=0)
    loss = PackedLoss(model, ITEMS, dropout=0.0, label_smoothing=0.0, item_vectors=ITEM_VECTORS)
    everything = torch.arange(ITEMS.first_item_token + 3)

    def read() -> torch.Tensor:
        with torch.no_grad():
            return model.get_input_embeddings()(everything).clone()

    loss.eval()
    loss.train()
    base = {name: weight.detach().clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    free = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    before_vectors = read()
    tokens = np.array([7, 309, 311, 301, 310, 309])
    arrays = packed([Example(tokens, np.arange(6) > 0)])
    names = {name: weight for name, weight in loss.named_parameters() if not name.startswith("model.")}
    assert [weight.shape for weight in names.values()] == [(6, model.config.hidden_size)]
    untouched = loss(*arrays).item()
    for weight in names.values():
        torch.nn.init.normal_(weight)
    before = loss(*arrays)
    before.backward()
    assert all(weight.grad is not None and weight.grad.norm() > 0 for weight in names.values())
    assert abs(before.item() - untouched) > 1e-3
    loss.eval()
    whole = read()
    assert (whole != before_vectors).any(dim=1).nonzero()[:, 0].tolist() == [309, 310, 311]
    loss.train()
    for name, weight in model.named_parameters():  # to the last digit, or resuming would differ
        assert torch.equal(weight, free[name] if name in free else base[name])
    loss.finish()
    assert torch.equal(read(), whole)
    assert all(torch.equal(weight, base[name]) for name, weight in model.named_parameters() if name in base)
    after = PackedLoss(model, ITEMS, dropout=0.0, label_smoothing=0.0)(*arrays)
    assert after.item() == pytest.approx(before.item(), rel=1e-5)
