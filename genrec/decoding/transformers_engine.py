"""The engine for any transformers decoder: a live model object or a model folder in; items and text out.

How beams share a prompt is in `shared_prefix`, how text is written in `text`; here are batches, modes of the
model (evaluation, no gradients, precision) and the reading of folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from genrec.adapter import merge_adapter
from genrec.config import Weights
from genrec.decoding.beam import answerable, beam_search, check_item_prompts, check_request
from genrec.decoding.engine import (
    BeamWidth,
    Generation,
    RankedItem,
    ScoreMode,
    check_score_mode,
    check_tokens,
    check_trie,
    check_writing,
)
from genrec.decoding.prompt_attention import Remembered, run_sdpa
from genrec.decoding.shared_prefix import SharedPrefixScorer, check_length, check_model
from genrec.decoding.text import Decoder, TextUnderWay, next_tokens
from genrec.errors import ConfigError, ModelError
from genrec.evidence import Evidence, check_evidence
from genrec.quantization import Quantization, keep_exact, quantization_config
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import VOCABULARY_FILE, SidVocabulary, item_token, sid_token

_USERS_AT_LEAST, _USERS_AT_MOST = 16, 64
_NUMBERS_AT_ONCE = 200_000  # of hidden states: beams of all users, by the model's width
_MANY_ITEMS = 1 << 16  # evidence is dense: so many items and users at once are enough to hold


class TransformersEngine:
    """Ranks and writes with a `PreTrainedModel`.

    The model is used as it is and where it is, but for eager attention, which becomes sdpa (see `run_sdpa`); it may be
    in training: calls put it into evaluation mode and give every module its mode back. `dtype` runs calls under
    autocast (None: in the weights' own precision).
    `tokenizer` is only needed to write text. `batch_size` prompts of similar length are ranked together; None takes
    as many as pay (see `users_together`). A `frozen` model is not trained afterwards: calls then run in PyTorch's
    inference mode, and `remembered_bytes` of keys and values may be kept for prompts that come again.
    Raises ModelError for a model that beams cannot be scored with (see `check_model`).
    """

    concurrent = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Decoder | None,
        *,
        vocabulary: SidVocabulary,
        score_mode: ScoreMode = "level",
        batch_size: int | None = None,
        dtype: torch.dtype | None = None,
        frozen: bool = False,
        remembered_bytes: int = 0,
    ) -> None:
        check_score_mode(score_mode)
        self._model: PreTrainedModel | None = model
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._no_words = vocabulary.span
        self._score_mode: ScoreMode = score_mode
        self._batch_size, self._dtype, self._frozen = batch_size, dtype, frozen
        self._remembered = Remembered(remembered_bytes) if remembered_bytes else None
        run_sdpa(model)
        with _evaluation(model, None, frozen=frozen):
            check_model(model, vocabulary)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        vocabulary: SidVocabulary,
        score_mode: ScoreMode = "level",
        batch_size: int | None = None,
        weights: Weights = "float32",
        device: str | None = None,
        adapter: Path | None = None,
        remembered_bytes: int = 0,
    ) -> TransformersEngine:
        """Open a Hugging Face folder: safetensors only, no code from the folder is run.

        The adapter of a folder `adapter` is merged into it, which quantised weights do not allow. `device` None takes
        the GPU where there is one. Raises ModelError for a folder that is missing, incomplete or damaged, ConfigError
        for an adapter beside quantised weights, MissingDependencyError where these need a package.
        """
        if adapter is not None and weights in get_args(Quantization):
            raise ConfigError(
                f"an adapter cannot be merged into {weights} weights.", "Merge it first: `genrec export`."
            )
        model, tokenizer = _read_folder(folder, weights, device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if adapter is not None:
            model = merge_adapter(model, adapter)
        _check_tokenizer(folder, tokenizer, vocabulary)
        engine = cls(
            model,
            cast(Decoder, tokenizer),
            vocabulary=vocabulary,
            score_mode=score_mode,
            batch_size=batch_size,
            frozen=True,
            remembered_bytes=remembered_bytes,
        )
        if (folder / VOCABULARY_FILE).is_file():  # items' tokens of another catalogue are no words of this one either
            engine._no_words = SidVocabulary.load(folder).span
        return engine

    def rank(
        self,
        prompts: Sequence[Sequence[int]],
        trie: ItemTrie,
        *,
        beam_width: BeamWidth,
        k: int,
        allowed: Sequence[ItemFilter | None] | None = None,
        evidence: Sequence[Evidence | None] | None = None,
        item_prompts: Sequence[Sequence[int] | None] | None = None,
        own_items: NDArray[np.bool_] | None = None,
    ) -> list[list[RankedItem]]:
        """See `Engine.rank`. Raises ModelError for an empty prompt and one beyond the model's context."""
        model = self._opened()
        filters = check_request(trie, num_users=len(prompts), beam_width=beam_width, k=k, allowed=allowed)
        given = check_evidence(evidence, trie=trie, num_users=len(prompts))
        check_trie(trie, self._vocabulary)
        asked = check_item_prompts(item_prompts, num_users=len(prompts))
        _check_prompts(model, [*prompts, *(prompt for prompt in asked if prompt is not None)], trie.num_levels)
        answers: list[list[RankedItem]] = [[] for _ in prompts]
        users = sorted(answerable(filters), key=lambda user: len(prompts[user]))  # little padding
        together = self._batch_size or users_together(model, trie, beam_width)
        with _evaluation(model, self._dtype, frozen=self._frozen):
            for start in range(0, len(users), together):
                batch = users[start : start + together]
                found = beam_search(
                    SharedPrefixScorer(
                        model,
                        [prompts[user] for user in batch],
                        vocabulary=self._vocabulary,
                        score_mode=self._score_mode,
                        remembered=self._remembered,
                        item_prompts=[asked[user] for user in batch],
                        own_items=own_items,
                    ),
                    trie,
                    num_users=len(batch),
                    beam_width=beam_width,
                    k=k,
                    score_mode=self._score_mode,
                    allowed=[filters[user] for user in batch],
                    evidence=[given[user] for user in batch],
                )
                for user, ranked in zip(batch, found, strict=True):
                    answers[user] = ranked
        return answers

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Generation]:
        """See `Engine.generate`. Raises ModelError without a tokenizer, ConfigError for a bad option."""
        model = self._opened()
        answers: dict[int, Generation] = {}
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        together = self._batch_size or _USERS_AT_LEAST
        for start in range(0, len(order), together):
            batch = order[start : start + together]
            texts = [self._text(prompts[row], max_new_tokens, temperature, stop, seed) for row in batch]
            with _evaluation(model, self._dtype, frozen=self._frozen):
                steps = self._steps([prompts[row] for row in batch], temperature, seed)
                while not all(text.done for text in texts):
                    for text, token in zip(texts, next(steps), strict=True):
                        text.add(token)
            answers |= {row: text.finished() for row, text in zip(batch, texts, strict=True)}
        return [answers[row] for row in range(len(prompts))]

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[str]:
        """See `Engine.stream`. The pieces joined are the text of `generate`."""
        model = self._opened()
        text = self._text(prompt, max_new_tokens, temperature, stop, seed)
        steps = self._steps([prompt], temperature, seed)
        while not text.done:
            # Per token: the caller's code runs between the pieces.
            with _evaluation(model, self._dtype, frozen=self._frozen):
                text.add(next(steps)[0])
            piece = text.news()
            if piece:
                yield piece

    def close(self) -> None:
        """Let go of the model."""
        self._model = self._remembered = None

    def _opened(self) -> PreTrainedModel:
        if self._model is None:
            raise ModelError("the engine is closed.", "Load the recommender again.")
        return self._model

    def _steps(self, prompts: Sequence[Sequence[int]], temperature: float, seed: int) -> Iterator[list[int]]:
        return next_tokens(self._opened(), prompts, never=self._no_words, temperature=temperature, seed=seed)

    def _text(
        self, prompt: Sequence[int], max_new_tokens: int, temperature: float, stop: Sequence[str], seed: int
    ) -> TextUnderWay:
        model = self._opened()
        if self._tokenizer is None:
            raise ModelError("this engine has no tokenizer, so it cannot write text.", "Give it one.")
        check_writing(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        _check_prompts(model, [prompt], max_new_tokens)
        return TextUnderWay(
            self._tokenizer,
            end_ids=_end_ids(model, self._tokenizer),
            stop=stop,
            max_new_tokens=max_new_tokens,
        )


def _read_folder(folder: Path, weights: Weights, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json.", "Check the path.")
    # A beam has to score as it does in any other batch.
    quantization = quantization_config(weights, by_row=True) if weights in ("int8", "nf4") else None
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16 if weights == "bfloat16" else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            output_loading_info=True,
            quantization_config=quantization,
            device_map=None if quantization is None else {"": device},
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be loaded as a causal language model: {error}",
            "It needs config.json, *.safetensors and tokenizer files; train or export it again.",
        ) from error
    model, loading = loaded
    if loading["missing_keys"]:  # transformers fills these with random numbers and goes on
        raise ModelError(
            f"{folder} lacks the weights {', '.join(sorted(loading['missing_keys'])[:5])}.",
            "Train or export it again.",
        )
    if quantization is None:
        try:
            torch.zeros(1, device=device).cpu()
            nn.Module.to(model, torch.device(device))
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's own, by kind of device
            raise ConfigError(f"the device {device!r} cannot be had: {error}.", "`cpu` always can.") from error
    else:
        keep_exact(model)
    return cast(PreTrainedModel, model), cast(PreTrainedTokenizerBase, tokenizer)


def _check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, vocabulary: SidVocabulary) -> None:
    """Raise ModelError where the tokenizer does not know the semantic IDs: transformers makes an empty one
    for a folder without tokenizer files."""
    for level, (first, size) in enumerate(vocabulary.groups):
        for code in (0, size - 1):
            found = tokenizer.convert_ids_to_tokens(first + code) if first + code < len(tokenizer) else None
            expected = sid_token(level, code) if level < len(vocabulary.codebook_sizes) else item_token(code)
            if found != expected:
                raise ModelError(
                    f"the tokenizer of {folder} has {found!r} where {expected} is expected.",
                    "The folder was saved without the tokenizer that it was trained with.",
                )


