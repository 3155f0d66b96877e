"""A base is frozen, and what is trained beside it is put in: rows of the vocabulary, low-rank matrices, a soft prompt.

Everything goes through PEFT and happens inside the model object, so whoever holds the model (an engine that
validates) sees it learn. Rows are PEFT's trainable tokens: the matrix itself is never written, so the rows of
the base stay as they are to the last bit. A soft prompt (Lester et al. 2021) is a few rows more: tokens `<soft_0>`, …
that stand before every prompt, which every engine can serve.

Shapes: V vocabulary, D width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from genrec.config import LoraOptions, TrainConfig
from genrec.errors import ConfigError, ModelError
from genrec.files import atomic_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


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

    Raises ModelError where no layer has one of the names asked for, or where the embedding or the output layer has,
    ConfigError for DoRA beside weights of eight bits.
    """
    from peft import LoraConfig, get_peft_model

    if options.dora and getattr(model, "is_loaded_in_8bit", False):
        raise ConfigError(
            "lora.dora cannot learn beside int8 weights: bitsandbytes takes away the scales that it has to read.",
            "Use lora.quantization nf4, or leave lora.dora out.",
        )
    _check_targets(model, options.targets or ())
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


def _unfreeze(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.is_floating_point():  # quantised weights are integers and learn nothing
            parameter.requires_grad_(True)


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Refuse the embedding and the output layer, whose new rows PEFT wraps already. Raises ModelError."""
    ends = (cast(Any, model.get_input_embeddings()), cast(Any, model.get_output_embeddings()))
    names = [name for name, module in model.named_modules() if module in ends]
    # As PEFT reads a target: a module's name, or its end after a dot.
    wrong = [target for target in targets if any(f".{name}".endswith(f".{target}") for name in names)]
    if wrong:
        raise ModelError(
            f"lora.targets names {', '.join(wrong)}: of the embedding and the output layer only new rows learn.",
            "Name other linear layers, or leave lora.targets out.",
        )


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
