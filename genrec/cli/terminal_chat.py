"""The conversation of `genrec chat`: lines of a person in, replies out, the state kept in a file after every turn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from genrec.chat import ChatState, Dialogue
from genrec.chat.turn import MAX_MESSAGE
from genrec.config import build_config
from genrec.console import print_lines
from genrec.data.splits import evaluation_cases
from genrec.errors import ConfigError, DataError
from genrec.files import output_file
from genrec.run import Run


def first_state(run: Run, *, user: str | None, path: Path | None) -> ChatState:
    """Where a conversation begins: the kept file if it is there, else the history of a user, else nothing.

    Raises DataError for a file that holds no state, ConfigError for a user that the test split does not have, or who
    is not the one of the file.
    """
    if path is not None and path.exists():
        try:
            kept = build_config(ChatState, json.loads(path.read_bytes()), source=str(path))
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            raise DataError(f"{path} holds no conversation: {error}.", "Name another file with --state.") from error
        if user is not None and kept.history != _state_of(run, user).history:
            raise ConfigError(f"{path} is no conversation of user {user}.", "Name another file with --state.")
        return kept
    return ChatState() if user is None else _state_of(run, user)


def _state_of(run: Run, user: str) -> ChatState:
    """The state of a user of the test split who has said nothing yet."""
    from genrec.data.catalog import Catalog

    catalog, cases = Catalog.load(run), evaluation_cases(run, "test")
    ids = list(map(str, cases.user_ids))
    if user not in ids:
        raise ConfigError(f"the test split has no user {user!r}.", f"It has, for example, {', '.join(ids[:5])}.")
    history = [catalog.item_ids[item] for item in cases.histories[ids.index(user)]]
    return build_config(ChatState, {"history": tuple(history)}, source="history")


def talk(dialogue: Dialogue, state: ChatState, *, keep: Path | None, show_trace: bool) -> None:
    """Read lines from standard input until an empty one, and print the replies."""
    if not state.turns:
        print_lines(["Tell me what you liked or want; an empty line ends."])
    while True:
        if sys.stdin.isatty():
            print("\n> ", end="", flush=True)
        line = sys.stdin.readline(MAX_MESSAGE)
        if not line.strip():
            return
        if dialogue.recommender.refresh():  # `genrec items` in another terminal
            dialogue = dialogue.following(dialogue.recommender)
        turn = dialogue.turn(state, line.strip())
        state = turn.state
        if show_trace:
            print_lines([f"  · {step}" for step in turn.trace])
        print_lines([turn.text])
        if keep is not None:
            with output_file(keep) as temporary:
                temporary.write_text(state.model_dump_json(indent=2), encoding="utf-8")
