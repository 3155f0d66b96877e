"""A language model writes: the request of a language, with the evidence inside it, through an engine.

The words of the request are ours and are encoded with the full tokenizer and its chat template. The evidence holds
titles and words of people and is encoded by `TextEncoder`, which knows no control token and no semantic-ID token: a
title that gives orders is a title.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genrec.decoding.engine import Engine
from genrec.errors import ConfigError, ModelError
from genrec.explanation.explainer import Draft
from genrec.explanation.language import Language
from genrec.run import Run
from genrec.vocabulary import TextEncoder, opening_tokens, soft_prompt

_EVIDENCE = "\ue000"  # a private-use character: no request of ours contains it
_MAX_NEW_TOKENS = 160
_TEMPERATURE = 0.7  # from the second attempt on; the first is greedy


class EngineText:
    """Writes with an engine. `tokenizer` is that of the model."""

    def __init__(self, engine: Engine, tokenizer: Any, *, max_new_tokens: int = _MAX_NEW_TOKENS) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._encoder = TextEncoder(tokenizer)
        self._max_new_tokens = max_new_tokens
        self._around: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    @classmethod
    def load(cls, run: Run, engine: Engine) -> EngineText:
        """The writer of a run's model, which `engine` holds. Raises ModelError without a tokenizer."""
        from transformers import AutoTokenizer

        folder = run.path / "model"
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder} has no tokenizer that can be read: {error}.", "Train the run again.") from error
        return cls(engine, tokenizer)

    def write(self, language: Language, drafts: Sequence[Draft]) -> list[str]:
        """One text per draft: greedy at the first attempt, drawn afterwards."""
        prompts = [self.prompt(language, draft) for draft in drafts]
        attempt = drafts[0].attempt if drafts else 0
        written = self._engine.generate(
            prompts,
            max_new_tokens=self._max_new_tokens,
            temperature=_TEMPERATURE if attempt else 0.0,
            seed=attempt,
        )
        return [generation.text for generation in written]

    def prompt(self, language: Language, draft: Draft) -> list[int]:
        """The token ids that ask for one text."""
        before, after = self._request(language, draft.style)
        return [*before, *self._encoder.encode(draft.evidence), *after]

    def _request(self, language: Language, style: str) -> tuple[list[int], list[int]]:
        """Token ids around the evidence, with the chat template where the tokenizer has one."""
        key = (language.language, style)
        if key not in self._around:
            words = {"style": language.style_words[style], "evidence": _EVIDENCE}
            text = language.render(language.request, words)
            tokenizer = self._tokenizer
            opening = opening_tokens(tokenizer)
            if tokenizer.chat_template:
                opening = soft_prompt(tokenizer)  # the template writes its own beginning of sequence, as in training
                messages = [{"role": "user", "content": text}]
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            before, found, after = text.partition(_EVIDENCE)
            if not found or _EVIDENCE in after:
                raise ConfigError(
                    f"the request of language {language.language!r} must hold {{{{ evidence }}}} once.",
                    "Correct `request` in the language's file.",
                )
            encode = tokenizer.encode
            self._around[key] = (
                [*opening, *encode(before, add_special_tokens=False)],
                encode(after, add_special_tokens=False) if after else [],
            )
        return self._around[key]
