"""The stage `dialogues`: names become items, a share of the dialogues is kept, and evidence is learned for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genrec.chat import ChatState, Dialogue
from genrec.chat.learning import learn_dialogues
from genrec.config import DialoguesConfig, EvidenceConfig
from genrec.data.dialogues import dialogues_file, load_turns
from genrec.errors import DataError, RunError
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run
from genrec.weighing import weigh_evidence
from tests.dialogues import write_tiny_dialogues


@pytest.fixture(scope="module")
def talked(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with dialogues and the evidence of users and of dialogues; for reading only."""
    folder = tmp_path_factory.mktemp("talked")
    path = Path(shutil.copytree(tiny_run, folder / "run"))
    run = Run.open(path)
    learn_dialogues(run, [write_tiny_dialogues(folder / "turns.jsonl")], DialoguesConfig())
    for setting in ("users", "dialogues"):
        weigh_evidence(run, EvidenceConfig(learn_from=setting))
    return path


def test_names_become_items_and_what_is_unknown_is_counted(talked: Path):
    run = Run.open(talked)
    report = run.stages["dialogues"].report
    assert report["num_dialogues"] == 60
    assert report["num_validation"] == 18
    assert report["num_turns"] == 120
    assert report["num_recommended"] == 120  # of the second turn's three names one is known and new
    assert report["num_unknown"] == 61
    catalog = Recommender.load(talked).catalog
    turns = load_turns(run, catalog=catalog)
    assert [catalog.titles[row] for row in turns[0].mentioned] == ["Film 0"]
    assert [catalog.titles[row] for row in turns[0].recommended] == ["Film 15"]
    assert turns[0].context == ("Hello", "I liked Film 0 (1990), something quiet please")


def test_a_dialogue_is_of_one_split_alone_and_the_seed_decides_which(talked: Path, tiny_copy: Path, tmp_path: Path):
    run = Run.open(talked)
    catalog = Recommender.load(talked).catalog
    parts = [
        {turn.dialogue_id for turn in load_turns(run, split, catalog=catalog)} for split in ("train", "validation")
    ]
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == 60
    other = Run.open(tiny_copy)
    learn_dialogues(other, [write_tiny_dialogues(tmp_path / "turns.jsonl")], DialoguesConfig(seed=5))
    assert {turn.dialogue_id for turn in load_turns(other, "validation", catalog=catalog)} != parts[1]


def test_evidence_of_dialogues_joins_in_dialogues_and_that_of_users_elsewhere(talked: Path):
    recommender = Recommender.load(talked)
    history = np.array([3], dtype=np.int32)
    answers = recommender.rank([RankRequest(history, in_dialogue=told) for told in (True, False, True)], 5)
    assert answers[0] == answers[2] != answers[1]
    # Dialogues recommend n + 15 after n; users walk from n to n + 3.
    assert [answers[0][0].item_index, answers[1][0].item_index] == [18, 6]
    assert recommender.with_evidence(None).rank(
        [RankRequest(history, in_dialogue=True)], 5
    ) == recommender.with_evidence(None).rank([RankRequest(history)], 5)


def test_a_conversation_is_ranked_by_what_dialogues_taught_and_a_users_history_is_not(talked: Path):
    dialogue = Dialogue.over(Recommender.load(talked))
    told = dialogue.plan(ChatState(), "I loved Film 3")
    assert told.request is not None
    assert told.request.in_dialogue
    assert dialogue.turn(ChatState(), "I loved Film 3").item_ids[0] == "i18"
    borrowed = dialogue.plan(ChatState(history=("i3", "i6")), "recommend something")
    assert borrowed.request is not None
    assert not borrowed.request.in_dialogue


def test_without_evidence_of_dialogues_a_conversation_uses_that_of_users(talked: Path, tmp_path: Path):
    run = Run.open(Path(shutil.copytree(talked, tmp_path / "run")))
    learn_dialogues(run, [write_tiny_dialogues(tmp_path / "turns.jsonl")], DialoguesConfig(seed=5))
    assert "evidence:dialogues" not in run.stages  # it was learned from other dialogues
    assert "evidence" in run.stages
    recommender = Recommender.load(run.path)
    history = np.array([3], dtype=np.int32)
    one, other = recommender.rank([RankRequest(history, in_dialogue=told) for told in (True, False)], 5)
    assert one == other


def test_a_file_about_other_things_and_a_changed_table_are_refused(tiny_copy: Path, talked: Path, tmp_path: Path):
    (tmp_path / "other.jsonl").write_text('{"dialog_id": 1, "context": [], "entity": [], "rec": ["Dune (2021)"]}\n')
    with pytest.raises(DataError, match="0 of the dialogues recommend something"):
        learn_dialogues(Run.open(tiny_copy), [tmp_path / "other.jsonl"], DialoguesConfig())
    with pytest.raises(DataError, match=r"Run `genrec dialogues`"):
        weigh_evidence(Run.open(tiny_copy), EvidenceConfig(learn_from="dialogues"))
    run = Run.open(Path(shutil.copytree(talked, tmp_path / "talked")))
    dialogues_file(run).write_bytes(b"nothing")
    with pytest.raises(RunError, match="checksum"):
        Recommender.load(run.path)


def test_the_commands(tiny_copy: Path, tmp_path: Path, genrec: Callable[..., tuple[int, str, str]]):
    status, out, err = genrec("dialogues", tiny_copy, write_tiny_dialogues(tmp_path / "turns.jsonl"))
    assert status == 0, err
    assert "120 turns of 60 dialogues" in out
    status, out, err = genrec("evidence", tiny_copy, "--dialogues")
    assert status == 0, err
    assert "recommendations of validation dialogues that fitted nothing" in out
    assert "genrec chat" in out
