"""A language model writes: the request of a language, with the evidence inside it, through an engine.

The words of the request are ours and are encoded with the full tokenizer and its chat template. The evidence holds
titles and words of people and is encoded by a tokenizer that knows no control token and no semantic-ID token: a
title that gives orders is a title.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from genrec.decoding.engine import Engine
from genrec.errors import ModelError, PromptTooLongError
from genrec.explanation.explainer import Draft
from genrec.explanation.language import Language
from genrec.run import Run
from genrec.tasks.rendering import WordEncoder

_MAX_NEW_TOKENS = 160  # or more: a list names what the evidence names, and its own words
_TIMES_EVIDENCE = 2
_TEMPERATURE = 0.7  # from the second attempt on; the first is greedy


class EngineText:
    """Writes with an engine. `tokenizer` is that of the model."""

    def __init__(self, engine: Engine, tokenizer: Any, *, max_new_tokens: int = _MAX_NEW_TOKENS) -> None:
        self._engine, self._max_new_tokens = engine, max_new_tokens
        self._encoder = WordEncoder(tokenizer)

    @classmethod
    def load(cls, run: Run, engine: Engine) -> EngineText:
        """The writer of a run's model, which `engine` holds. Raises ModelError without a tokenizer."""
        return cls(engine, load_tokenizer(run))

    def write(self, language: Language, drafts: Sequence[Draft]) -> list[str]:
        """One text per draft: greedy at the first attempt, drawn afterwards; "" where it did not come to its end or
        the evidence is too long for the model."""
        rooms: dict[int, list[int]] = {}
        for row, draft in enumerate(drafts):
            rooms.setdefault(self._room(draft), []).append(row)
        texts = [""] * len(drafts)
        for room, rows in rooms.items():
            prompts = [self.prompt(language, drafts[row]) for row in rows]
            for row, text in zip(rows, self._write(prompts, room, attempt=drafts[0].attempt), strict=True):
                texts[row] = text
        return texts

    def _room(self, draft: Draft) -> int:
        """Tokens that a text may have. They depend on its own evidence alone, so that no text depends on others."""
        wanted = _TIMES_EVIDENCE * len(self._encoder.untrusted(draft.evidence))
        return self._max_new_tokens * max(1, math.ceil(wanted / self._max_new_tokens))

    def _write(self, prompts: Sequence[list[int]], room: int, *, attempt: int) -> list[str]:
        """One text per prompt; "" for one that is too long for the model, which costs the others nothing."""
        try:
            written = self._engine.generate(
                prompts, max_new_tokens=room, temperature=_TEMPERATURE if attempt else 0.0, seed=attempt
            )
        except PromptTooLongError:
            if len(prompts) == 1:
                return [""]
            return [text for prompt in prompts for text in self._write([prompt], room, attempt=attempt)]
        # Half a sentence may say something else than the whole.
        return ["" if generation.finish_reason == "length" else generation.text for generation in written]

    def prompt(self, language: Language, draft: Draft) -> list[int]:
        """The token ids that ask for one text, as a task's question is asked in training."""
        encoder = self._encoder
        around = language.around_evidence(draft.style, draft.tone)
        before, after = (encoder.trusted(words) if words else [] for words in around)
        return [*encoder.before, *before, *encoder.untrusted(draft.evidence), *after, *encoder.between]


def load_tokenizer(run: Run) -> Any:
    """The tokenizer of a run's model. Raises ModelError where there is none."""
    from transformers import AutoTokenizer

    folder = run.path / "model"
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} has no tokenizer that can be read: {error}.", "Train the run again.") from error
