"""Free text from a transformers model: our own short loop, so that no default of a model folder sneaks in.

`generate` of transformers reads top-k, top-p and repetition penalties from generation_config.json wherever a
caller leaves them out. Here there is a temperature and nothing else; 0 is greedy.

Shapes: B prompts, T tokens of the longest, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from genrec.adapter import output_layer
from genrec.decoding.engine import Generation

_COLDEST = 1e-6


class Decoder(Protocol):
    """What text generation needs of a tokenizer; every transformers tokenizer has it."""

    eos_token_id: int | None

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Text of token ids."""
        ...


def next_tokens(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, never: slice, temperature: float, seed: int
) -> Iterator[list[int]]:
    """Endless continuation: one token per prompt and step, none of `never`. Every prompt draws from its own generator.

    Prompts are padded on the left and the padding is masked, so a prompt's text does not depend on the batch.
    """
    longest = max(map(len, prompts))
    rows = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    tokens = torch.tensor(rows, device=model.device)  # (B, T)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    columns = torch.arange(longest, device=model.device)
    mask = (columns >= longest - lengths[:, None]).long()  # (B, T): 0 for padding
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    generators = [torch.Generator(device=model.device).manual_seed(seed) for _ in prompts]
    cache, head = DynamicCache(), output_layer(model)
    while True:
        hidden = model.base_model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits = head(hidden[:, -1]).float()  # (B, V)
        logits[:, never] = -torch.inf
        chosen = _choose(logits, temperature, generators)  # (B,)
        yield chosen.tolist()
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)


def _choose(logits: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    if temperature == 0:
        return logits.argmax(dim=-1)
    # Less is as good as greedy, and would divide to numbers that float32 does not have.
    logits = logits - logits.max(dim=-1, keepdim=True).values
    chances = (logits / max(temperature, _COLDEST)).softmax(dim=-1)
    drawn = [torch.multinomial(row, 1, generator=generator) for row, generator in zip(chances, generators, strict=True)]
    return torch.cat(drawn)


class TextUnderWay:
    """One prompt's text while it grows: knows when it ends and which part can be shown already."""

    def __init__(self, tokenizer: Decoder, *, end_ids: set[int], stop: Sequence[str], max_new_tokens: int) -> None:
        self._tokenizer, self._end_ids, self._stop = tokenizer, end_ids, [mark for mark in stop if mark]
        self._max_new_tokens = max_new_tokens
        self._tokens: list[int] = []
        self._shown = 0
        self._ended = self._stopped = False

    @property
    def done(self) -> bool:
        """Whether an end token, a stop string or the limit was reached."""
        return self._ended or self._stopped or len(self._tokens) >= self._max_new_tokens

    def add(self, token: int) -> None:
        """Take one more token; nothing happens after the end."""
        if self.done:
            return
        if token in self._end_ids:
            self._ended = True
            return
        self._tokens.append(token)
        if self._stop:
            self._stopped = any(mark in self._decoded() for mark in self._stop)

    def news(self) -> str:
        """Text that is settled and was not returned yet: no half character, no beginning of a stop string."""
        text = self._text()
        settled = len(text) if self.done else len(text) - self._unsettled(text)
        piece, self._shown = text[self._shown : settled], max(self._shown, settled)
        return piece

    def finished(self) -> Generation:
        """The whole text."""
        reason = "stop" if self._ended or self._stopped else "length"
        return Generation(self._text(), tuple(self._tokens), "stop" if reason == "stop" else "length")

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))

    def _text(self) -> str:
        text = self._decoded()
        return text[: min((text.index(mark) for mark in self._stop if mark in text), default=len(text))]

    def _unsettled(self, text: str) -> int:
        """Length of the end of `text` that a further token could change or turn into a stop string."""
        half = len(text) - len(text.rstrip("\ufffd"))
        begun = [size for mark in self._stop for size in range(1, len(mark)) if text.endswith(mark[:size])]
        return max([half, *begun])
