"""The chat page in Chromium: a whole conversation, hostile titles, a lost connection, a restart."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect

from genrec.catalogue_changes import update_items
from genrec.errors import RunError
from genrec.recommender import Recommender
from genrec.run import Run
from tests.films import film_recommender
from tests.server.conftest import Listening

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def hostile_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with a title that wants to be HTML."""
    folder = tmp_path_factory.mktemp("hostile")
    run = Path(shutil.copytree(tiny_run, folder / "films"))
    pl.DataFrame({"item_id": ["i3"], "title": [HOSTILE]}).write_ndjson(folder / "changed.jsonl")
    update_items(Run.open(run), folder / "changed.jsonl", when="2026-01-01T00:00:00+00:00")
    return run


@pytest.fixture(scope="module")
def hostile_recommender(hostile_run: Path) -> Recommender:
    return Recommender.load(hostile_run)


@pytest.fixture(scope="module")
def address(hostile_run: Path, hostile_recommender: Recommender) -> Iterator[str]:
    service = Listening(hostile_run, lambda: hostile_recommender)
    yield service.address
    service.end()


@pytest.fixture(scope="module")
def film_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bundled films: titles that a picture in the documentation should have."""
    folder = tmp_path_factory.mktemp("films") / "films"
    recommender = film_recommender(folder)
    service = Listening(folder, lambda: recommender)
    yield service.address
    service.end()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("dialog", lambda dialog: problems.append(dialog.message))
    visit(opened, address)
    yield opened
    context.close()
    assert problems == []


def visit(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("body[data-ready]")).to_be_attached(timeout=20_000)


def say(page: Page, text: str) -> None:
    replies = page.locator(".reply:not(.waiting)")
    before = replies.count()
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")
    expect(replies).to_have_count(before + 1, timeout=20_000)


def shown(page: Page) -> list[str]:
    """Ids on the cards of the last list."""
    cards = page.locator(".reply").filter(has=page.locator(".card")).last.locator(".card")
    return [card.get_attribute("data-item") or "" for card in cards.all()]


def test_a_whole_conversation(page: Page):
    say(page, "hi")
    expect(page.locator(".reply").last).to_contain_text("Tell me something you liked")
    say(page, "surprise me")
    first = shown(page)
    assert len(first) == 5

    disliked = page.locator(f'.card[data-item="{first[1]}"]')
    disliked.get_by_role("button", name="Dislike").click()
    expect(disliked).to_have_attribute("data-opinion", "disliked")
    say(page, "more")
    assert not set(shown(page)) & set(first)
    expect(page.locator(".trace").last).to_contain_text("left out with")

    page.locator(".card").last.get_by_role("button", name="Why this?").click()
    expect(page.locator(".user p").last).to_have_text("Why this one?")
    expect(page.locator(".reply").last.locator("strong").first).to_be_visible()

    say(page, "only westerns please, not before 1991")
    expect(page.get_by_role("group", name="Active filters").get_by_role("button")).to_have_text(
        [re.compile("Western"), re.compile("1991 or later")]
    )
    page.get_by_role("button", name="Remove filter: Western").click()
    expect(page.get_by_role("group", name="Active filters").get_by_role("button")).to_have_count(1)


def test_a_title_with_markup_is_shown_as_text(page: Page):
    say(page, "I want a comedy")
    say(page, "more")
    title = page.locator(".title", has_text="<script>")
    expect(title).to_have_text(HOSTILE)
    expect(page).not_to_have_title("owned")
    assert page.locator("#log script, #log img[src=x]").count() == 0


def test_a_person_of_the_run_and_the_memory_beside_the_conversation(page: Page):
    page.get_by_label("Talk as").select_option(index=1)
    expect(page.locator(".reply").last).to_contain_text("you took last")
    say(page, "recommend something")
    assert len(shown(page)) == 5
    page.locator(".card").first.get_by_role("button", name="Like").first.click()
    expect(page.locator("#known")).to_contain_text("Liked")


def test_everything_can_be_done_with_the_keyboard(page: Page):
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the message field")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("a western")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(5)
    seen = page.locator(".card").first.get_by_role("button", name="Seen")
    seen.focus()
    page.keyboard.press("Space")
    expect(seen).to_have_attribute("aria-pressed", "true")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, select, textarea, input')]"
        ".filter((one) => one.offsetParent && !one.textContent.trim() && !one.labels?.length && !one.ariaLabel).length"
    )
    assert unnamed == 0


def test_a_lost_connection_is_said_and_the_message_arrives_once(page: Page):
    page.context.set_offline(True)
    page.get_by_label("Your message").fill("a western")
    page.get_by_label("Your message").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Connection lost")
    page.context.set_offline(False)
    expect(page.locator(".card")).to_have_count(5)
    expect(page.get_by_role("status")).to_be_hidden()
    page.reload()
    expect(page.locator(".user")).to_have_count(1)
    expect(page.locator(".card")).to_have_count(5)


def test_a_restart_keeps_the_conversation_and_answers_what_was_asked_meanwhile(
    browser: Browser, hostile_run: Path, hostile_recommender: Recommender, tmp_path: Path
):
    settings = {"database": f"sqlite:///{tmp_path / 'c.sqlite'}"}
    first = Listening(hostile_run, lambda: hostile_recommender, **settings)
    page = browser.new_page(viewport={"width": 1280, "height": 860}, reduced_motion="reduce")
    visit(page, first.address)
    say(page, "a western")
    before = shown(page)
    first.end()
    page.get_by_label("Your message").fill("more")
    page.get_by_label("Your message").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Connection lost")
    second = Listening(hostile_run, lambda: hostile_recommender, first.port, **settings)
    expect(page.locator(".card")).to_have_count(10, timeout=30_000)
    assert not set(shown(page)) & set(before)
    page.reload()
    expect(page.locator(".user p")).to_have_text(["a western", "more"])
    page.close()
    second.end()


@pytest.mark.parametrize("changed", [False, True])
def test_while_the_model_loads_the_page_says_so_and_sends_what_was_finished_when_it_is_there(
    changed: bool, browser: Browser, hostile_run: Path, hostile_recommender: Recommender
):
    loaded = threading.Event()

    def load() -> Recommender:
        assert loaded.wait(60)
        return hostile_recommender

    service = Listening(hostile_run, load, wait=False)
    page = browser.new_page(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    page.goto(service.address)
    expect(page.get_by_role("status")).to_contain_text("The model is being loaded")
    expect(page.locator(".reply")).to_contain_text("you can write already")
    for name in ("Send", "New conversation"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    page.get_by_label("Your message").fill("a western")
    page.get_by_label("Your message").press("Enter")
    expect(page.get_by_label("Your message")).to_have_value("a western")
    expect(page.get_by_role("status")).to_contain_text("Your message goes out as soon as it is.")
    if changed:
        page.get_by_label("Your message").press("End")
        page.keyboard.type(" or a com")
    loaded.set()
    expect(page.locator("body[data-ready]")).to_be_attached(timeout=20_000)
    if changed:  # nobody has said that it is finished
        expect(page.get_by_role("status")).to_be_hidden()
        expect(page.get_by_label("Your message")).to_have_value("a western or a com")
        page.get_by_label("Your message").fill("a western")
        page.get_by_role("button", name="Send").click()
    expect(page.locator(".card")).to_have_count(5, timeout=20_000)
    expect(page.locator(".user p")).to_have_text(["a western"])
    page.close()
    service.end()


def test_a_model_that_cannot_be_loaded_is_said(browser: Browser, hostile_run: Path):
    def load() -> Recommender:
        raise RunError("the weights are gone.", "Train again.")

    service = Listening(hostile_run, load)
    page = browser.new_page()
    page.goto(service.address)
    expect(page.locator("#status.bad")).to_contain_text("the weights are gone")
    page.close()
    service.end()


def test_a_conversation_that_is_gone_is_said_and_the_words_are_given_back(page: Page):
    say(page, "a western")
    gone = re.compile(r"(?<=/conversations/)\w+")  # as if it had been deleted: no conversation has this id
    page.route("**/v1/conversations/*/*", lambda route: route.continue_(url=gone.sub("0" * 32, route.request.url)))
    page.get_by_label("Your message").fill("more")
    page.get_by_label("Your message").press("Enter")
    expect(page.locator(".failed")).to_contain_text("not kept any more")
    expect(page.get_by_label("Your message")).to_have_value("more")
    page.locator(".card").first.get_by_role("button", name="Like").first.click()
    expect(page.get_by_role("status")).to_contain_text("not kept any more")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".failed")).to_have_count(0)
    expect(page.get_by_role("status")).to_be_hidden()


def test_two_tabs_hold_two_conversations_and_a_third_begins_with_the_last(page: Page):
    say(page, "a western")
    address = page.url
    other = page.context.new_page()
    visit(other, address)
    expect(other.locator(".user")).to_have_text(["You: a western"])
    other.get_by_role("button", name="New conversation").click()
    expect(other.locator(".user")).to_have_count(0)
    say(other, "a comedy")
    say(page, "more")
    page.reload()
    expect(page.locator(".user")).to_have_text(["You: a western", "You: more"])
    third = page.context.new_page()
    visit(third, address)
    expect(third.locator(".user")).to_have_text(["You: a comedy"])


def test_after_a_chip_the_cursor_is_in_the_message_field(page: Page):
    chip = page.get_by_role("group", name="Things to say").get_by_role("button", name="Surprise me")
    chip.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(5)
    expect(page.get_by_label("Your message")).to_be_focused()
    expect(page.locator(".user")).to_have_text(["You: Surprise me"])


@pytest.mark.parametrize("size", [(1280, 860), (390, 844)], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_desktop_and_a_phone_in_light_and_dark(
    browser: Browser, film_address: str, picture_folder: Path, size: tuple[int, int], scheme: str
):
    width, height = size
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
    visit(page, film_address)
    say(page, "I loved Alien, but no horror, something from the 80s")
    page.screenshot(path=picture_folder / f"chat-{'desktop' if width > 600 else 'phone'}-{scheme}.png")
    sideways = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert sideways == 0
    for name in ("#message", "#send", "#person"):
        box = page.locator(name).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    page.close()
