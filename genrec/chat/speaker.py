"""What a run's model is asked in a conversation: what a message says, and words for a list.

The questions are those of the tasks that it was trained on (prompts/proposal.yaml, prompts/reply_words.yaml). Our own
words meet the full tokenizer; the message, titles and facts are encoded without control and semantic-ID tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

from genrec.chat.steps import ProposalsName, Write
from genrec.errors import ConfigError
from genrec.explanation.model_text import load_tokenizer
from genrec.tasks.loading import read_tasks
from genrec.tasks.phrases import Phrases, load_phrases
from genrec.tasks.rendering import CompiledTemplate, WordEncoder
from genrec.tasks.reply_source import MESSAGES, REPLY_WORDS

if TYPE_CHECKING:
    from genrec.decoding.engine import Engine, Generation
    from genrec.run import Run

MAX_NEW_TOKENS = 96
_KINDS: Mapping[str, Sequence[str]] = {MESSAGES: ("state", "message", "proposal"), REPLY_WORDS: ("plan", "told")}
_TEXTS_KEPT = 4096


class Speaker:
    """Asks and remembers. `templates` are the questions by their source, those that the model knows."""

    def __init__(self, tokenizer: Any, phrases: Phrases, templates: Mapping[str, str]) -> None:
        self.phrases = phrases
        self._encoder = WordEncoder(tokenizer)
        self._templates = {
            source: CompiledTemplate(text, dict.fromkeys(_KINDS[source], "text"), where=source)
            for source, text in templates.items()
        }
        self._texts: OrderedDict[Write, Generation] = OrderedDict()

    def about_message(self, state: str, message: str) -> Write | None:
        """The question what a message says; None where the model was not taught to answer it."""
        return self._question(MESSAGES, {"state": state, "message": message})

    def about_list(self, plan: str) -> Write | None:
        """The question for words before a list; None where the model was not taught to answer it."""
        return self._question(REPLY_WORDS, {"plan": plan})

    def written(self, engine: Engine, wanted: Sequence[Write]) -> list[Generation]:
        """The model's texts, all that are new in one call; a text is greedy, so an old question has its old answer."""
        texts = {one: text for one in wanted if (text := self._texts.get(one))}  # of now: other threads forget some
        for limit in {one.max_new_tokens for one in wanted}:
            new = [one for one in dict.fromkeys(wanted) if one.max_new_tokens == limit and one not in texts]
            prompts = [list(one.prompt) for one in new]
            found = engine.generate(prompts, max_new_tokens=limit) if prompts else []
            texts.update(zip(new, found, strict=True))
        self._texts.update(texts)
        while len(self._texts) > _TEXTS_KEPT:
            self._texts.popitem(last=False)
        return [texts[one] for one in wanted]

    def _question(self, source: str, values: Mapping[str, str]) -> Write | None:
        template = self._templates.get(source)
        if template is None:
            return None
        return Write(tuple(template.question(values, self._encoder)), MAX_NEW_TOKENS)


def as_proposals(name: str) -> ProposalsName:
    """A way to use proposals by its name. Raises ConfigError for one that does not exist."""
    if name not in get_args(ProposalsName):
        known = ", ".join(get_args(ProposalsName))
        raise ConfigError(f"there is no way {name!r} to use proposals.", f"Choose one of: {known}.")
    return cast(ProposalsName, name)


def taught(run: Run) -> dict[str, str]:
    """The questions of a conversation that the run's model was trained on: source → the first template."""
    names = run.require("train", verify=False).config.get("tasks", {})
    known = read_tasks([run.path / "prompts"])
    files = [known[name][0] for name in names if name in known]
    return {str(one.source): one.templates[0] for one in files if one.source in _KINDS}


def load_speaker(run: Run | None, proposals: ProposalsName) -> Speaker | None:
    """Who asks a run's model; None where nobody does: `off`, or `auto` and the model was not taught.

    Raises ConfigError for `on` where the model was not taught, ModelError without a tokenizer.
    """
    templates = taught(run) if run is not None and proposals != "off" else {}
    if run is not None and templates:
        return Speaker(load_tokenizer(run), load_phrases(run.path / "prompts"), templates)
    if proposals != "on":
        return None
    whose = "this recommender, which has no run," if run is None else f"the model of {run.path}"
    raise ConfigError(
        f"{whose} was not trained to read messages (H1) or to write words for a list (H2).",
        "Train with these tasks, as train/configs/chat.yaml does, or leave proposals `auto` or `off`.",
    )