def _check_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]], num_new_tokens: int) -> None:
    check_tokens(prompts, num_tokens=int(model.config.get_text_config(decoder=True).vocab_size))
    check_length(model, max(map(len, prompts), default=0) + num_new_tokens)


def _end_ids(model: PreTrainedModel, tokenizer: Decoder) -> set[int]:
    """Tokens that end a text. Of generation_config.json this, and only this, is read."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = configured if isinstance(configured, list) else [configured]
    # What answers are trained to end with is the tokenizer's own.
    return {int(end) for end in (*ends, tokenizer.eos_token_id) if end is not None}


def users_together(model: PreTrainedModel, trie: ItemTrie, beam_width: BeamWidth) -> int:
    """As many users at once as share the cost of a call and leave a level's hidden states in a core's cache."""
    if trie.num_items > _MANY_ITEMS:
        return _USERS_AT_LEAST
    widest = max(beam_width) if isinstance(beam_width, tuple) else beam_width
    numbers = widest * int(model.config.get_text_config(decoder=True).hidden_size)
    return min(_USERS_AT_MOST, max(_USERS_AT_LEAST, _NUMBERS_AT_ONCE // max(1, numbers)))


@contextmanager
def _evaluation(model: PreTrainedModel, dtype: torch.dtype | None, *, frozen: bool) -> Iterator[None]:
    """No gradients, evaluation mode, autocast to `dtype`; afterwards every module has its mode back."""
    training = [module for module in model.modules() if module.training]
    with ExitStack() as stack:
        # What a model caches in inference mode can never be trained with, so a live one gets no_grad.
        stack.enter_context(torch.inference_mode() if frozen else torch.no_grad())
        if dtype is not None:
            stack.enter_context(torch.autocast(model.device.type, dtype=dtype))
        if training:
            model.train(False)
        try:
            yield
        finally:
            for module in training:
                module.training = True
