"""Attention over packed rows, written out as two products and a softmax: for short rows on a CPU.

PyTorch's fused kernel saves memory where rows are long. Packed histories are short, and there its backward pass
on a CPU takes two to three times as long as the plain formula (docs/experiments.md). On other devices and for
long rows the model keeps its own attention.

Shapes: B rows, H heads, G key-value heads, T tokens, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

_NAME = "genrec_written_out"
LONGEST_ROW = 256  # tokens; with 512 the fused kernel is level or ahead


@contextmanager
def attention_for(model: PreTrainedModel, tokens: Tensor) -> Iterator[None]:
    """Run `model` on `tokens` (B, T) with the faster attention; afterwards it has its own again."""
    own = model.config.get_text_config(decoder=True)._attn_implementation
    if tokens.device.type != "cpu" or tokens.shape[1] > LONGEST_ROW or not _takes_a_function(model) or own != "sdpa":
        yield
        return
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def written_out_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **_options: Any,
) -> tuple[Tensor, None]:
    """Query (B, H, T, D), key and value (B, G, T, D), bool mask (B, 1, T, T), True = sees → (B, T, H, D).

    The signature is that of transformers' attention functions.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    match = (query * scale) @ key.transpose(2, 3)
    # Added in place: filling would copy all heads, here and again in the backward pass.
    match += torch.zeros_like(attention_mask, dtype=match.dtype).masked_fill_(~attention_mask, -torch.inf)
    # The softmax of bfloat16 is summed in float32 by PyTorch; only its result is rounded.
    shares = torch.softmax(match, dim=-1)
    return (shares.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def _takes_a_function(model: PreTrainedModel) -> bool:
    """Whether the model's layers ask transformers' table of attention functions, and plain attention is all they do."""
    config: Any = model.config.get_text_config(decoder=True)
    plain = getattr(config, "attn_logit_softcapping", None) is None
    return bool(model._supports_attention_backend) and plain


AttentionInterface.register(_NAME, written_out_attention)
