"""Scores of semantic-ID levels from a transformers model: each prompt is encoded once, its beams share it.

The beams of a user are not copies of the prompt. Each level's codes of all beams of all users are fed as one row of
tokens; attention lets a token see its user's prompt and its own ancestors only (tree attention, as in SpecInfer, Miao
et al. 2024, sec. 4.2; our tree is the beam). Prompts of different lengths stand side by side in a row as well, so
nothing is padded. Only the level's K rows of the output matrix are multiplied. `prompt_attention` does the attention.

Shapes: B users, W beams, N tokens of all users, K codes, V vocabulary, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from genrec.adapter import OutputLayer, output_layer
from genrec.decoding.beam import Floats, Integers, ItemValues
from genrec.decoding.engine import ScoreMode
from genrec.decoding.prompt_attention import (
    BeamReader,
    Remembered,
    attention_implementation,
    hidden_states,
    read_prompts,
    reading,
)
from genrec.errors import GenrecError, ModelError, PromptTooLongError
from genrec.quantization import reads_by_column
from genrec.vocabulary import SidVocabulary

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}
_LOGIT_TOLERANCE = 0.03  # of the largest logit: bfloat16 keeps eight bits
_LOGITS_AT_ONCE = 1 << 24  # mode raw: at most this many float32 logits at a time (64 MiB)


class SharedPrefixScorer:
    """A `Scorer` over one batch of prompts. Holds their keys and values; drop it to free them."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        *,
        vocabulary: SidVocabulary,
        score_mode: ScoreMode,
        remembered: Remembered | None = None,
        item_prompts: Sequence[Sequence[int] | None] = (),
        own_items: NDArray[np.bool_] | None = None,
    ) -> None:
        self._model, self._vocabulary, self._score_mode = model, vocabulary, score_mode
        self._remembered = remembered
        self._head, self._prompts = output_layer(model), prompts
        self._lengths = np.array([len(prompt) for prompt in prompts])
        self._level = 0
        self._counts = np.ones(len(prompts), dtype=np.int64)  # rows of each user on the level before
        self._beams: BeamReader | None = None
        self._item_prompts, self._own_items = item_prompts, own_items

    def prefill(self) -> Floats:
        """See `Scorer.prefill`."""
        self._beams, last = self._read(self._prompts)
        return self._values(last)

    def items(self) -> ItemValues | None:
        """See `Scorer.items`."""
        vocabulary = self._vocabulary
        asked = [(user, prompt) for user, prompt in enumerate(self._item_prompts) if prompt is not None]
        if not vocabulary.item_rows or not asked:
            return None
        users, prompts = np.array([user for user, _ in asked]), [prompt for _, prompt in asked]
        _, last = self._read(prompts)
        logits = self._head.logits(last, vocabulary.first_item_token, len(vocabulary.item_rows)).float()
        values = np.asarray(logits.log_softmax(dim=-1).cpu().numpy(), dtype=np.float32)
        return ItemValues(np.array(vocabulary.item_rows), users, values, vocabulary.item_share, self._own_items)

    def step(self, parents: Integers, codes: Integers, counts: Integers) -> Floats:
        """See `Scorer.step`. Values behind a user's last beam are −inf."""
        real = np.arange(parents.shape[1]) < counts[:, None]  # (B, W)
        rows = (parents + (np.cumsum(self._counts) - self._counts)[:, None])[real]
        tokens = codes[real] + self._vocabulary.first_token_ids[self._level]
        positions = np.repeat(self._lengths + self._level, counts)
        self._counts = counts
        assert self._beams is not None, "prefill comes first"
        with reading(self._model):
            hidden = self._extend(self._beams, rows, tokens, positions)
        self._level += 1
        found = self._values(hidden)
        if real.all():
            return found.reshape(*real.shape, -1)
        values = np.full((*real.shape, found.shape[-1]), -np.inf, dtype=np.float32)
        values[real] = found
        return values

    def _read(self, prompts: Sequence[Sequence[int]]) -> tuple[BeamReader, Tensor]:
        """What follows the prompts can see, and the hidden states of their last tokens, (prompts, D)."""
        with reading(self._model):
            memories, last = read_prompts(self._model, prompts, self._remembered)
            beams = BeamReader(memories)
            if last is None:  # the last tokens were left out: they are rows that follow the prompts
                tokens = np.array([prompt[-1] for prompt in prompts])
                positions = np.array([len(prompt) - 1 for prompt in prompts])
                last = self._extend(beams, np.arange(len(prompts)), tokens, positions)
        return beams, last

    def _extend(self, beams: BeamReader, rows: Integers, tokens: Integers, positions: Integers) -> Tensor:
        """Feed one token behind each of the rows (N,) of the level before; hidden states (N, D)."""
        device = self._model.device
        counts = self._counts.tolist() if beams is self._beams else [1] * len(rows)
        beams.extend(torch.from_numpy(rows).to(device), counts)
        return hidden_states(
            self._model, torch.from_numpy(tokens).to(device), torch.from_numpy(positions).to(device), beams
        )

    def _values(self, hidden: Tensor) -> Floats:
        """Log-probabilities of the current level's codes after hidden states (…, D): (…, K)."""
        first = self._vocabulary.first_token_ids[self._level]
        logits = self._head.logits(hidden, first, self._vocabulary.codebook_sizes[self._level]).float()
        if self._score_mode == "raw":
            logits = logits - _vocabulary_log_sum_exp(self._head, hidden)[..., None]
        else:
            logits = logits.log_softmax(dim=-1)
        return np.asarray(logits.cpu().numpy(), dtype=np.float32)


