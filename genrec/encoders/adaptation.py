"""Encoders that learn: the adaptation families of the field around one small protocol.

    lora     low-rank additions to every linear layer (Hu et al. 2022), through PEFT
    ia3      learned scales of keys, values and the feed-forward's inner activations (Liu et al. 2022), through PEFT
    prompt   learned tokens beside the input's (Lester et al. 2021; of images Jia et al. 2022), nothing else
    full     every weight

The fifth, representation transfer, needs nothing from here: the encoder stays as it is and the heads alone learn.
N inputs, T tokens, P prompt tokens, H width of the hidden states, D width of the vectors.
"""

from __future__ import annotations

import re
from typing import Any, Literal, Protocol

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModelForFeatureExtraction,
    PromptTuningConfig,
    TaskType,
    inject_adapter_in_model,
)
from peft.tuners.prompt_tuning import PromptTuningInit
from torch import Tensor, nn

from genrec.encoders.base import ItemEncoder
from genrec.errors import ModelError

Family = Literal["lora", "ia3", "prompt", "full"]

# Names of key and value projections, and of the feed-forward's second layer, in the models that transformers has.
_KEY_OR_VALUE = re.compile(r"(?:^|\.)(?:key|value|k_proj|v_proj|k_lin|v_lin)$|[Aa]ttention\.(?:k|v)$")
_FEED_FORWARD = re.compile(r"(?:^|\.)(?:fc2|down_proj|lin2|wo|output_dense)$|(?:layers?|blocks)\.\d+\.output\.dense$")
_LORA_ALPHA = 2  # per rank


class TrainableEncoder(ItemEncoder[Any, Any], Protocol):
    """An encoder that can be adapted: what it offers besides encoding."""

    module: nn.Module  # the transformer inside; what is put into its place is used from then on

    def batch(self, values: list[Any]) -> dict[str, Any]:
        """N decoded inputs as the model takes them."""
        ...

    def pooled(self, batch: dict[str, Any]) -> Tensor:
        """Vectors (N, D) in float32, the same that `encode` gives, with gradients."""
        ...


def adapt(encoder: TrainableEncoder, family: Family, *, lora_rank: int, prompt_tokens: int) -> int:
    """Make `encoder` learn in the way of `family`, everything else in it frozen; how many weights learn.

    New weights come from PyTorch's global generator. Raises ModelError where the family does not fit the encoder.
    """
    module = encoder.module
    if family == "full":
        module.requires_grad_(True)
        return _num_trainable(module)
    module.requires_grad_(False)
    if family == "prompt":
        encoder.module = _prompted(encoder, prompt_tokens)
        return _num_trainable(encoder.module)
    linear = _linear_layers(module)
    if family == "lora":
        _check_found(linear, encoder, "linear layer")
        config = LoraConfig(r=lora_rank, lora_alpha=_LORA_ALPHA * lora_rank, target_modules=linear)
        inject_adapter_in_model(config, module)
        return _num_trainable(module)
    attention = [name for name in linear if _KEY_OR_VALUE.search(name)]
    feed_forward = [name for name in linear if _FEED_FORWARD.search(name)]
    _check_found(attention and feed_forward, encoder, "key, value and feed-forward layer by its usual name")
    inject_adapter_in_model(
        IA3Config(target_modules=[*attention, *feed_forward], feedforward_modules=feed_forward), module
    )
    return _num_trainable(module)


def trained_weights(encoder: TrainableEncoder) -> dict[str, Tensor]:
    """What learns in an adapted encoder, by name."""
    return {name: weight for name, weight in encoder.module.named_parameters() if weight.requires_grad}


class PromptedText(nn.Module):
    """PEFT's prompt tuning around a text model.

    Its states have the prompt tokens in front; pooling reads states beside the mask of the input's own tokens, so
    they are cut off again. They have done their work by then: the input's tokens have attended to them.
    """

    def __init__(self, base: nn.Module, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        config = PromptTuningConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            num_virtual_tokens=num_tokens,
            # Words of the vocabulary: tokens drawn at random are far from anything that the model has seen.
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )
        self.peft = PeftModelForFeatureExtraction(base, config)

    @property
    def config(self) -> Any:
        """The base model's configuration."""
        return self.peft.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor, return_dict: bool = True) -> Any:
        """The base model's output with states (N, T, H). Raises ModelError where T + P are too many."""
        most = getattr(self.config, "max_position_embeddings", None)
        if most is not None and input_ids.shape[1] + self.num_tokens > most:
            raise ModelError(
                f"{input_ids.shape[1]} tokens of text and {self.num_tokens} of the prompt exceed the model's {most}.",
                "Use --unfreeze lora or ia3, or lower max_seq_length in the model's folder.",
            )
        output = self.peft(input_ids=input_ids, attention_mask=attention_mask, return_dict=return_dict)
        output.last_hidden_state = output.last_hidden_state[:, self.num_tokens :]
        return output


class VisualPrompt(nn.Module):
    """Learned tokens after the patches (visual prompt tuning, Jia et al. 2022, sec. 3.2, the shallow variant).

    PEFT's prompt tuning looks tokens up in a table of words, and images have none. They stand last because a class
    token has to stay first; without positions of their own their place makes no difference.
    """

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(0.02 * torch.randn(num_tokens, width))

    def add(self, _module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
        """Embedded patches (N, T, H) with the prompt behind them (N, T + P, H): a forward hook."""
        return torch.cat([embedded, self.tokens.to(embedded.dtype).expand(len(embedded), -1, -1)], dim=1)


def _prompted(encoder: TrainableEncoder, num_tokens: int) -> nn.Module:
    module: Any = encoder.module
    find_table = getattr(module, "get_input_embeddings", None)
    if find_table is not None and isinstance(find_table(), nn.Embedding):  # a table of words, not of patches
        return PromptedText(module, num_tokens)
    embeddings = getattr(module, "embeddings", None)
    width = getattr(module.config, "hidden_size", None)
    if not isinstance(embeddings, nn.Module) or width is None:
        raise ModelError(
            f"Prompt tuning does not fit {encoder.model} ({type(module).__name__}): it has no layer `embeddings`.",
            "Use --unfreeze lora.",
        )
    module.prompt = VisualPrompt(num_tokens, width)
    embeddings.register_forward_hook(module.prompt.add)
    return encoder.module


def _linear_layers(module: nn.Module) -> list[str]:
    """Names of the linear layers that take part in the vectors and that PEFT can reach."""
    names = []
    for name, layer in module.named_modules():
        parent = module.get_submodule(name.rpartition(".")[0])
        # The attention of PyTorch reads its layers' weights and never calls them; sentence encoders pool states
        # themselves and leave a model's own pooler idle.
        inside_attention = isinstance(parent, nn.MultiheadAttention)
        if isinstance(layer, nn.Linear) and not inside_attention and "pooler" not in name.split("."):
            names.append(name)
    return names


def _check_found(found: Any, encoder: TrainableEncoder, what: str) -> None:
    if not found:
        raise ModelError(f"{encoder.model} has no {what}.", "Choose another --unfreeze family, `full` fits any.")


def _num_trainable(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
