"""The scripted conversations of eval/conversations, on the bundled films."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrec.chat import ChatState, Dialogue
from genrec.chat.scripts import Expectation, Script, load_scripts, play
from genrec.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "eval" / "conversations"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_file_of_scripted_conversations_holds(film_dialogue: Dialogue, path: Path):
    scripts = load_scripts(path)
    assert len(scripts) >= 10
    assert [problem for script in scripts for problem in play(film_dialogue, script)] == []


def test_there_are_a_hundred_conversations_and_each_has_a_name_of_its_own():
    names = [script.name for path in FOLDER.glob("*.yaml") for script in load_scripts(path)]
    assert len(names) >= 100
    assert len(set(names)) == len(names)


def test_what_does_not_hold_is_found(film_dialogue: Dialogue):
    turn = Expectation(
        say="a comedy from the 90s",
        act="ask",
        count=4,
        none={"genres": "Comedy"},
        every={"genres": "Horror"},
        years=(1970, 1979),
        says=("no such words",),
        silent=("Comedy",),
        filters=(),
        liked=("Alien",),
    )
    problems = play(film_dialogue, Script(name="wrong", turns=(turn,)))
    assert len(problems) == 9
    assert all(problem.startswith("wrong, turn 1") for problem in problems)


def test_places_are_of_the_list_before_the_turn(film_dialogue: Dialogue):
    asked = Expectation(say="I loved Alien", act="recommend")
    first = film_dialogue.turn(ChatState(), asked.say).item_ids
    catalog = film_dialogue.index.catalog
    titles = [catalog.titles[catalog.index[item]] for item in first]

    def problems(**expected: tuple[str, ...]) -> list[str]:
        judged = Expectation(say="I liked the first two, the last one was dull", **expected)
        return play(film_dialogue, Script(name="places", turns=(asked, judged)))

    assert problems(liked=("Alien", "#1", "#2"), disliked=("#-1",)) == []
    assert problems(liked=("Alien", *titles[:2]), disliked=(titles[-1],)) == []
    (found,) = problems(liked=("Alien", "#1", "#3"))
    assert titles[2] in found
    with pytest.raises(ConfigError, match="no place #99 in a list of"):
        problems(liked=("#99",))


def test_a_file_that_is_no_list_and_an_unknown_key_are_named(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("name: x\n")
    with pytest.raises(ConfigError, match=r"a\.yaml holds no list"):
        load_scripts(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- {name: x, turns: [{say: hi, wants: 3}]}\n")
    with pytest.raises(ConfigError, match=r"b\.yaml, conversation 1: turns\.0\.wants"):
        load_scripts(tmp_path / "b.yaml")
