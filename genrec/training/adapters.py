"""A base is frozen, and what is trained beside it is put in: rows of the vocabulary, low-rank matrices, a soft prompt.

Everything goes through PEFT and happens inside the model object, so whoever holds the model (an engine that
validates) sees it learn. Rows are PEFT's trainable tokens: the matrix itself is never written, so the rows of
the base stay as they are to the last bit. A soft prompt (Lester et al. 2021) is a few rows more: tokens `<soft_0>`, …
that stand before every prompt, which every engine can serve.

Quantised bases (QLoRA, Dettmers et al. 2023) are read through bitsandbytes; `dequantized` gives the base that was
really trained against, as plain weights, so that nobody needs bitsandbytes afterwards.

Shapes: V vocabulary, D width.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from genrec.config import LoraOptions, TrainConfig
from genrec.errors import ConfigError, ModelError
from genrec.run import atomic_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel

_BLOCK = 64  # weights that share a scale in bitsandbytes' four bits


def train_rows(model: PreTrainedModel, rows: Sequence[int]) -> PeftModel:
    """Freeze the model but for copies of the embedding rows (and output rows, where they are apart) `rows`."""
    from peft import TrainableTokensConfig, get_peft_model

    config = TrainableTokensConfig(target_modules=_row_modules(model), token_indices=list(rows))
    with warnings.catch_warnings():
        # Said of every adapter on a tied matrix; trained rows are the kind for which PEFT does tie both ends.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        return cast("PeftModel", get_peft_model(model, config))


def add_lora(model: PreTrainedModel, options: LoraOptions, *, rows: Sequence[int], seed: int) -> PeftModel:
    """Freeze the model but for low-rank matrices beside its linear layers and copies of the rows `rows`.

    Raises ModelError where no layer has one of the names asked for.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.rank,
        lora_alpha=cast(int, options.alpha),
        lora_dropout=options.dropout,
        target_modules="all-linear" if options.targets is None else list(options.targets),
        use_rslora=options.rslora,
        use_dora=options.dora,
        trainable_token_indices={name: list(rows) for name in _row_modules(model)},
    )
    torch.manual_seed(seed)  # of the matrices that do not start at zero
    try:
        return cast("PeftModel", get_peft_model(model, config))
    except ValueError as error:
        raise ModelError(
            f"LoRA cannot be put into {type(model).__name__}: {str(error).splitlines()[0]}",
            "Leave lora.targets out, or name linear layers of this model.",
        ) from error


def add_adapter(model: PreTrainedModel, config: TrainConfig, *, rows: Sequence[int]) -> PeftModel:
    """The adapter of a configuration that has one, put into the model and ready to be trained."""
    if config.adapter == "prompt":
        return train_rows(model, rows)
    return add_lora(model, config.lora, rows=rows, seed=config.seed)


def merge_rows(adapted: PeftModel) -> None:
    """Write trained rows into the model's own matrix and take the wrappers out; all of the model learns again."""
    _unfreeze(cast(Any, adapted).merge_and_unload())


def remove_adapter(adapted: PeftModel) -> PreTrainedModel:
    """The base as it was before `add_adapter`: what was trained is taken out."""
    base = cast(Any, adapted).unload()
    _unfreeze(base)
    return cast("PreTrainedModel", base)


def save_adapter(adapted: PeftModel, folder: Path) -> list[Path]:
    """Write what was trained, and nothing of the base, as PEFT's folder; the files."""
    for config in adapted.peft_config.values():
        config.base_model_name_or_path = "../model"  # beside it in the run, wherever that is moved
    with atomic_folder(folder) as temporary:
        adapted.save_pretrained(str(temporary), save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    return sorted(path for path in folder.rglob("*") if path.is_file())


def quantization_config(options: LoraOptions) -> BitsAndBytesConfig:
    """How transformers reads a quantised base. Raises ConfigError where bitsandbytes is not installed."""
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("adapter qlora needs bitsandbytes.", "pip install 'genrec-toolkit[quantized]'")
    if options.quantization == "int8":
        # Said once per layer and batch: its kernel multiplies what it reads in float16.
        warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
        return BitsAndBytesConfig(load_in_8bit=True)
    # Dequantised to float32 for each product, which autocast then takes to bfloat16: outside of autocast, where
    # validation ranks, near-ties keep their order.
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
                "Set lora.quantization: int8, or adapter: lora, or use a GPU.",
            )
        cast(Any, module).support_avx512bf16_for_cpu = False


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """A plain float32 model on the CPU with the values that a quantised one stands for; no adapter may be in it."""
    from peft.utils.integrations import dequantize_bnb_weight
    from transformers import AutoModelForCausalLM

    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    plain.generation_config = copy.deepcopy(model.generation_config)
    for name, module in model.named_modules():
        if _is_quantized(module):
            for key in [key for key in weights if key.startswith(f"{name}.weight")]:
                del weights[key]  # and how it was quantised
            weights.pop(f"{name}.SCB", None)
            values = dequantize_bnb_weight(module.weight, state=getattr(module, "state", None))
            weights[f"{name}.weight"] = values.detach().float().cpu()
    plain.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return cast("PreTrainedModel", plain)


def _unfreeze(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.is_floating_point():  # quantised weights are integers and learn nothing
            parameter.requires_grad_(True)


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether the model was read with `quantization_config`."""
    return getattr(model.config, "quantization_config", None) is not None


def _is_quantized(module: nn.Module) -> bool:
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    return isinstance(module, Linear4bit | Linear8bitLt)


def _row_modules(model: PreTrainedModel) -> list[str]:
    """Names of the modules that hold a row per token: the embedding and, unless it is the same matrix, the output.

    Raises ModelError for an output layer with a bias: PEFT's wrapper would leave it out.
    """
    embedding, output = cast(Any, model.get_input_embeddings()), cast(Any, model.get_output_embeddings())
    if getattr(output, "bias", None) is not None:
        raise ModelError(
            f"the output layer of {type(model).__name__} has a bias, which adapters would drop.",
            "Train every weight (adapter: none) or choose another base.",
        )
    names = {module: name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    modules = [embedding] if output is None or output.weight is embedding.weight else [embedding, output]
    return [names[module] for module in modules]
