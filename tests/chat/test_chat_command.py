"""`genrec chat`: lines in, replies out, the conversation in a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec.catalogue_changes import add_items
from genrec.chat import ChatState, Dialogue
from genrec.cli.terminal_chat import talk
from genrec.recommender import Recommender
from genrec.run import Run


def test_a_conversation_in_the_terminal_goes_on_from_its_file(
    genrec: Callable, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = tmp_path / "me.json"
    monkeypatch.setattr("sys.stdin", io.StringIO('I loved "Film 3"\nwhy?\n\n'))
    done = genrec("chat", tiny_run, "--state", kept, "--trace")
    assert done.status == 0, done.err
    assert "1. Film" in done.out
    assert "  · the user likes Film 3" in done.out
    state = ChatState.model_validate_json(kept.read_bytes())
    assert (state.liked, state.turns) == (("i3",), 2)
    monkeypatch.setattr("sys.stdin", io.StringIO("what do you know about me?\n"))
    done = genrec("chat", tiny_run, "--state", kept)
    assert "You liked Film 3." in done.out


def test_a_user_of_the_run_brings_their_history(genrec: Callable, tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("what do you know about me?\n"))
    assert "You had used" in genrec("chat", tiny_run, "--user", "u1").out
    done = genrec("chat", tiny_run, "--user", "nobody")
    assert (done.status, "no user 'nobody'" in done.err) == (2, True)


def test_a_kept_conversation_goes_on_with_its_own_user_alone(
    genrec: Callable, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = tmp_path / "u1.json"
    for _ in range(2):
        monkeypatch.setattr("sys.stdin", io.StringIO("hi\n"))
        assert genrec("chat", tiny_run, "--user", "u1", "--state", kept).status == 0
    before = kept.read_bytes()
    done = genrec("chat", tiny_run, "--user", "u2", "--state", kept)
    assert (done.status, "no conversation of user u2" in done.err) == (2, True)
    assert kept.read_bytes() == before


def test_a_file_that_holds_no_state_is_named(genrec: Callable, tiny_run: Path, tmp_path: Path):
    (tmp_path / "bad.json").write_text("{")
    done = genrec("chat", tiny_run, "--state", tmp_path / "bad.json")
    assert done.status == 1
    assert "holds no conversation" in done.err


def test_items_that_come_while_somebody_talks_are_there_with_the_next_line(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    dialogue = Dialogue.over(Recommender.load(tiny_copy))
    new = tmp_path / "new.jsonl"
    new.write_text('{"item_id": "n1", "title": "Aniara"}\n')

    class Lines(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:
            line = super().readline(size)
            if line.startswith("why"):
                add_items(Run.open(tiny_copy), new, when="2026-01-02T03:04:05+00:00")
            return line

    monkeypatch.setattr("sys.stdin", Lines('I loved "Film 3"\nwhy the first one?\nI loved Aniara\n\n'))
    talk(dialogue, ChatState(), keep=None, show_trace=True)
    assert "the user likes Aniara" in capsys.readouterr().out
