"""Log-probabilities of several items after one prompt, with gradients; the prompt is read once for all of them.

The items of a prompt stand beside each other in one row, and an attention mask lets each see the prompt and its own
codes only, as the beams of a search do (`decoding/shared_prefix.py`).

Shapes: B prompts, P longest prompt, G items of a prompt, L levels, S = P + G · (L - 1) columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genrec.adapter import output_layer
from genrec.training.attention import attention_for


def item_log_probabilities(
    model: Any,
    groups: Sequence[tuple[int, int]],
    prompts: Sequence[Sequence[int]],
    item_tokens: NDArray[np.int64],
) -> Tensor:
    """For each token of each item its log-probability over the tokens of its group: (B, G, L), float32.

    `item_tokens` are token ids (B, G, L), `groups` first id and size for each of L (`SidVocabulary.groups`). Prompts
    are padded on the left, so that the items stand in the same columns.
    """
    batch, group, levels = item_tokens.shape
    longest = max(map(len, prompts))
    rows = np.zeros((batch, longest), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        rows[row, longest - len(prompt) :] = prompt
    device = model.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    items = torch.from_numpy(item_tokens).to(device)
    read = items[:, :, :-1].reshape(batch, -1)  # the last code of an item is asked for and never read
    tokens = torch.cat([torch.from_numpy(rows).to(device), read], dim=1)  # (B, S)
    mask, positions = _mask_and_positions(lengths, longest, group=group, depth=levels - 1)
    with attention_for(model, tokens):
        hidden = model.base_model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
    last = hidden[:, longest - 1 : longest].expand(-1, group, -1)[:, :, None]  # (B, G, 1, D): before every first code
    after = hidden[:, longest:].reshape(batch, group, levels - 1, hidden.shape[-1])
    states = torch.cat([last, after], dim=2)  # (B, G, L, D)
    output = output_layer(model)
    found = []
    for level, (first, size) in enumerate(groups):
        logits = output.logits(states[:, :, level], first, size).float().log_softmax(dim=-1)
        found.append(logits.gather(-1, (items[:, :, level] - first)[..., None])[..., 0])
    return torch.stack(found, dim=-1)


def _mask_and_positions(lengths: Tensor, longest: int, *, group: int, depth: int) -> tuple[Tensor, Tensor]:
    """Which column sees which, bool (B, 1, S, S), and the columns' positions (B, S). Padding sees itself alone."""
    device, batch = lengths.device, len(lengths)
    columns = torch.arange(longest, device=device)
    real = columns >= longest - lengths[:, None]  # (B, P)
    size = longest + group * depth
    owner = torch.arange(group, device=device).repeat_interleave(depth)
    place = torch.arange(depth, device=device).repeat(group)
    own = (owner[:, None] == owner[None]) & (place[:, None] >= place[None])
    mask = torch.zeros(batch, size, size, dtype=torch.bool, device=device)
    mask[:, :longest, :longest] = real[:, None, :] & (columns[:, None] >= columns[None])
    mask[:, longest:, :longest] = real[:, None, :]
    mask[:, longest:, longest:] = own
    mask |= torch.eye(size, dtype=torch.bool, device=device)
    positions = torch.cat([columns - (longest - lengths[:, None]), lengths[:, None] + place[None]], dim=1)
    return mask[:, None], positions.clamp(min=0)
