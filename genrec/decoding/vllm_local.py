"""What a search on vLLM saves where vLLM's worker is in this process, as it is with one device.

Scores are handed over as they are (`Scores`). The way around, through log-probabilities of an answer, has vLLM sort
and count over its whole vocabulary for every beam. And where all requests of a step are such searches, only the rows
of the output matrix that they ask for are multiplied: those of codes, or of items' own tokens (`CodeHead`).

Shapes: B requests of a step, D width of the model, K codes of a level, V vocabulary, R tokens that are asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod


class Scores:
    """Log-probabilities of one level's codes after each of some beams, to be filled by the worker."""

    def __init__(self, num_beams: int) -> None:
        self._num_beams = num_beams
        self._pieces: list[tuple[list[int], Tensor]] = []

    def put(self, beams: Sequence[int], values: Tensor) -> None:
        """Values (N, K) of N beams. Those of a prompt that was read in parts come several times: the last counts."""
        self._pieces.append((list(beams), values))

    def collected(self) -> NDArray[np.float32]:
        """All values, (beams, K), which are then no longer held here. Raises RuntimeError where a beam got none."""
        if {beam for beams, _ in self._pieces for beam in beams} != set(range(self._num_beams)):
            raise RuntimeError("vLLM answered requests whose scores it did not hand over")
        values = np.empty((self._num_beams, self._pieces[0][1].shape[1]), dtype=np.float32)
        for beams, piece in self._pieces:
            values[beams] = piece.float().cpu().numpy()
        self._pieces.clear()  # vLLM keeps a request of the last step, and this with it, until the next one
        return values


class CodeHead(nn.Module):
    """In the place of a model's last layer: logits of the tokens that `wanted` names alone, where it names some.

    vLLM's own layer does the rest: scaling, soft caps, and all V logits elsewhere.
    """

    def __init__(self, layer: LogitsProcessor, *, wanted: Callable[[int], slice | None]) -> None:
        """`wanted` says which tokens the next step, of so many rows, needs; None for all of them, as for 0 rows."""
        super().__init__()
        self._layer, self._wanted = layer, wanted
        self._after = copy.copy(layer)
        self._after.logits_as_input = True

    def forward(
        self, lm_head: Any, hidden_states: Tensor, embedding_bias: Tensor | None = None, **options: Any
    ) -> Tensor | None:
        """Hidden states (B, D) -> logits (B, R) or (B, V)."""
        same_precision = self._layer.head_dtype in (None, hidden_states.dtype)
        rows = self._wanted(len(hidden_states) if same_precision and _is_plain(lm_head) else 0)
        if rows is None:
            return cast("Tensor | None", self._layer(lm_head, hidden_states, embedding_bias, **options))
        bias = None if embedding_bias is None else embedding_bias[rows]
        return cast(Tensor, self._after(lm_head, nn.functional.linear(hidden_states, lm_head.weight[rows], bias)))


def _is_plain(lm_head: Any) -> bool:
    """Whether all of the output matrix is here, as it was trained."""
    method = getattr(lm_head, "quant_method", None)
    return isinstance(method, UnquantizedEmbeddingMethod | UnquantizedLinearMethod) and lm_head.tp_size == 1


def install_code_head(model: nn.Module, *, wanted: Callable[[int], slice | None]) -> None:
    """Give a model a `CodeHead`; one whose last layer is another than vLLM's own goes on as it is."""
    layer = getattr(model, "logits_processor", None)
    if type(layer) is LogitsProcessor:
        cast(Any, model).logits_processor = CodeHead(layer, wanted=wanted)
