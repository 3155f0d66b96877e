"""Attention in which the beams of a user read the prompt's keys and values once, in place: no copy, mask or padding.

Tokens of all users stand side by side in one row of a batch. While prompts are read, a token sees the tokens before it
in its own prompt. Afterwards a row is a beam: it sees its user's prompt, which all beams of the user read together,
and its own few ancestors, which are gathered. The two parts are softmaxes of their own, merged by their log-sum-exp
(as in Hydragen, Juravsky et al. 2024, sec. 3.1).

The function is entered in transformers' table of attention functions, so a decoder that asks that table can be used as
it is. What it attends to comes as the argument `reader` of the model's forward pass.

Shapes: N tokens of all users, H heads, G key-value heads, D width of a head, T tokens of a prompt, A ancestors. Heads
of values may have another width than those of queries and keys, as in DeepSeek-V3.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate, pairwise
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "genrec_shared_prompt"
_lock = threading.Lock()  # which attention a model runs stands in its configuration, one for all threads

_TOKENS_AT_ONCE = 512  # of prompts: what a layer makes of more does not stay in a core's cache
# Reading a prompt but for its last token spares the last layer nearly all of its work, and costs one more pass over
# the weights and over every operation of Python, for the last token alone. A pass over a layer's weights costs what so
# many tokens do; its operations, what the products of so many weights and tokens do.
_TOKENS_PER_LAYER, _WEIGHTS_PER_LAYER = 10, 25_000_000

Memory = list[tuple[Tensor, Tensor]]
"""Per layer the keys and values of one user's prompt, each (G, T, D)."""


class PromptReadError(Exception):
    """Raised in the last layer once its keys and values are known: nobody needs what it makes of a prompt's inside."""


class Reader(Protocol):
    """What the tokens of one forward pass attend to. Called once per layer, in order."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Query (H, N, D), key and value (G, N, D) → (N, H, D)."""
        ...


class PromptReader:
    """Reads prompts: every token sees its own prompt up to itself. `memories` holds their keys and values afterwards.

    With `last_layer` it raises PromptReadError when it has that layer's keys and values.
    """

    def __init__(self, lengths: Sequence[int], *, last_layer: int | None = None) -> None:
        self.bounds = list(pairwise(accumulate(lengths, initial=0)))
        self._last_layer, self._layer = last_layer, 0
        self.memories: list[Memory] = [[] for _ in lengths]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `Reader.attend`."""
        layer, self._layer = self._layer, self._layer + 1
        found = []
        for memory, (start, end) in zip(self.memories, self.bounds, strict=True):
            # Copies, also where a slice is contiguous: a remembered prompt would keep its whole batch.
            keys, values = (part[:, start:end].clone(memory_format=torch.contiguous_format) for part in (key, value))
            memory.append((keys, values))
            if layer != self._last_layer:
                found.append(_causal(query[:, start:end], keys, values, scale))
        if layer == self._last_layer:
            raise PromptReadError
        return torch.cat(found)


class BeamReader:
    """Extends beams, level after level: rows of user u see `memories[u]` and their own ancestors.

    Every live row holds the keys and values of its ancestors and its own, (A, N, G, D) per layer; what a beam that was
    dropped has seen goes with it.
    """

    def __init__(self, memories: Sequence[Memory]) -> None:
        self._memories, self._seen = memories, Memory()
        self._parents, self._layer = torch.zeros(0, dtype=torch.long), 0
        self._bounds: list[tuple[int, int]] = []

    def extend(self, parents: Tensor, counts: Sequence[int]) -> None:
        """Announce the next N rows, `counts[u]` of user u: `parents` (N,) are rows of the level before."""
        self._parents, self._layer = parents, 0
        self._bounds = list(pairwise(accumulate(counts, initial=0)))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `Reader.attend`."""
        layer, self._layer = self._layer, self._layer + 1
        if layer == len(self._seen):
            self._seen.append((key.new_empty(0), value.new_empty(0)))
        seen = self._seen[layer]
        near, far = (self._followed(before, own) for before, own in zip(seen, (key, value), strict=True))
        self._seen[layer] = near, far
        shared, weight = self._shared(query, layer, scale)  # (N, H, D), (N, H)
        asked = query.transpose(0, 1).unflatten(1, (len(key), -1))  # (N, G, heads that read the same keys, D)
        match = (near[:, :, :, None] * asked).sum(dim=-1, dtype=torch.float32).flatten(2) * scale  # (A, N, H)
        peak = torch.maximum(weight, match.amax(dim=0))
        share, shares = (weight - peak).exp(), (match - peak).exp()
        total = share + shares.sum(dim=0)
        read = (far[:, :, :, None] * shares.unflatten(2, (len(key), -1))[..., None]).sum(dim=0).flatten(1, 2)
        return ((shared * share[..., None] + read) / total[..., None]).to(value.dtype)

    def _followed(self, before: Tensor, own: Tensor) -> Tensor:
        """Keys or values of every row's ancestors, and last its own, (G, N, D): (A, N, G, D)."""
        rows = own.transpose(0, 1)
        found = own.new_empty(len(before) + 1, *rows.shape)
        for level, kept in zip(before, found, strict=False):
            torch.index_select(level.flatten(1), 0, self._parents, out=kept.flatten(1))  # rows of one number: faster
        found[-1] = rows
        return found

    def _shared(self, query: Tensor, layer: int, scale: float) -> tuple[Tensor, Tensor]:
        """Attention to the prompts alone, (N, H, D), and its log-sum-exp, float32 (N, H); −inf for an empty prompt."""
        heads = len(query)
        parts, weights = [], []
        for memory, (start, end) in zip(self._memories, self._bounds, strict=True):
            keys, values = memory[layer]
            # The beams of all heads that share keys are one long query.
            asked = query[:, start:end].reshape(len(keys), -1, query.shape[-1])
            found, weight = _attend(asked, keys, values, scale)
            parts.append(found.reshape(heads, end - start, -1).transpose(0, 1))
            weights.append(weight.reshape(heads, end - start).transpose(0, 1))
        return torch.cat(parts), torch.cat(weights)


