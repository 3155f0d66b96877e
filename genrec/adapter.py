"""What an adapter changes of a language model: read from its folder and merged, or seen while it is live.

A run keeps `model/`, the base with rows for the semantic IDs, and beside it `adapter/`, what PEFT trained: low-rank
matrices and the trained rows. Whoever only wants to use the model merges the two. While a model is being trained,
its embedding and its output layer are PEFT's wrappers; `OutputLayer` reads the trained rows from them without copying
the whole matrix, so that training and decoding meet one thing, wrapped or not. What a family multiplies its logits with
is part of it, too.

Shapes: V vocabulary, R trained rows, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from genrec.errors import ModelError
from genrec.run import Run

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_NAME = "default"  # PEFT's name of an adapter that is the only one
# What families of transformers multiply the logits with, by the type of their configuration: µP's multiplier of the
# output (Yang et al. 2022). Granite divides by a field of the name that HyperCLOVAX multiplies with.
_SCALES: dict[str, Callable[[Any], float]] = (
    dict.fromkeys(("cohere", "cohere2", "cohere2_moe"), lambda config: float(config.logit_scale))
    | dict.fromkeys(
        ("granite", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoeshared", "granitemoehybrid"),
        lambda config: 1 / config.logits_scaling,
    )
    | {"hyperclovax": lambda config: float(config.logits_scaling)}
)


def adapter_folder(run: Run) -> Path | None:
    """Where the adapter of a trained run is; None where training changed the model itself. Raises RunError if none."""
    config = run.require("train", verify=False).config
    return run.path / "adapter" if config.get("adapter", "none") != "none" else None


def base_run(base: str) -> Run | None:
    """The run that a base is: named itself, or its `model/`. None where the base is something else."""
    for path in (Path(base), Path(base).parent):
        if base != "scratch" and (path / "manifest.json").is_file() and Path(base) in (path, path / "model"):
            return Run.open(path)
    return None


class OutputLayer:
    """The output matrix of a causal language model; `trained` (R, D) stands in place of rows `first`, `first` + 1, …

    Logits are the products with its rows, times `scale`.
    """

    def __init__(self, linear: nn.Linear, *, trained: Tensor | None = None, first: int = 0, scale: float = 1.0) -> None:
        self._linear, self._trained, self._first = linear, trained, first
        self.bias: Tensor | None = linear.bias
        self.out_features: int = linear.out_features
        self.scale = scale

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits of the whole vocabulary: (…, D) → (…, V)."""
        if self._trained is None:
            return self.scaled(self._linear(hidden))
        # Three products beside each other: putting the rows into a copy of the matrix would cost V × D each time.
        return self._products(hidden, self._pieces())

    def logits_without(self, hidden: Tensor, tokens: slice) -> Tensor:
        """Logits of all but some tokens, with whose rows no product is made: (…, D) → (…, V less these)."""
        kept = []
        for first, rows in self._pieces():
            for start, stop in ((0, tokens.start), (tokens.stop, self.out_features)):
                begin, end = max(start, first), min(stop, first + len(rows))
                if begin < end:
                    kept.append((begin, rows[begin - first : end - first]))
        return self._products(hidden, kept)

    def _pieces(self) -> list[tuple[int, Tensor]]:
        """The matrix as rows that stand together in memory, each with the token of the first."""
        weight = self._linear.weight
        if self._trained is None:
            return [(0, weight)]
        last = self._first + len(self._trained)
        return [(0, weight[: self._first]), (self._first, self._trained), (last, weight[last:])]

    def _products(self, hidden: Tensor, pieces: list[tuple[int, Tensor]]) -> Tensor:
        biases = [None if self.bias is None else self.bias[first : first + len(rows)] for first, rows in pieces]
        parts = [F.linear(hidden, rows, bias) for (_, rows), bias in zip(pieces, biases, strict=True) if len(rows)]
        return self.scaled(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))

    def logits(self, hidden: Tensor, first: int, size: int) -> Tensor:
        """Logits of the tokens `first`, …, `first` + `size` - 1 alone: (…, D) → (…, size)."""
        bias = None if self.bias is None else self.bias[first : first + size]
        return self.scaled(F.linear(hidden, self.rows(first, size), bias))

    def scaled(self, values: Tensor) -> Tensor:
        """Products with the matrix as logits; or hidden states and bias, of which the products then are logits."""
        return values if self.scale == 1 else values * self.scale

    def rows(self, first: int, size: int) -> Tensor:
        """Rows of the tokens `first`, …, `first` + `size` - 1: (size, D)."""
        offset = first - self._first
        if self._trained is not None and offset >= 0 and offset + size <= len(self._trained):
            return self._trained[offset : offset + size]
        return self._linear.weight[first : first + size]


def output_layer(model: PreTrainedModel) -> OutputLayer:
    """The model's output matrix, live adapter included. Raises ModelError where it has none as one linear layer."""
    head: Any = model.get_output_embeddings()
    config = model.config.get_text_config(decoder=True)
    scale = _SCALES[config.model_type](config) if config.model_type in _SCALES else 1.0
    if isinstance(head, nn.Linear):
        return OutputLayer(head, scale=scale)
    trained = _trained_rows(head)
    if trained is None:
        raise ModelError(
            f"{type(model).__name__} has no linear output layer (found {type(head).__name__}).",
            "Use a causal language model; merge adapters into it first.",
        )
    rows, first, linear = trained
    return OutputLayer(cast(nn.Linear, linear), trained=rows, first=first, scale=scale)


def row_matrices(model: PreTrainedModel) -> list[tuple[nn.Parameter, int]]:
    """What holds a row per token where the model is read and written, each with the token of its first row.

    A live adapter's own rows stand in place of the matrix that it wraps; one that serves both ends comes once.
    """
    found: dict[int, tuple[nn.Parameter, int]] = {}
    for end in (model.get_input_embeddings(), model.get_output_embeddings()):
        if end is not None:
            trained = None if isinstance(end, nn.Embedding | nn.Linear) else _trained_rows(end)
            matrix, first = (cast(Any, end).weight, 0) if trained is None else trained[:2]
            found.setdefault(id(matrix), (matrix, first))
    return list(found.values())


def _trained_rows(module: nn.Module) -> tuple[nn.Parameter, int, nn.Module] | None:
    """Rows (R, D) that PEFT trains in place of some of a layer's, the token of the first, the layer; None elsewhere."""
    # Not above: importing it takes seconds, and only a model that it has wrapped needs it.
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.utils.other import TrainableTokensWrapper

    rows: Any = module.token_adapter if isinstance(module, TrainableTokensWrapper) else module
    if not isinstance(rows, TrainableTokensLayer):
        return None
    indices = cast(Any, rows).token_indices[_NAME]
    assert indices == list(range(indices[0], indices[0] + len(indices))), "trained rows are contiguous"
    return cast(Any, rows).trainable_tokens_delta[_NAME], indices[0], rows.base_layer


def with_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model with the adapter of `folder` live in it. The model itself is changed: its layers are wrapped.

    Raises ModelError for an adapter that is missing, damaged, or of another model.
    """
    from peft import PeftModel

    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} is not an adapter: it has no adapter_config.json.", "Train again: `genrec train`.")
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the adapter {folder} does not fit its model: {first_line}", "Train the run again: `genrec train`."
        ) from error


def merge_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter of `folder` merged into its weights: a plain model again.

    Rows of the embedding that the adapter did not train stay as they are, to the last bit. Errors as `with_adapter`.
    """
    merged = cast(Any, with_adapter(model, folder)).merge_and_unload()
    merged.requires_grad_(True)
    return cast("PreTrainedModel", merged)
