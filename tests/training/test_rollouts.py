"""Items beside each other after one prompt score as each of them does alone, gradients too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from genrec.training.rollouts import item_log_probabilities
from genrec.vocabulary import SidVocabulary

THREE_LEVELS = SidVocabulary((6, 5, 4), (300, 306, 311))
ONE_LEVEL = SidVocabulary((15,), (300,))


@pytest.mark.parametrize(
    ("family", "vocabulary"), [("qwen3", THREE_LEVELS), ("gemma3", THREE_LEVELS), ("qwen3", ONE_LEVEL)]
)
def test_one_row_per_prompt_equals_one_row_per_item(
    family: str, vocabulary: SidVocabulary, base_folder: Callable[[str], Path]
):
    model = AutoModelForCausalLM.from_pretrained(
        base_folder(family), dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3.0) if parameter.dim() > 1 else None
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, (3, 4)) for size in vocabulary.codebook_sizes], axis=-1)
    items = vocabulary.token_ids(codes)  # (3, 4, L)
    prompts = [rng.integers(0, 300, length).tolist() for length in (5, 1, 9)]
    found = item_log_probabilities(model, vocabulary.groups, prompts, items)
    assert found.shape == items.shape
    expected = torch.zeros(items.shape)
    for user, prompt in enumerate(prompts):
        for number in range(4):
            logits = model(input_ids=torch.tensor([[*prompt, *items[user, number].tolist()]])).logits[0]
            for level, (first, size) in enumerate(
                zip(vocabulary.first_token_ids, vocabulary.codebook_sizes, strict=True)
            ):
                row = logits[len(prompt) + level - 1, first : first + size].log_softmax(dim=-1)
                expected[user, number, level] = row[int(codes[user, number, level])]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    found.sum().backward()
    one = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    expected.sum().backward()
    assert len(one) > 10
    for name, weight in model.named_parameters():
        torch.testing.assert_close(one[name], weight.grad, atol=1e-3, rtol=1e-3)