def _vocabulary_log_sum_exp(head: OutputLayer, hidden: Tensor) -> Tensor:
    """Log of the summed exponentials of all V logits, float32, for hidden states (…, D): (…)."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    chunks = torch.split(flat, max(1, _LOGITS_AT_ONCE // head.out_features))
    sums = [head(chunk).float().logsumexp(dim=-1) for chunk in chunks]
    return torch.cat(sums).reshape(hidden.shape[:-1])


def check_model(model: PreTrainedModel, vocabulary: SidVocabulary) -> None:
    """Raise ModelError, naming what is missing, for a model that this scorer would score wrongly.

    What a configuration can tell is read there; the rest is measured: a tiny tree of codes must score as the
    model scores its paths one by one.
    """
    name, config = type(model).__name__, model.config.get_text_config(decoder=True)
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise ModelError(f"{name} takes no position_ids, so beams cannot share a prompt.", _SUPPORTED)
    unknown = set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYERS
    if unknown:
        raise ModelError(f"{name} has layers of type {', '.join(sorted(unknown))}.", _SUPPORTED)
    if attention_implementation(model) != "sdpa":
        raise ModelError(
            f"{name} runs {attention_implementation(model)} attention, which ours cannot take the place of.",
            'Load the model with attn_implementation="sdpa", or use a decoder that has it.',
        )
    if not model._supports_attention_backend:
        raise ModelError(f"{name} has attention of its own, which cannot share a prompt.", _SUPPORTED)
    for field in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, field, None) is not None:  # too little to be measured while weights are small
            raise ModelError(f"{name} caps its scores ({field}: {getattr(config, field)}).", _SUPPORTED)
    rows = output_layer(model).out_features
    needed = max(map(sum, vocabulary.groups))
    if needed > rows:
        raise ModelError(
            f"{name} has {rows} output rows, but its vocabulary of items needs {needed}.",
            "The model was not trained with this vocabulary: train it with `genrec train RUN`.",
        )
    try:
        _check_logits(model)
        _check_tree_equals_paths(model, vocabulary)
    except GenrecError:
        raise
    except Exception as error:  # whatever a model of another kind trips over, in its own code or in ours
        raise ModelError(
            f"{name} cannot score beams that share a prompt ({type(error).__name__}: {error}).", _SUPPORTED
        ) from error


def check_length(model: PreTrainedModel, longest: int) -> None:
    """Raise PromptTooLongError where `longest` tokens, prompt and semantic ID, exceed the model's context or window."""
    config = model.config.get_text_config(decoder=True)
    limits = {"context": getattr(config, "max_position_embeddings", None)}
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None or "sliding_attention" in layer_types:
        limits["sliding window"] = getattr(config, "sliding_window", None)
    for what, limit in limits.items():
        if limit is not None and longest > limit:
            raise PromptTooLongError(
                f"a prompt needs {longest} tokens with its semantic ID; the {what} of {type(model).__name__} "
                f"is {limit} tokens.",
                "Cut the oldest history, or train with a smaller `max_history_items`.",
            )


_SUPPORTED = "Use a decoder with rotary or learned positions and full attention, such as Qwen, Llama or GPT-NeoX."


def _check_logits(model: PreTrainedModel) -> None:
    """What our output layer makes of a hidden state must be the model's logits, in proportion to these: where weights
    are small or rounded, a factor that is missing is less than what trees of beams may differ by."""
    head = output_layer(model)
    tokens = torch.arange(min(5, head.out_features), device=model.device)[None]
    found = head(model.base_model(input_ids=tokens).last_hidden_state[:, -1]).float()
    expected = model(input_ids=tokens).logits[:, -1].float()
    if (found - expected).abs().max() > _LOGIT_TOLERANCE * expected.abs().max():
        raise ModelError(f"{type(model).__name__} changes its logits after the output layer.", _SUPPORTED)


def _check_tree_equals_paths(model: PreTrainedModel, vocabulary: SidVocabulary) -> None:
    """Two beams that swap places at every level must score as two separate sequences do."""
    prompt = list(range(min(5, output_layer(model).out_features)))
    scorer = SharedPrefixScorer(model, [prompt], vocabulary=vocabulary, score_mode="raw")
    values, paths = scorer.prefill()[:, None], [prompt]
    for level, size in enumerate(vocabulary.codebook_sizes):
        first = vocabulary.first_token_ids[level]
        expected = model(input_ids=torch.tensor(paths, device=model.device)).logits[:, -1].float()
        expected = expected.log_softmax(dim=-1)[:, first : first + size].cpu().numpy()
        error = float(np.abs(values[0] - expected).max())
        exact = model.dtype == torch.float32 and not reads_by_column(model)
        allowed = (1e-4 if exact else 0.05) * (1 + float(np.abs(expected).max()))
        if not error <= allowed and np.isfinite(expected).all():
            raise ModelError(
                f"{type(model).__name__} scores a beam differently from the same tokens alone (by {error:.2g} on "
                f"level {level}): its attention is not the plain one.",
                _SUPPORTED,
            )
        if level + 1 == len(vocabulary.codebook_sizes):
            return
        parents, codes = np.array([[len(paths) - 1, 0]]), np.array([[0, size - 1]])
        paths = [
            [*paths[parent], first + code] for parent, code in zip(parents[0].tolist(), codes[0].tolist(), strict=True)
        ]
        values = scorer.step(parents, codes, np.array([2]))
