"""Sounds to vectors with a transformers model: CLAP, the encoder of Whisper, wav2vec 2.0, HuBERT, AST, ….

A sound is cut into windows of the length that the model was made for, at most `_MAX_WINDOWS`, evenly spread from
its start to its end; its vector is the mean of theirs. N sounds, W windows of all of them, T positions of the
model's last layer, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    ClapFeatureExtractor,
    ClapModel,
    PreTrainedModel,
    SequenceFeatureExtractor,
    WhisperFeatureExtractor,
)

from genrec.encoders.media import MediaFile
from genrec.encoders.pretrained import LOADING_ERRORS, load_model, loading_error
from genrec.encoders.sounds import SoundLimits, read_sound, windows
from genrec.errors import ModelError
from genrec.model_hub import reaching_hub

_WHAT = "audio encoder"
_HEARS = "audio_model"  # what CLAP calls its part that hears, beside the one that reads
_MAX_WINDOWS = 16
_DEFAULT_SECONDS = 10  # the window of models that take sounds of any length
_SHORTEST_SECONDS = 0.1  # shorter sounds are followed by silence: some models need a few frames
_WINDOWS_PER_BATCH = 8


class AudioEncoder:
    """A transformers audio model, frozen.

    CLAP gives the vectors of its joint space with text (`get_audio_features`). Of an encoder-decoder, such as
    Whisper, only the encoder runs. Models with a summary of their own (AST) give it; of all others the last layer
    is averaged over the positions that are sound and not padding. Runs in bfloat16 where the text encoder does.
    """

    modality = "audio"

    def __init__(self, name: str, *, limits: SoundLimits) -> None:
        """Load `name`, a hub name or a folder. Raises ModelError where it is no audio model to be loaded."""
        self._pretrained = load_model(name, what=_WHAT)
        self._extractor: Any = _load_extractor(name)  # transformers does not type their calls
        self._rate = int(self._extractor.sampling_rate)
        self._window = _window_length(self._extractor)
        self._limits = limits
        self._encoder = _encoder_of(self._pretrained.model)
        self.model = self._pretrained.name
        self.revision = self._pretrained.revision
        self.fingerprint = self._pretrained.fingerprint({"window": self._window, "max_windows": _MAX_WINDOWS})
        self.width = self._width(name)

    def content(self, value: MediaFile) -> bytes:
        """The checksum of the file."""
        return value.content()

    def read(self, value: MediaFile) -> list[NDArray[np.float32]]:
        """The windows of one sound, at the model's rate; only a sound shorter than a window has a shorter one."""
        samples = read_sound(value.locate(), rate=self._rate, limits=self._limits)
        if silence := max(0, int(_SHORTEST_SECONDS * self._rate) - len(samples)):
            samples = np.pad(samples, (0, silence))
        # Copies: a view of one window would keep the whole recording in memory until its batch is encoded.
        return [window.copy() for window in windows(samples, length=self._window, most=_MAX_WINDOWS)]

    @torch.inference_mode()
    def encode(self, values: list[list[NDArray[np.float32]]]) -> NDArray[np.float32]:
        """Vectors (N, D): the mean of the vectors of each sound's windows."""
        return np.asarray(self.pooled(self.batch(values)).cpu().numpy(), dtype=np.float32)

    @property
    def module(self) -> nn.Module:
        """The transformer inside that hears, for adaptation."""
        module: nn.Module = getattr(self._encoder, _HEARS, self._encoder)
        return module

    @module.setter
    def module(self, module: nn.Module) -> None:
        """Use `module` from now on."""
        if hasattr(self._encoder, _HEARS):
            setattr(self._encoder, _HEARS, module)
        else:
            self._encoder = module

    def batch(self, values: list[list[NDArray[np.float32]]]) -> dict[str, Any]:
        """The windows of N sounds in one row, and how many each sound has."""
        return {"windows": [window for sound in values for window in sound], "counts": [len(sound) for sound in values]}

    def pooled(self, batch: dict[str, Any]) -> torch.Tensor:
        """Vectors (N, D) of a batch, with gradients where they are wanted."""
        windows, size = batch["windows"], _WINDOWS_PER_BATCH
        parts = [self._window_vectors(windows[start : start + size]) for start in range(0, len(windows), size)]
        return torch.stack([sound.mean(dim=0) for sound in torch.cat(parts).split(batch["counts"])])

    def _window_vectors(self, batch: list[NDArray[np.float32]]) -> torch.Tensor:
        inputs, num_samples = self._inputs(batch)
        with self._pretrained.autocast():
            if isinstance(self._encoder, ClapModel):
                vectors = self._encoder.get_audio_features(**inputs).pooler_output
            else:
                outputs = self._encoder(**inputs)
                vectors = outputs.get("pooler_output") if self._pretrained.pooled else None
                if vectors is None:
                    lengths = torch.tensor([len(window) for window in batch], device=self._pretrained.device)
                    vectors = mean_over_sound(outputs.last_hidden_state, lengths, num_samples=num_samples)
        found: torch.Tensor = vectors.float()
        return found

    def _inputs(self, batch: list[NDArray[np.float32]]) -> tuple[dict[str, torch.Tensor], int]:
        """What the model takes, and the samples that one row of it stands for, padding included."""
        extractor, rate = self._extractor, self._rate
        padded_to = self._window
        if isinstance(extractor, ClapFeatureExtractor | WhisperFeatureExtractor | ASTFeatureExtractor):
            features = extractor(batch, sampling_rate=rate, return_tensors="pt")
        elif extractor.model_input_names[0] == "input_values":  # the samples themselves
            # Always to the full window: without an attention mask a vector would depend on its neighbours' length.
            features = extractor(
                batch, sampling_rate=rate, return_tensors="pt", padding="max_length", max_length=padded_to
            )
        else:
            features = extractor(batch, sampling_rate=rate, return_tensors="pt", padding=True)
            padded_to = max(map(len, batch))
        inputs = {key: value.to(self._pretrained.device) for key, value in features.items()}
        if "is_longer" in inputs:
            # Where no sound is longer than its window, CLAP's extractor says of a random one that it is.
            inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
        return inputs, padded_to

    def _width(self, name: str) -> int:
        try:
            return int(self.encode([[np.zeros(self._rate, dtype=np.float32)]]).shape[1])
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise ModelError(
                f"The {_WHAT} {name!r} does not turn a second of silence into a vector: {error}.",
                "Give a model of sounds: CLAP, Whisper, wav2vec 2.0, HuBERT, AST, or one built like them.",
            ) from error


