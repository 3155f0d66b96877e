"""Weights in eight or four bits through bitsandbytes, to train beside them (QLoRA, Dettmers et al. 2023) and to serve.

Linear layers are quantised; embeddings, norms and the output matrix stay as they are. `dequantized` gives the plain
weights that quantised ones stand for, so that nobody needs bitsandbytes afterwards.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from genrec.errors import MissingDependencyError, ModelError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel

Quantization = Literal["nf4", "int8"]
_BLOCK = 64  # weights that share a scale in bitsandbytes' four bits


def quantization_config(kind: Quantization, *, by_row: bool = False) -> BitsAndBytesConfig:
    """How transformers reads a model into so few bits.

    int8 reads activations in eight bits, too. Columns in which one is large it takes out of that, and looks for them in
    all rows at once, so that what a row becomes depends on its batch; `by_row` leaves that out. Raises
    MissingDependencyError where bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"{kind} weights need bitsandbytes.", "Install the extra `quantized` (docs/install.md)."
        )
    if kind == "int8":
        # Said once per layer and batch: its kernel multiplies what it reads in float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0 if by_row else 6.0)
    # Dequantised to float32 for each product, which autocast then takes to bfloat16: outside of autocast, where
    # rankings are made, near-ties keep their order.
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def keep_exact(model: PreTrainedModel) -> None:
    """Keep four-bit weights as they were quantised; raise ModelError where bitsandbytes would read them wrongly.

    On CPUs with AVX-512 bfloat16 it packs them anew at the first call in evaluation mode, here the first validation:
    for good, and with scales rounded to bfloat16. And on any CPU its kernel gives a row the scales of its neighbours
    where a row is no whole number of blocks: measured, the error of the weights is .24 instead of .09.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for name, module in model.named_modules():
        if not isinstance(module, Linear4bit):
            continue
        if module.weight.device.type == "cpu" and module.in_features % _BLOCK:
            raise ModelError(
                f"{name} reads {module.in_features} numbers, and on a CPU bitsandbytes reads four-bit weights rightly "
                f"only where that is a multiple of {_BLOCK}.",
                "Take int8 (in training: lora.quantization), plain weights (adapter: lora) or a GPU.",
            )
        cast(Any, module).support_avx512bf16_for_cpu = False


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """A plain float32 model on the CPU with the values that a quantised one stands for; no adapter may be in it.

    Weight by weight: beside the quantised model there is the plain one, and no third.
    """
    from peft.utils.integrations import dequantize_bnb_weight
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    plain.generation_config = copy.deepcopy(model.generation_config)
    quantized = {name: module for name, module in model.named_modules() if _is_quantized(module)}
    packed = tuple(f"{name}.{part}" for name in quantized for part in ("weight", "SCB"))  # and how it was quantised
    left = dict(plain.state_dict())  # the same storage
    with torch.no_grad():
        for name, module in quantized.items():
            values = dequantize_bnb_weight(module.weight, state=getattr(module, "state", None))
            left.pop(f"{name}.weight").copy_(values)
        for name, tensor in model.state_dict().items():
            if not name.startswith(packed):
                left.pop(name).copy_(tensor)
    assert not left, f"{sorted(left)} were not read"
    return cast("PreTrainedModel", plain)


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether the model was read with `quantization_config`."""
    return getattr(model.config, "quantization_config", None) is not None


def reads_by_column(model: PreTrainedModel) -> bool:
    """Whether what the model makes of a row depends a little on its batch (int8, and not `by_row`)."""
    config: Any = getattr(model.config, "quantization_config", None)
    return config is not None and bool(getattr(config, "load_in_8bit", False) and config.llm_int8_threshold)


def _is_quantized(module: nn.Module) -> bool:
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    return isinstance(module, Linear4bit | Linear8bitLt)
