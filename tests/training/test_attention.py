"""The written-out attention against PyTorch's own, and when it is taken."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from genrec.training.attention import LONGEST_ROW, attention_for, written_out_attention
from genrec.training.model import byte_dropout, packed_mask

SHAPE = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 512}


def attention_of(model) -> str:
    return model.config._attn_implementation


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_it_equals_pytorchs_attention_and_its_gradients(groups: int):
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, 12, 8, dtype=torch.float64, requires_grad=True) for heads in (4, groups, groups)
    )
    mask = packed_mask(torch.tensor([[1] * 5 + [2] * 4 + [0] * 3, [1] * 12]))
    ours, _ = written_out_attention(torch.nn.Identity(), query, key, value, mask)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad((ours * weight).sum(), (query, key, value)),
        torch.autograd.grad((theirs * weight).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_short_rows_take_it_and_the_model_has_its_own_afterwards():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS))
    assert attention_of(model) == "sdpa"
    with attention_for(model, torch.zeros(2, LONGEST_ROW, dtype=torch.int64)):
        assert attention_of(model) == "genrec_written_out"
    assert attention_of(model) == "sdpa"
    with pytest.raises(KeyError), attention_for(model, torch.zeros(2, 8, dtype=torch.int64)):
        raise KeyError
    assert attention_of(model) == "sdpa"


def test_long_rows_and_models_that_do_more_than_plain_attention_keep_their_own():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS))
    with attention_for(model, torch.zeros(2, LONGEST_ROW + 1, dtype=torch.int64)):
        assert attention_of(model) == "sdpa"
    capped = Gemma2ForCausalLM(Gemma2Config(**SHAPE, **HEADS, attn_logit_softcapping=5.0))
    own = attention_of(capped)
    with attention_for(capped, torch.zeros(2, 8, dtype=torch.int64)):
        assert attention_of(capped) == own


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.999])
def test_dropout_zeroes_its_share_and_keeps_the_mean(dropout: float):
    torch.manual_seed(0)
    values = torch.ones(997, 211)
    dropped = byte_dropout(values, dropout)
    share = min(255, round(256 * dropout)) / 256
    assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.005)
    assert torch.unique(dropped[dropped > 0]).tolist() == pytest.approx([1 / (1 - share)])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.1 if dropout > 0.9 else 0.01)


def test_dropout_of_each_token_has_its_own_share():
    torch.manual_seed(0)
    dropped = byte_dropout(torch.ones(2, 3, 50_000), torch.tensor([[0.0, 0.25, 0.5], [0.5, 0.0, 0.999]])[..., None])
    kept = (dropped > 0).float().mean(dim=-1)
    assert kept.flatten().tolist() == pytest.approx([1, 0.75, 0.5, 0.5, 1, 1 / 256], abs=0.01)
    assert dropped.mean(dim=-1).flatten()[:5].tolist() == pytest.approx([1] * 5, abs=0.02)


def test_dropout_is_drawn_from_the_seed_and_alike_in_every_byte():
    torch.manual_seed(1)
    first = byte_dropout(torch.ones(8, 10_000), 0.5)
    torch.manual_seed(1)
    assert torch.equal(first, byte_dropout(torch.ones(8, 10_000), 0.5))
    kept = (first.flatten() > 0).view(-1, 8).float().mean(dim=0)  # eight values share one drawn number
    assert kept.tolist() == pytest.approx([0.5] * 8, abs=0.02)