def mean_over_sound(hidden: torch.Tensor, lengths: torch.Tensor, *, num_samples: int) -> torch.Tensor:
    """Mean (B, D) of hidden states (B, T, D) over the share of the positions that is sound.

    `lengths` (B,) are the samples of each row before it was padded to `num_samples`; positions are taken to be
    evenly spread over them, as those of convolutions and spectrograms are.
    """
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    counts = (lengths * hidden.shape[1] // num_samples).clamp(min=1)
    mask = (positions < counts[:, None]).unsqueeze(-1)  # (B, T, 1)
    return (hidden.float() * mask).sum(dim=1) / counts[:, None]


def _encoder_of(model: PreTrainedModel) -> nn.Module:
    encoder: nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model
    return encoder


def _load_extractor(name: str) -> SequenceFeatureExtractor:
    try:
        with reaching_hub(name):
            extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise loading_error(name, error, what=f"feature extractor of the {_WHAT}") from error
    if not isinstance(extractor, SequenceFeatureExtractor):
        raise ModelError(f"{name!r} takes no sounds: its inputs are made by {type(extractor).__name__}.")
    return extractor


def _window_length(extractor: SequenceFeatureExtractor) -> int:
    """Samples of a window: what the model was made for, or a fixed time for models of any length."""
    if isinstance(extractor, ClapFeatureExtractor):
        return int(extractor.nb_max_samples)
    if isinstance(extractor, WhisperFeatureExtractor):
        return int(extractor.n_samples)
    if isinstance(extractor, ASTFeatureExtractor):
        return int(extractor.max_length) * int(extractor.sampling_rate) // 100  # frames of 10 ms
    return _DEFAULT_SECONDS * int(extractor.sampling_rate)
