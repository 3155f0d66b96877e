"""A dialogue whose model writes what a test says: real prompts, real guards, the bundled films."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from genrec.chat import Dialogue
from genrec.chat.speaker import Speaker
from genrec.decoding.engine import Engine, Generation
from genrec.prompting import default_prompts
from genrec.tasks.phrases import load_phrases
from genrec.tasks.reply_source import MESSAGES, REPLY_WORDS
from genrec.training.text_tokenizer import train_text_tokenizer

TEMPLATES = {MESSAGES: "{{ state }}\nmessage: {{ message }} → {{ proposal }}", REPLY_WORDS: "{{ plan }} → {{ told }}"}
TOKENIZER = train_text_tokenizer(["message: I loved it"], 300)


class Writing:
    """An engine that ranks like another one and answers every prompt with `answer(prompt's text)`."""

    def __init__(self, engine: Engine, answer: Callable[[str], str | Generation]) -> None:
        self._engine, self._answer = engine, answer
        self.prompts: list[list[int]] = []
        self.calls = 0

    @property
    def asked(self) -> list[str]:
        """The prompts as text, without the chat template's words around them."""
        return [text_of(prompt) for prompt in self.prompts]

    def rank(self, *arguments: Any, **options: Any) -> Any:
        return self._engine.rank(*arguments, **options)

    def generate(self, prompts: Sequence[Sequence[int]], **options: Any) -> list[Generation]:
        self.calls += 1
        self.prompts += [list(prompt) for prompt in prompts]
        return [written(self._answer(text_of(prompt))) for prompt in prompts]

    def stream(self, prompt: Sequence[int], **options: Any) -> Iterator[str]:
        raise AssertionError("a conversation streams nothing")

    def close(self) -> None:
        pass


def text_of(prompt: Sequence[int]) -> str:
    """What stands in a prompt, control tokens left out."""
    text = TOKENIZER.decode(list(prompt), skip_special_tokens=True)
    return str(text).removeprefix("user\n").removesuffix("\nassistant\n")


def written(answer: str | Generation) -> Generation:
    """A text as an engine gives it."""
    return answer if isinstance(answer, Generation) else Generation(answer, (), "stop")


def speaking(
    dialogue: Dialogue, answer: Callable[[str], str | Generation], *, about: Sequence[str] = (MESSAGES, REPLY_WORDS)
) -> tuple[Dialogue, Writing]:
    """A dialogue whose model answers so, and the engine that was asked."""
    here = dialogue.recommender.pinned()
    engine = Writing(here.engine, answer)
    here.engine = cast(Engine, engine)
    speaker = Speaker(TOKENIZER, load_phrases(default_prompts()), {name: TEMPLATES[name] for name in about})
    return replace(dialogue, recommender=here, speaker=speaker), engine


def proposing(dialogue: Dialogue, *lines: str) -> Dialogue:
    """A dialogue whose model always proposes these lines, and writes no words for lists."""
    return speaking(dialogue, lambda _: "\n".join(lines), about=(MESSAGES,))[0]
