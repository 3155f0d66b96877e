"""The terminal: bars where there is one, plain lines elsewhere, and text that stays text."""

from __future__ import annotations

import io
import json
import sys

import pytest
from rich.console import Console

from genrec import console
from genrec.errors import DataError, GenrecError
from genrec.run import StageReport


def progress_on(*, terminal: bool) -> tuple[console.ConsoleProgress, io.StringIO]:
    stream = io.StringIO()
    return console.ConsoleProgress(Console(file=stream, force_terminal=terminal, width=200)), stream


def test_a_terminal_sees_a_bar_with_its_count_unit_and_note() -> None:
    progress, stream = progress_on(terminal=True)
    with progress.track("reading [b]items[/b]", 4, "items") as task:
        task.advance(3, "loss [red]3.2[/red]")
        task.advance()
    shown = stream.getvalue()
    assert "4/4" in shown
    for text in ("reading [b]items[/b]", "items", "loss [red]3.2[/red]"):  # the note of before stays
        assert text in shown


def test_a_file_sees_a_line_with_an_estimate_and_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_PLAIN_SECONDS", 0.0)
    progress, stream = progress_on(terminal=False)
    with progress.track("training", 2000, "steps") as task:
        task.advance(0)
        task.advance(1000, "loss [red]3.2[/red]")
        task.advance(1500)  # more than was expected
    first, second = stream.getvalue().splitlines()
    assert first.startswith("training: 1,000/2,000 steps, about 0 s left")
    assert first.endswith("loss [red]3.2[/red]")
    assert second == "training: 2,500/2,000 steps, about 0 s left"
    assert "\x1b" not in first


def test_work_that_ends_at_once_leaves_no_line_in_a_file() -> None:
    progress, stream = progress_on(terminal=False)
    with progress.track("reading", 3, "items") as task:
        task.advance(3)
    assert stream.getvalue() == ""


def test_progress_goes_to_standard_error_and_results_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    words = "working [bold]hard[/bold] " * 20
    console.ConsoleProgress().say(words)
    console.print_lines(["a result"])
    captured = capsys.readouterr()
    assert captured.err == words + "\n"  # not wrapped: a log is searched line by line
    assert captured.out == "a result\n"


def test_markup_emoji_codes_and_long_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["[red]x[/red]", "[/]", "[link=http://x]y[/link]", ":smile: 1994", "x" * 500, "a\tb", ""]
    console.print_lines(lines)
    assert capsys.readouterr().out == "\n".join(lines).expandtabs(8) + "\n"


def test_a_report_is_its_words_and_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    report = StageReport("embed", {"n": 1}, ["Two [b]words[/b]."], "genrec tokenize runs/x")
    console.print_report(report, as_json=False)
    assert capsys.readouterr().out == "Two [b]words[/b].\n\nNext: genrec tokenize runs/x\n"
    console.print_report(StageReport("embed", {}, ["Done."]), as_json=False)
    assert capsys.readouterr().out == "Done.\n"


def test_a_report_as_json_is_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"title": "[red]Amélie[/red]", "figures": [1, 2.5, None]}
    console.print_report(StageReport("embed", facts, ["words"], "next"), as_json=True)
    assert json.loads(capsys.readouterr().out) == facts


def test_json_is_json_also_where_the_output_has_no_such_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, expected in (("ascii", '"Am\\u00e9lie"'), ("utf-8", '"Amélie"')):
        written = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace"))
        console.print_json("Amélie")
        sys.stdout.flush()
        assert written.getvalue().decode("utf-8").strip() == expected


def test_an_error_says_what_is_wrong_and_then_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_error(DataError("items.csv, line 3: [bold]bad[/bold]\n  second line", "Mend it."))
    console.print_error(GenrecError("no hint"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: items.csv, line 3: [bold]bad[/bold]\n  second line\n  Mend it.\nerror: no hint\n"


def test_marks_become_colour_on_a_terminal_and_stay_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["user [b]said[/b] ⟦this", "and⟧ more"]
    console.print_marked(lines, ("⟦", "⟧"))
    assert capsys.readouterr().out.splitlines() == lines
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.print_marked(lines, ("⟦", "⟧"))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "user [b]said[/b] \x1b[1;32mthis\x1b[0m"
    assert second == "\x1b[1;32mand\x1b[0m more"
