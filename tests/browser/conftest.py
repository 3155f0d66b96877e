"""A real browser at the chat page of a real process: Debian's Chromium through Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


# Per module and not per session: while it is open, Playwright keeps an event loop running in this thread, and no other
# test of the process could start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def picture_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: docs/images with --keep-screenshots, else a temporary folder."""
    if request.config.getoption("--keep-screenshots"):
        return Path(__file__).resolve().parents[2] / "docs" / "images"
    return tmp_path_factory.mktemp("screenshots")
