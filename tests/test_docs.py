"""What the pages tell people to type exists: verbs and options of `genrec`, scripts and their options, links."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from genrec.cli import app

Genrec = Callable[..., "tuple[int, str, str]"]
ROOT = Path(__file__).parents[1]
# Of CHANGELOG.md and docs/experiments.md: what is told there of the past may be gone.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "eval" / "RESULTS.md"]
PAGES = [page for page in PAGES if page.name != "experiments.md"]
_FENCE = re.compile(r"```.*?```", re.DOTALL)


def commands(text: str, program: str) -> Iterator[str]:
    """Command lines of a page that begin with `program`, in blocks and within sentences, without comments."""
    text = re.sub(r"\\\n\s*", " ", text)
    blocks = [block for fence in _FENCE.findall(text) for block in fence.splitlines()]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", _FENCE.sub("", text))]
    for line in [*blocks, *inline]:
        for part in re.split(r"&&|\|\||;", line.split(" #")[0]):
            if found := re.match(rf"\s*(?:[A-Z_]+=\S+ +)*(?:\S*/)?({program}\s.*)", part):
                yield found[1].strip()


def test_the_pages_are_read() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(len(list(commands(text, "genrec"))) for text in texts) > 150
    assert sum(len(list(commands(text, r"python (?:train|eval)/\w+\.py"))) for text in texts) > 25


def options_of(group: typer.core.click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Every verb with its options."""
    if isinstance(group, TyperGroup):
        return {
            key: value
            for name, command in group.commands.items()
            for key, value in options_of(command, (*path, name)).items()
        }
    named = {option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return {path: {option for option in named if option.startswith("-")} | {"--help"}}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_and_option_of_a_page_exists(page: Path) -> None:
    known = options_of(typer.main.get_command(app))
    verbs = {path[0] for path in known}
    for line in commands(page.read_text(encoding="utf-8"), "genrec"):
        words = line.split()[1:]
        if not re.fullmatch(r"[a-z|-]+", words[0]):
            continue  # `genrec VERB --help`, `genrec … --config FILE`
        for verb in words[0].split("|"):
            assert verb in verbs, f"{page.name}: {line}"
            allowed = set().union(*(value for path, value in known.items() if path[0] == verb))
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", line):
                assert option in allowed, f"{page.name}: {line} has {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_and_option_of_a_page_exists(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8"), r"python (?:train|eval)/\w+\.py"):
        script = line.split()[1]
        assert (ROOT / script).is_file(), f"{page.name}: {line}"
        source = (ROOT / script).read_text(encoding="utf-8")
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", line):
            assert f'"{option}"' in source, f"{page.name}: {line} has {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: {target}"


def test_the_examples_of_the_decoding_page_run_one_after_the_other(
    genrec: Genrec, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "decoding.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 7
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/mine").symlink_to(tiny_run)
    Path("users.jsonl").write_text('{"history": ["i17", "i4"]}\n')
    genrec("recommend", "runs/mine", "--input", "users.jsonl", "--output", "recs.jsonl")
    names: dict[str, object] = {}
    for block in blocks:  # our own page; its ids are those of nobody's catalogue
        exec(compile(re.sub(r'"item-(\d+)"', r'"i\1"', block), "decoding.md", "exec"), names)
        for items in names.get("items", ()):
            assert len(items) == 10


def test_lists_of_many_users_become_what_explain_reads_by_the_lines_of_the_page(
    genrec: Genrec, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "decoding.md").read_text(encoding="utf-8")
    (program,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "pairs.jsonl" in block]
    monkeypatch.chdir(tmp_path)
    users = [{"user_id": "u1", "history": ["i1", "i4"]}, {"history": ["nobody"]}, {"history": []}]
    Path("users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))
    status, _, _ = genrec("recommend", tiny_run, "--input", "users.jsonl", "--output", "recs.jsonl", "-k", "3")
    assert status == 1  # of the user whom nobody knows
    exec(compile(program, "decoding.md", "exec"), {})  # our own page
    assert len(Path("pairs.jsonl").read_text().splitlines()) == 6
    status, out, _ = genrec("explain", tiny_run, "--input", "pairs.jsonl", "--output", "out.jsonl")
    assert (status, out.split()[:3]) == (0, ["6", "of", "6"])
