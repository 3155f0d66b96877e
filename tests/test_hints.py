"""What errors, reports and help tell people to type exists: verbs and options of `genrec`, scripts, extras."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from genrec.cli import app
from genrec.errors import RunError
from genrec.run import Run
from tests.test_docs import options_of

ROOT = Path(__file__).resolve().parents[1]
# What stages are recorded as; one for each `evaluate --split`.
_MADE = ("ingest", "embed", "align", "tokenize", "trie", "dialogues", "train", "evidence", "evidence:dialogues", "tune")
STAGES = (*_MADE, "evaluate:test", "evaluate:validation")
_NO_COMMAND = "genrec/decoding/vllm_processor.py"  # a sentence that begins with the name
_OF_OTHERS = {"--logdir", "--logits-processors", "--head", "--num_processes"}  # tensorboard, vLLM, Ray, accelerate
_OPTION = r"(?<![\w-])--[a-z][\w-]*"


def sentences(tree: ast.AST) -> Iterator[str]:
    """Every string of a module; what an f-string fills in is `…`."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


@cache
def told() -> list[tuple[str, str]]:
    """File and string, of all sources that speak to people."""
    files = [file for folder in ("genrec", "train", "eval") for file in sorted((ROOT / folder).rglob("*.py"))]
    trees = [(file.relative_to(ROOT).as_posix(), ast.parse(file.read_text(encoding="utf-8"))) for file in files]
    return [(name, " ".join(text.split())) for name, tree in trees for text in sentences(tree)]


@cache
def known() -> dict[str, set[str]]:
    """Every verb with its options; `items` has those of all its own."""
    found: dict[str, set[str]] = {}
    for path, options in options_of(typer.main.get_command(app)).items():
        found.setdefault(path[0], set()).update(options)
    return found


def wrong_in(command: str) -> list[str]:
    """What `genrec command` has that does not exist; nothing where its verb is filled in when it is told."""
    words = command.split()
    verbs = words[0].split("|") if re.fullmatch(r"[a-z|-]+", words[0]) else []
    unknown = [verb for verb in verbs if verb not in known()]
    allowed = set().union(*(known().get(verb, set()) for verb in verbs))
    return unknown or [option for option in re.findall(_OPTION, command) if verbs and option not in allowed]


def test_every_verb_and_option_that_is_told_exists() -> None:
    commands = [(file, command) for file, text in told() for command in re.findall(r"`genrec ([^`]+)`", text)]
    next_ones = [(file, text) for file, text in told() if re.match(r"genrec [a-z]+ ", text)]
    next_ones = [(file, text) for file, text in next_ones if file != _NO_COMMAND]
    commands += [(file, command) for file, text in next_ones for command in re.split(r"(?:, or )?genrec ", text)[1:]]
    assert len(commands) > 100
    assert [(file, command) for file, command in commands if wrong_in(command)] == []


def test_a_verb_and_an_option_that_do_not_exist_are_each_found() -> None:
    assert wrong_in("trane RUN") == ["trane"]
    assert wrong_in("train RUN --beam-width 5") == ["--beam-width"]
    assert wrong_in("train|tokenize RUN --from OTHER --resume") == []
    assert wrong_in("…") == []


def test_every_option_that_an_error_names_is_one_of_a_verb_or_of_a_script() -> None:
    scripts = [
        file.read_text(encoding="utf-8") for folder in ("train", "eval") for file in (ROOT / folder).glob("*.py")
    ]
    of_scripts = set(re.findall(r'"(--[a-z][\w-]*)"', " ".join(scripts)))
    exists = set().union(*known().values()) | of_scripts | _OF_OTHERS
    named = [(file, option) for file, text in told() for option in re.findall(_OPTION, text)]
    assert len(named) > 200
    assert [(file, option) for file, option in named if option not in exists] == []


@pytest.mark.parametrize("stage", [*STAGES, "nothing yet"])
def test_a_stage_that_is_missing_is_answered_with_the_verb_that_makes_it(stage: str, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        Run.create(tmp_path).require(stage)
    (command,) = re.findall(r"`genrec ([^`]+)`", caught.value.hint)
    assert bool(wrong_in(command)) == (stage == "nothing yet")


def test_every_extra_that_an_error_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {name for _, text in told() for name in re.findall(r"the extra `([\w-]+)`", text)}
    assert len(named) > 5
    assert named <= set(extras)
