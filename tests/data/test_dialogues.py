"""Files of dialogues become turns, and a run's turns become what training and evidence read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from genrec.data.dialogues import DialogueTurn, item_sequences, read_turns, spoken_lines, turn_cases
from genrec.errors import DataError

# ReDial's own layout: 7 asks, 8 recommends.
REDIAL = {
    "conversationId": "41",
    "initiatorWorkerId": 7,
    "respondentWorkerId": 8,
    "movieMentions": {"10": "Alien  (1979)", "11": "Heat (1995)", "12": "Up (2009)", "13": None},
    "messages": [
        {"senderWorkerId": 8, "text": "Hello! Do you know @11 ?"},
        {"senderWorkerId": 7, "text": "I liked @10"},
        {"senderWorkerId": 8, "text": "Then @12 and @13"},
        {"senderWorkerId": 7, "text": "Thanks"},
        {"senderWorkerId": 8, "text": "Or @10 again"},
    ],
}


def test_a_dialogue_of_redial_is_a_turn_per_message_that_names_films_to_the_one_who_asked(tmp_path: Path):
    file = tmp_path / "dialogues.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        lines.write(json.dumps(REDIAL) + "\n\n")
    first, second = read_turns(file)
    assert first.context == ("Hello! Do you know Heat (1995) ?", "I liked Alien (1979)")
    assert first.mentioned == ("Heat (1995)", "Alien (1979)")
    assert first.recommended == ("Up (2009)",)
    assert second.context[-1] == "Thanks"
    assert second.mentioned == ("Heat (1995)", "Alien (1979)", "Up (2009)")
    assert {first.dialogue_id, second.dialogue_id} == {"41"}


def test_a_line_per_turn_is_read_as_it_is(tmp_path: Path):
    file = tmp_path / "turns.jsonl"
    file.write_text('{"dialog_id": 3, "context": ["hi"], "entity": ["Alien (1979)"], "rec": ["Heat (1995)"]}\n')
    (turn,) = read_turns(file)
    assert (turn.dialogue_id, turn.context, turn.mentioned) == ("3", ("hi",), ("Alien (1979)",))
    assert turn.recommended == ("Heat (1995)",)


@pytest.mark.parametrize("line", ["no JSON", "[1]", '{"context": []}', '{"messages": [{}], "movieMentions": {}}'])
def test_a_line_that_is_no_dialogue_is_named(tmp_path: Path, line: str):
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"dialog_id": 1, "context": [], "entity": [], "rec": []}}\n{line}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl, line 2: not a turn"):
        list(read_turns(file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        list(read_turns(tmp_path / "none.jsonl"))


def test_a_dialogue_is_one_sequence_and_every_recommended_item_a_case():
    turns = [DialogueTurn("a", (), (1,), (2,)), DialogueTurn("a", (), (1, 2), (5, 6)), DialogueTurn("b", (), (), (9,))]
    everything = np.ones(10, np.bool_)
    sequences = item_sequences(turns, everything)
    assert sequences.user_ids == ["a"]  # one item alone tells of nothing that goes together
    assert sequences[0].tolist() == [1, 2, 5, 6]
    cases = turn_cases(turns, everything)
    assert cases.targets.tolist() == [2, 5, 6, 9]
    assert [history.tolist() for history in cases.histories] == [[1], [1, 2], [1, 2], []]
    assert cases.user_ids == ["a", "a", "a", "b"]


def test_held_out_items_teach_nothing_in_dialogues_either():
    turns = [
        DialogueTurn("a", ("like i5?",), (1, 5), (2,)),
        DialogueTurn("b", ("hello",), (3,), (4, 5)),
        DialogueTurn("c", ("well",), (3,), (4,)),
    ]
    known = np.arange(10) != 5
    assert [one.tolist() for one in item_sequences(turns, known)] == [[1, 2], [3, 4], [3, 4]]
    cases = turn_cases(turns, known)
    assert cases.targets.tolist() == [2, 4, 4]
    assert [history.tolist() for history in cases.histories] == [[1], [3], [3]]
    assert spoken_lines(turns, known) == ["well"]