class Remembered:
    """What prompts left in a model that does not change, kept for when they come again: at most `max_bytes` of it.

    The prompts that were used last stay. Only inside `reading(model)`, where there is one thread at a time.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._memories: OrderedDict[tuple[int, ...], Memory] = OrderedDict()

    def get(self, prompt: tuple[int, ...]) -> Memory | None:
        """What this prompt left, if it is still known."""
        if prompt in self._memories:
            self._memories.move_to_end(prompt)
        return self._memories.get(prompt)

    def add(self, prompt: tuple[int, ...], memory: Memory) -> None:
        """Keep what a prompt left, in place of what was used longest ago."""
        self._bytes += _num_bytes(memory) - _num_bytes(self._memories.pop(prompt, []))
        self._memories[prompt] = memory
        while self._bytes > self._max_bytes:
            self._bytes -= _num_bytes(self._memories.popitem(last=False)[1])


def _num_bytes(memory: Memory) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in memory)


def read_prompts(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], remembered: Remembered | None = None
) -> tuple[list[Memory], Tensor | None]:
    """What each prompt leaves in every layer, and the hidden states of the last tokens, (B, width); see `reading`.

    None in place of hidden states: the last tokens were left out, since it is cheaper to feed them afterwards, or
    since what comes before them was `remembered`. Equal prompts are read once.
    """
    layers = int(model.config.get_text_config(decoder=True).num_hidden_layers)
    if remembered is None and sum(map(len, prompts)) < _few(model, layers):
        reader = PromptReader([len(prompt) for prompt in prompts])
        hidden = _read(model, prompts, reader)
        ends = torch.tensor([end for _, end in reader.bounds], device=hidden.device)
        return reader.memories, hidden[ends - 1]
    insides = [tuple(prompt[:-1]) for prompt in prompts]
    found = {} if remembered is None else {inside: remembered.get(inside) for inside in insides}
    unread = [inside for inside in dict.fromkeys(insides) if found.get(inside) is None]
    if unread == [()]:  # no model passes over nothing at all; a token beside it leaves what is true as well
        unread.append(tuple(prompts[0][:1]))
    for part in _parts(unread):
        reader = PromptReader([len(inside) for inside in part], last_layer=layers - 1)
        with suppress(PromptReadError):
            _read(model, part, reader)
        for inside, memory in zip(part, reader.memories, strict=True):
            found[inside] = memory
            if remembered is not None:
                remembered.add(inside, memory)
    return [cast(Memory, found[inside]) for inside in insides], None


def _few(model: PreTrainedModel, layers: int) -> float:
    """How many tokens are read with all that a model makes of them, rather than without the last layer's."""
    base: Any = model.base_model
    weights = (sum(map(torch.numel, base.parameters())) - base.get_input_embeddings().weight.numel()) / layers
    return layers * (_TOKENS_PER_LAYER + _WEIGHTS_PER_LAYER / max(1.0, weights))


