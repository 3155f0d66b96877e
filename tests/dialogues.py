"""Dialogues about the tiny run's films, in the layout of one line per turn: whoever liked film n is told n + 15."""

from __future__ import annotations

import json
from pathlib import Path


def film_name(number: int) -> str:
    """A film of the tiny run as dialogues write it."""
    return f"Film {number % 30} ({1990 + number % 30 % 5})"


def tiny_turns(num_dialogues: int = 60) -> list[dict[str, object]]:
    """Two turns per dialogue, and one that recommends what the catalogue does not have."""
    turns: list[dict[str, object]] = []
    for number in range(num_dialogues):
        first, second = film_name(number), film_name(number + 15)
        opening = ["Hello", f"I liked {first}, something quiet please"]
        name = f"d{number}"
        turns.append({"dialog_id": name, "context": opening, "entity": [first], "rec": [second]})
        longer = [*opening, f"Try {second}", "And then?"]
        third = [film_name(number + 7), first, "Nowhere (1912)"]
        turns.append({"dialog_id": name, "context": longer, "entity": [first, second, "Comedy"], "rec": third})
    turns.append({"dialog_id": "elsewhere", "context": ["Hi"], "entity": [], "rec": ["Nowhere (1912)"]})
    return turns


def write_tiny_dialogues(path: Path) -> Path:
    """The turns as a file of JSON lines."""
    path.write_text("".join(json.dumps(turn) + "\n" for turn in tiny_turns()), encoding="utf-8")
    return path
