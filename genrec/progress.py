"""How long work reports itself: one small interface, implemented by the command line.

The library calls `progress.track(...)` and `progress.say(...)`; who calls the library decides what a
person sees. The default says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Report `amount` more units done; `note` is a short state such as `loss 3.21`."""
        ...


class Progress(Protocol):
    """Where a stage reports to."""

    def say(self, line: str) -> None:
        """Show one line of plain words."""
        ...

    def track(self, label: str, total: int, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units (`"items"`, `"steps"`, …): `with progress.track(…) as task:`."""
        ...


class _SilentTask:
    def advance(self, amount: int = 1, note: str = "") -> None:
        """Report nothing."""


class SilentProgress:
    """Reports nothing; the default of every stage function."""

    def say(self, line: str) -> None:
        """Show nothing."""

    @contextmanager
    def track(self, label: str, total: int, unit: str) -> Iterator[Task]:
        """Track nothing."""
        yield _SilentTask()


SILENT: Progress = SilentProgress()
