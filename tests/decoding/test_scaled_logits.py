"""Families that multiply their logits or embeddings: scores and losses are those of the model as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Cohere2Config,
    Cohere2ForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
    HyperCLOVAXConfig,
    HyperCLOVAXForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from genrec.adapter import output_layer
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.errors import ModelError
from genrec.training.adapters import train_rows
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary

VOCABULARY = SidVocabulary((4, 4), (40, 44))
CODES = [[a, b] for a in range(4) for b in range(4)]
TRIE = ItemTrie.build(CODES, (4, 4))
PROMPT = [3, 1, 2]
SHAPE: dict[str, Any] = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
SHAPE |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MULTIPLIERS: dict[str, Any] = {"embedding_multiplier": 6.0, "residual_multiplier": 0.3, "attention_multiplier": 0.1}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
FAMILIES = {
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, **MULTIPLIERS, logits_scaling=8.0)),
    "granitemoe": lambda: GraniteMoeForCausalLM(GraniteMoeConfig(**SHAPE, **EXPERTS, logits_scaling=3.0)),
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.3)),
    "cohere2": lambda: Cohere2ForCausalLM(Cohere2Config(**SHAPE, logit_scale=0.0625)),
    "hyperclovax": lambda: HyperCLOVAXForCausalLM(HyperCLOVAXConfig(**SHAPE, logits_scaling=0.5)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SHAPE, head_dim=8)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, head_dim=8)),
}


def tiny(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = FAMILIES[family]()
    for parameter in model.parameters():  # so that a factor changes what is likely
        parameter.data.mul_(8.0) if parameter.dim() > 1 else None
    return model.eval()


def scores_of_paths(model: PreTrainedModel, mode: str) -> list[float]:
    """Per item the sum of its codes' log-probabilities, from one full forward pass of the model's own each."""
    found = []
    for codes in CODES:
        tokens = torch.tensor([[*PROMPT, 40 + codes[0], 44 + codes[1]]])
        with torch.no_grad():
            logits = model(input_ids=tokens).logits[0, 2:4].double()
        parts = [logits[0], logits[1]] if mode == "raw" else [logits[0, 40:44], logits[1, 44:48]]
        offset = (40, 44) if mode == "raw" else (0, 0)
        found.append(sum(float(p.log_softmax(-1)[o + c]) for p, o, c in zip(parts, offset, codes, strict=True)))
    return found


@pytest.mark.parametrize("mode", ["level", "raw"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_with_factors_of_its_own_ranks_as_its_full_forward_pass_scores(family: str, mode: Any) -> None:
    model = tiny(family)
    expected = scores_of_paths(model, mode)
    engine = TransformersEngine(model, None, vocabulary=VOCABULARY, score_mode=mode)
    found = {item.item_index: item.score for item in engine.rank([PROMPT], TRIE, beam_width=16, k=16)[0]}
    np.testing.assert_allclose([found[item] for item in range(16)], expected, atol=1e-4)


@pytest.mark.parametrize("family", ["granite", "cohere"])
def test_an_output_layer_whose_rows_are_trained_apart_keeps_its_factor(family: str) -> None:
    model = tiny(family)
    train_rows(model, list(range(40, 48)))
    tokens = torch.tensor([PROMPT])
    with torch.no_grad():
        hidden, expected = model.base_model(input_ids=tokens).last_hidden_state, model(input_ids=tokens).logits
        torch.testing.assert_close(output_layer(model)(hidden), expected)
        torch.testing.assert_close(output_layer(model).logits(hidden, 40, 4), expected[..., 40:44])
        torch.testing.assert_close(output_layer(model).logits_without(hidden, slice(40, 48)), expected[..., :40])


class Scaled(Qwen3ForCausalLM):
    """A family that nobody has told us of."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        found = super().forward(*arguments, **options)
        found.logits = found.logits / 8
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unknown_factor_is_refused_also_where_weights_are_small_and_rounded(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Scaled(Qwen3Config(**SHAPE, head_dim=8)).to(dtype)
    with pytest.raises(ModelError, match="Scaled changes its logits after the output layer"):
        TransformersEngine(model, None, vocabulary=VOCABULARY)
