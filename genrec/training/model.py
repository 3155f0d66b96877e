"""Base models: a small one from scratch, or any causal language model of a folder or hub; then the loss.

`scratch` is a small Qwen3 with a byte-level BPE tokenizer trained on the catalogue's text. It goes through the
same code as a downloaded model: same classes, same folder layout, same tokens added.

Shapes: B rows, T tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config

from genrec.adapter import OutputLayer, merge_adapter, output_layer, row_matrices
from genrec.config import ScratchConfig, TrainConfig
from genrec.encoders.sequential import FullCrossEntropy
from genrec.errors import ConfigError, ModelError
from genrec.model_hub import reaching_hub
from genrec.quantization import keep_exact, quantization_config
from genrec.training.attention import attention_for
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import SidVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from genrec.training.batching import PackedRows

_MANY_ITEMS = 2048  # from here a softmax does not fit a CPU's cache as a whole
_LOGITS_AT_ONCE = 1 << 26  # 256 MB, of which the softmax keeps as much again


def load_base(
    config: TrainConfig, texts: Iterable[str], *, adapter: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model and tokenizer to start from, in float32, before semantic-ID tokens are added.

    `texts` are the catalogue's; only `scratch` reads them. `adapter` is a folder to merge into the base. For `qlora`
    the linear layers come quantised. Raises ModelError for a base that cannot be loaded.
    """
    if config.base == "scratch":
        # The words of our own prompt become few tokens.
        tokenizer = train_text_tokenizer([*texts, "Items:"], config.scratch.text_vocabulary)
        torch.manual_seed(config.seed)
        return scratch_model(config.scratch, tokenizer), tokenizer
    quantization = quantization_config(config.lora.quantization) if config.adapter == "qlora" else None
    if adapter is not None and quantization is not None:
        raise ConfigError(
            f"the base {config.base!r} has an adapter, which cannot be merged into quantised weights.",
            "Export it with `genrec export RUN --out DIR` and give DIR as the base.",
        )
    try:
        with reaching_hub(config.base):
            # Not Mistral's own tokenizer, which is taken where its package is installed (vLLM brings it along).
            loaded: Any = AutoTokenizer.from_pretrained(config.base, mistral_format=False, trust_remote_code=False)
            # sdpa takes the mask of packed rows as it is; a model without it says so here.
            with_report: Any = AutoModelForCausalLM.from_pretrained(
                config.base,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="sdpa",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # it names none; they are refused below
                quantization_config=quantization,
                device_map=None if quantization is None else {"": PartialState().device},
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"base model {config.base!r} cannot be loaded: {first_line}",
            "Give `scratch`, a folder with config.json, tokenizer and safetensors, or a hub name.",
        ) from error
    if not isinstance(loaded, PreTrainedTokenizerFast):
        raise ModelError(f"base model {config.base!r} has no fast tokenizer.", "Choose a base with a tokenizer.json.")
    model, report = with_report
    if quantization is not None:
        keep_exact(model)
    if mismatched := sorted(report["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise ModelError(
            f"base model {config.base!r} has {name} of shape {tuple(found)}; its config.json says {tuple(expected)}.",
            "Give the config.json that belongs to the weights.",
        )
    if missing := sorted(report["missing_keys"]):
        # transformers would start them at random and say so in a log line only.
        raise ModelError(
            f"base model {config.base!r} has no weights for {missing[0]} and {len(missing) - 1} others.",
            "Give a causal language model with all of its layers.",
        )
    return model if adapter is None else merge_adapter(model, adapter), loaded


def scratch_model(shape: ScratchConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A small Qwen3 with random weights (seed torch before) and tied embeddings."""
    if shape.hidden_size % shape.heads:
        raise ModelError(
            f"scratch: hidden_size {shape.hidden_size} is not a multiple of heads {shape.heads}.",
            "Change one of them.",
        )
    if shape.hidden_size // shape.heads % 2:
        raise ModelError(
            f"scratch: heads of {shape.hidden_size // shape.heads} numbers cannot be rotated by position.",
            "Choose hidden_size / heads even.",
        )
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.hidden_size // shape.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


class PackedLoss(nn.Module):
    """Cross-entropy of the targets of packed rows, through any causal language model.

    A semantic-ID token is scored against the K codes of its level, the same normalisation as the default
    score mode of decoding (`"level"`); with K = 256 that is a small part of the cost of the whole vocabulary. An item's
    own token is scored against those of all items, and counts as much as the codes of an item together, so either
    spelling of a history weighs the same. Any other token is scored against all words, which are what a text may be
    written in. A module of its own, so that accelerate can wrap the whole computation for several processes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: SidVocabulary,
        *,
        dropout: float,
        label_smoothing: float,
        word_dropout: float | None = None,
        item_vectors: NDArray[np.float32] | None = None,
    ) -> None:
        """`word_dropout` is of examples that are no whole histories, where it is another than that of these.

        `item_vectors` (N, C) are what the items with tokens of their own are like, in the order of these tokens.

        Then the row of an item's token is a free row and a linear map of its vector, both learned, so what one item
        teaches is known of those like it; the two are one row whenever the loss is not in training mode.
        """
        super().__init__()
        self.model = model
        self._vocabulary = vocabulary
        self._label_smoothing = label_smoothing
        self._content: ItemContent | None = None
        self._hooks: list[RemovableHandle] = []
        if item_vectors is not None:
            self._content = ItemContent(model, item_vectors, first=vocabulary.first_item_token)
            self._hooks.append(model.get_input_embeddings().register_forward_hook(self._content.add_to_input))
        self._dropout = TokenDropout(dropout, dropout if word_dropout is None else word_dropout)
        self._hooks += self._dropout.add_to(model)

    def train(self, mode: bool = True) -> PackedLoss:
        """As of any module; outside of training mode the model is whole without what is learned beside it."""
        super().train(mode)
        if self._content is not None:
            self._content.set_apart(mode)
        return self

    def forward(
        self, tokens: Tensor, positions: Tensor, segments: Tensor, targets: Tensor, words: Tensor | None = None
    ) -> Tensor:
        """Mean loss in nats over the targets; all arguments are (B, T). Without `words`, all examples are histories."""
        backbone: Any = self.model.base_model
        self._dropout.meet(words)
        from_vectors = self._content.make_rows() if self._content is not None and self.training else None
        # A block that is computed again in the backward pass must find the attention that it had.
        twice = self.model.is_gradient_checkpointing
        with nullcontext() if twice else attention_for(self.model, tokens):
            hidden = backbone(
                input_ids=tokens, attention_mask=packed_mask(segments), position_ids=positions, use_cache=False
            ).last_hidden_state
        # A target's logits come from the token before it; only those rows meet the output matrix. The first
        # token of an example has none: the one before it in the row belongs to another example.
        wanted = targets[:, 1:] & (positions[:, 1:] > 0)
        hidden, labels = hidden[:, :-1][wanted], tokens[:, 1:][wanted]
        output = output_layer(self.model)
        total = hidden.new_zeros((), dtype=torch.float32)
        count = torch.zeros((), device=hidden.device)
        is_text = torch.ones_like(labels, dtype=torch.bool)
        levels = len(self._vocabulary.codebook_sizes)
        for number, (first, size) in enumerate(self._vocabulary.groups):
            here = (labels >= first) & (labels < first + size)
            is_text &= ~here
            weight, bias = 1 if number < levels else levels, output.bias
            rows = output.rows(first, size)
            rows = rows + from_vectors if number == levels and from_vectors is not None else rows
            bias = None if bias is None else output.scaled(bias[first : first + size])
            total = total + weight * self._group_sum(output.scaled(hidden[here]), labels[here] - first, rows, bias)
            count += weight * here.sum()
        if bool(is_text.any()):
            total = total + self._words_sum(output, hidden[is_text], labels[is_text])
        mean: Tensor = total / (count + is_text.sum()).clamp(min=1)
        return mean

    def row_weights(self, rows: PackedRows) -> NDArray[np.int64]:
        """What the targets of every row count in a mean loss, (R,): an item's own token as much as its codes."""
        labels, wanted = rows.tokens[:, 1:], rows.targets[:, 1:] & (rows.positions[:, 1:] > 0)
        counts: NDArray[np.int64] = wanted.sum(1)
        if self._vocabulary.item_rows:
            first, size = self._vocabulary.groups[-1]
            own = wanted & (labels >= first) & (labels < first + size)
            counts = counts + (len(self._vocabulary.codebook_sizes) - 1) * own.sum(1)
        return counts

    def finish(self) -> None:
        """Leave the model whole and without hooks: what comes next may put in dropout of its own."""
        self.eval()
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._content = [], None

    def _group_sum(self, hidden: Tensor, labels: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
        """Sum of the cross-entropies of labels (N,) among a group's rows (K, D); hidden states and bias are scaled."""
        if len(rows) < _MANY_ITEMS or hidden.device.type != "cpu" or self._label_smoothing or bias is not None:
            return self._sum(F.linear(hidden, rows, bias), labels)
        total: Tensor = FullCrossEntropy.apply(hidden, rows, labels)  # type: ignore[no-untyped-call]
        return total

    def _words_sum(self, output: OutputLayer, hidden: Tensor, labels: Tensor) -> Tensor:
        """Sum of the cross-entropies of labels (N,) among all words: where the logits are many, some rows at a time,
        computed again in the backward pass, so that they never stand in memory together."""
        items = self._vocabulary.span
        labels = torch.where(labels >= items.stop, labels - (items.stop - items.start), labels)

        def one(rows: Tensor, wanted: Tensor) -> Tensor:
            return self._sum(output.logits_without(rows, items), wanted)

        at_once = max(1, _LOGITS_AT_ONCE // (output.out_features - (items.stop - items.start)))
        if len(labels) <= at_once:
            return one(hidden, labels)
        parts = zip(hidden.split(at_once), labels.split(at_once), strict=True)
        return torch.stack([checkpoint(one, *part, use_reentrant=False) for part in parts]).sum()

    def _sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=self._label_smoothing, reduction="sum")


class ItemContent(nn.Module):
    """A linear map of what items are like, which is part of the rows of their own tokens while these are trained."""

    def __init__(self, model: PreTrainedModel, vectors: NDArray[np.float32], *, first: int) -> None:
        """Vectors (N, C) of the items of the tokens `first`, `first` + 1, …; the map starts at zero."""
        super().__init__()
        # Not modules of this one: the model trains and stores them.
        self._pieces = [(matrix, first - start) for matrix, start in row_matrices(model)]
        self.map = nn.Parameter(torch.zeros(vectors.shape[1], self._pieces[0][0].shape[1]))
        self.register_buffer("_vectors", torch.from_numpy(vectors), persistent=False)
        self._vectors: Tensor
        self._first = first
        self._rows: Tensor | None = None
        self._free: list[Tensor] | None = None

    def make_rows(self) -> Tensor:
        """What the map gives every item, (N, D); the next pass through the model reads the same."""
        with torch.autocast(self.map.device.type, enabled=False):  # as exact as the rows that it is added to
            self._rows = self._vectors @ self.map
        return self._rows

    def add_to_input(self, embedding: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """A hook of the input embedding: token ids (B, T) and their free rows (B, T, D) to whole rows."""
        if not self.training or self._rows is None:
            return output
        numbers = inputs[0] - self._first
        own = (numbers >= 0) & (numbers < len(self._vectors))
        # Gemma's embeddings multiply what they read, also where an adapter has wrapped them.
        scale: Any = next((part.embed_scale for part in embedding.modules() if hasattr(part, "embed_scale")), 1.0)
        return output.index_put((own,), output[own] + (self._rows[numbers[own]] * scale).to(output))

    @torch.no_grad()
    def set_apart(self, apart: bool) -> None:
        """Whether the model's rows are the free ones alone, as in training, or whole."""
        if apart == (self._free is None):
            return
        pieces = [matrix[start : start + len(self._vectors)] for matrix, start in self._pieces]
        if not apart:
            self._free = [piece.clone() for piece in pieces]
            for piece in pieces:
                piece += self._vectors @ self.map
        elif self._free is not None:
            for piece, free in zip(pieces, self._free, strict=True):
                piece.copy_(free)  # to the last digit: subtracting would round
            self._free = None


def packed_mask(segments: Tensor) -> Tensor:
    """Which token may see which: earlier ones of its own example. (B, T) → bool (B, 1, T, T).

    Empty space (segment 0) sees itself, so that no row of the attention is without any key.
    """
    length = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return (same & causal)[:, None]


class TokenDropout:
    """Dropout on the embeddings and on what each attention and MLP block adds, in training only.

    Today's language models define none of their own; small ones trained on one catalogue need it to recommend. To know
    titles by heart they need none, so examples that are no whole histories have a rate of their own.
    """

    def __init__(self, dropout: float, word_dropout: float) -> None:
        """Rates of histories and of other examples."""
        self._rates = (dropout, word_dropout)
        self._now: float | Tensor = dropout

    def meet(self, words: Tensor | None) -> None:
        """What the next pass through the model reads: (B, T), true in examples that are no histories."""
        histories, others = self._rates
        if words is None or histories == others:
            self._now = histories
        else:
            self._now = torch.where(words, others, histories)[..., None]

    def add_to(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hooks of the model's parts, none where nothing is dropped. Raises ModelError where it has no such parts."""
        if not any(self._rates):
            return []
        blocks = [
            module
            for name, module in model.named_modules()
            if name.rsplit(".", 1)[-1] in {"self_attn", "attn", "attention", "mlp"}
        ]
        if not blocks:
            raise ModelError(
                f"dropout: {type(model).__name__} has no blocks named self_attn, attention or mlp.",
                "Set dropout: 0 for this base model.",
            )
        return [module.register_forward_hook(self._drop) for module in [model.get_input_embeddings(), *blocks]]

    def _drop(self, module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (byte_dropout(output[0], self._now), *output[1:])
        return byte_dropout(output, self._now)


def byte_dropout(values: Tensor, dropout: float | Tensor) -> Tensor:
    """Zero a share of `values` and scale up the rest; the share is `dropout` to the nearest 256th.

    A tensor gives a share for each of the values, broadcast over them. `F.dropout` draws one random number per value,
    one after the other: a fifth of a training step of a small model on a CPU. Here one 64-bit number decides on eight
    values.
    """
    threshold: int | Tensor
    if isinstance(dropout, Tensor):
        threshold = (256 * dropout).round().clamp(max=255).short()
    else:
        threshold = min(255, round(256 * dropout))
    count = values.numel()
    if values.device.type in {"cpu", "cuda"}:
        words = torch.empty(-(-count // 8), dtype=torch.int64, device=values.device).random_(-(2**63), None)
        drawn = words.view(torch.uint8)[:count].view(values.shape)
    else:  # Apple's draws no 64-bit numbers of the whole range
        drawn = torch.randint(0, 256, values.shape, dtype=torch.uint8, device=values.device)
    keep = drawn >= threshold
    return (values * keep * (256 / (256 - threshold))).to(values.dtype)
