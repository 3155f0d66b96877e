"""The terminal: progress bars where there is one, plain lines elsewhere, errors with their hint.

All that a catalogue or a file says is printed as text: Rich markup in a title stays what it is.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from genrec.errors import GenrecError
from genrec.progress import Task
from genrec.run import StageReport

_PLAIN_SECONDS = 5.0


class _BarTask:
    def __init__(self, bars: RichProgress, label: str, total: int, unit: str) -> None:
        self._bars, self._note = bars, ""
        self._task = bars.add_task("", total=total, label=label, unit=unit, note="")

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._note = note or self._note
        self._bars.update(self._task, advance=amount, note=self._note)


class _PlainTask:
    """Prints a line with an estimate at most every few seconds, and nothing for what ends sooner."""

    def __init__(self, console: Console, label: str, total: int, unit: str) -> None:
        self._console, self._label, self._total, self._unit = console, label, total, unit
        self._done = 0
        self._started = self._printed = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._printed < _PLAIN_SECONDS or self._done <= 0:
            return
        self._printed = now
        left = (now - self._started) / self._done * max(0, self._total - self._done)
        line = f"{self._label}: {self._done:,}/{self._total:,} {self._unit}, about {left:.0f} s left  {note}"
        self._console.print(Text(line.rstrip()), soft_wrap=True)


class ConsoleProgress:
    """Progress for people, on standard error, so that standard output stays for results."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """Print one line of plain text, unwrapped."""
        self.console.print(Text(line), soft_wrap=True)

    @contextmanager
    def track(self, label: str, total: int, unit: str) -> Iterator[Task]:
        """A bar with an estimate on a terminal, a line every few seconds elsewhere."""
        if not self.console.is_terminal:
            yield _PlainTask(self.console, label, total, unit)
            return
        columns = (
            TextColumn("{task.fields[label]}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with RichProgress(*columns, console=self.console, transient=True) as bars:
            yield _BarTask(bars, label, total, unit)


def print_lines(lines: list[str], *, aside: bool = False) -> None:
    """Print results to standard output, unwrapped and without markup; `aside`, to standard error."""
    console = Console(highlight=False, soft_wrap=True, stderr=aside)
    for line in lines:
        console.print(Text(line))


def print_marked(lines: list[str], marks: tuple[str, str]) -> None:
    """`print_lines`, but on a terminal what stands between two marks is in colour and the marks go."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        print_lines(lines)
        return
    style = ""
    for line in lines:
        shown = Text()
        for piece in re.split(f"({re.escape(marks[0])}|{re.escape(marks[1])})", line):
            if piece in marks:
                style = "bold green" if piece == marks[0] else ""
            else:
                shown.append(piece, style=style)
        console.print(shown)


def print_json(value: Any, *, aside: bool = False) -> None:
    """Print a value as `--json` does: JSON also where the output's encoding has not all letters."""
    stream = sys.stderr if aside else sys.stdout
    plain = (stream.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, ensure_ascii=plain, indent=2, default=str), file=stream)


def print_report(report: StageReport, *, as_json: bool) -> None:
    """Print a stage's report: its words and the next command, or its facts as JSON."""
    if as_json:
        print_json(report.facts)
        return
    print_lines(report.words)
    if report.next_command:
        print_lines(["", f"Next: {report.next_command}"])


def print_error(error: GenrecError) -> None:
    """Print what is wrong and what to do, on standard error."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(f"error: {error.message}", style="red"))
    if error.hint:
        console.print(Text(f"  {error.hint}"))