def _parts(prompts: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """The prompts, shortest first, as many together as are read at once; an empty one is never alone."""
    part: list[tuple[int, ...]] = []
    size = 0
    for prompt in sorted(prompts, key=len):
        if size and size + len(prompt) > _TOKENS_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(prompt)
        size += len(prompt)
    if part:
        yield part


def _read(model: PreTrainedModel, prompts: Sequence[Sequence[int]], reader: PromptReader) -> Tensor:
    tokens = torch.tensor([token for prompt in prompts for token in prompt], device=model.device)
    positions = torch.cat([torch.arange(len(prompt), device=model.device) for prompt in prompts])
    return hidden_states(model, tokens, positions, reader)


def attention_implementation(model: PreTrainedModel) -> str:
    """The name of the attention that the model runs, such as `sdpa`."""
    return str(model.config.get_text_config(decoder=True)._attn_implementation)


def run_sdpa(model: PreTrainedModel) -> None:
    """Let a model run PyTorch's attention (sdpa) from now on where it runs the written-out one (eager) and has both.

    A mask that another thread made while we are `reading` may say nothing, which sdpa takes for causal and eager for no
    mask at all.
    """
    config: Any = model.config.get_text_config(decoder=True)
    with _lock:
        if config._attn_implementation == "eager" and model._supports_sdpa:
            config._attn_implementation = "sdpa"


@contextmanager
def reading(model: PreTrainedModel) -> Iterator[None]:
    """Let `model` ask this module's attention; afterwards it has its own again. One thread at a time.

    Other threads may go on to run the same model: without a `reader` this attention is that of PyTorch (sdpa).
    """
    config: Any = model.config.get_text_config(decoder=True)
    with _lock:
        own = config._attn_implementation
        config._attn_implementation = _NAME
        try:
            yield
        finally:
            config._attn_implementation = own


def hidden_states(model: PreTrainedModel, tokens: Tensor, positions: Tensor, reader: Reader) -> Tensor:
    """Hidden states (N, width) of tokens at positions, both (N,), inside `reading(model)`. Raises PromptReadError."""
    # A mask of four dimensions goes through to the attention as it is; here it says nothing.
    no_mask = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=tokens.device)
    run: Any = model.base_model
    found = run(
        input_ids=tokens[None], position_ids=positions[None], attention_mask=no_mask, use_cache=False, reader=reader
    )
    hidden: Tensor = found.last_hidden_state[0]
    return hidden


def shared_prompt_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    reader: Reader | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Query (1, H, N, D), key and value (1, G, N, D) → (1, N, H, D): transformers' signature, and a `reader`."""
    if reader is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dtype = value.dtype  # under autocast a norm may have left queries and keys in float32
    attended = reader.attend(query[0].to(dtype), key[0].to(dtype), value[0], scale)
    return attended[None], None


def _causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """A prompt's tokens (H, T, D) on themselves (G, T, D), each on those up to it → (T, H, D)."""
    found = F.scaled_dot_product_attention(
        query[None], key[None], value[None], is_causal=True, scale=scale, enable_gqa=len(query) != len(key)
    )
    return found[0].transpose(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Query (G, N, D), key (G, T, D), value (G, T, E) → attention (G, N, E) and its log-sum-exp, float32 (G, N)."""
    if not key.shape[1]:
        nothing = value.new_zeros(*query.shape[:2], value.shape[-1])
        return nothing, query.new_full(query.shape[:2], -torch.inf, dtype=torch.float32)
    if query.device.type == "cpu" and query.shape[-1] == value.shape[-1]:
        # The kernel behind scaled_dot_product_attention, which keeps the log-sum-exp to itself. It knows one width.
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        found, weight = kernel(query[None], key[None], value[None], 0.0, False, attn_mask=None, scale=scale)
        return found[0], weight[0]
    return _attend_written_out(query, key, value, scale)


def _attend_written_out(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`_attend` without a kernel of its own."""
    match = (query @ key.transpose(1, 2)).float() * scale
    weight = match.logsumexp(dim=-1)
    return (match - weight[..., None]).exp().to(value.dtype) @ value, weight


AttentionInterface.register(_NAME, shared_prompt_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
