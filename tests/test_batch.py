"""Bulk recommendation: a line out per line in, whatever the lines hold."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec import Recommender
from genrec.batch import BatchSummary, recommend_file
from genrec.data.catalog import Catalog
from genrec.decoding.scripted import ScriptedEngine
from genrec.errors import ConfigError, DataError, ModelError, RunError
from genrec.prompting import HistoryPrompt
from genrec.trie import ItemTrie

NUM_ITEMS = 9


def script(prompt: tuple[int, ...], codes: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([*prompt, 7, *codes]).normal(size=3)


def make_recommender(script: Any = script, *, ids: list[str] | None = None) -> Recommender:
    table = pl.DataFrame(
        {
            "item_id": ids or [f"i{n}" for n in range(NUM_ITEMS)],
            "title": [f"Titel „{n}“ 🎬" for n in range(NUM_ITEMS)],
            "genres": [["Comedy"] if n < 4 else ["Drama", "War"] for n in range(NUM_ITEMS)],
        }
    )
    codes = np.array([[n // 3, n % 3] for n in range(NUM_ITEMS)])
    return Recommender(
        Catalog(table),
        ItemTrie.build(codes, (3, 3)),
        engine=ScriptedEngine(script),
        prompt=HistoryPrompt((1,)),
        item_tokens=codes + np.array([10, 13]),
        max_history_items=5,
        beam_width=NUM_ITEMS,
    )


def serve(folder: Path, content: bytes | str, *, k: int = 3) -> tuple[list[dict[str, Any]], BatchSummary]:
    source, target = folder / "users.jsonl", folder / "recs.jsonl"
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    summary = recommend_file(make_recommender(), source, target, k=k)
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()], summary


def test_a_batch_gives_the_answers_that_each_user_gets_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users = [
        {"user_id": f"u{n}", "history": [f"i{item}" for item in rng.permutation(NUM_ITEMS)[: n % 5]]}
        for n in range(300)  # more than are served at once
    ]
    for n, user in enumerate(users):
        user |= {"exclude": ["i0"]} if n % 3 == 0 else {}
        user |= {"allow": {"genres": "War"}} if n % 4 == 0 else {}
    answers, summary = serve(tmp_path, "".join(json.dumps(user) + "\n" for user in users))
    assert (summary.num_lines, summary.num_errors, summary.errors) == (300, 0, [])
    recommender = make_recommender()
    for user, answer in zip(users, answers, strict=True):
        alone = recommender.recommend(user["history"], k=3, exclude=user.get("exclude", ()), allow=user.get("allow"))
        assert answer["user_id"] == user["user_id"]
        assert answer["catalog_version"] == recommender.trie.version
        assert answer["items"] == [vars(item) for item in alone]


def test_ids_that_are_whole_numbers_are_those_of_the_table_in_decimal(tmp_path: Path) -> None:
    recommender = make_recommender(ids=[str(n) for n in range(NUM_ITEMS)])
    (tmp_path / "in.jsonl").write_text(
        '{"history": [1, 2], "exclude": [0]}\n{"history": ["1", "2"], "exclude": ["0"]}\n'
    )
    summary = recommend_file(recommender, tmp_path / "in.jsonl", tmp_path / "out.jsonl", k=3)
    numbers, texts = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (summary.num_errors, numbers) == (0, texts)
    assert [item["item_id"] for item in numbers["items"]] == [
        item.item_id for item in recommender.recommend(["1", "2"], 3, exclude=["0"])
    ]


BAD_LINES = {
    "{": "not valid JSON",
    "": "not valid JSON",
    "[]": "expected an object",
    "3": "expected an object",
    "[" * 100_000: "not valid JSON",
    '{"history": ["i1"], "histroy": 1}': "histroy",
    '{"user_id": "u"}': "history: is missing",
    '{"history": "i1"}': "history",
    '{"history": [true]}': "history.0: found True, expected text",
    '{"history": [1.0]}': "history.0: found 1.0, expected text",
    '{"history": ["i1", "nobody"]}': "Not in the catalogue of 9 items: nobody",
    '{"history": [], "exclude": ["gone"]}': "gone",
    '{"history": [], "allow": {"colour": "red"}}': "no attribute 'colour'",
    '{"history": [], "allow": {"genres": null}}': "cannot be compared",
    '{"history": ["\\ud800"]}': "Not in the catalogue",
    '{"history": [], "\\ud800": 1}': "text of whole letters",
    '{"history": [], "user_id": NaN}': "user_id",
    '{"history": [], "user_id": 1e999}': "user_id",
}


def test_every_bad_line_gets_its_error_and_all_other_lines_are_served(tmp_path: Path) -> None:
    good = '{"user_id": 7, "history": ["i1"]}'
    lines = [line for bad in BAD_LINES for line in (bad, good)]
    answers, summary = serve(tmp_path, "\n".join(lines) + "\n")
    assert len(answers) == len(lines)
    for number, (answer, expected) in enumerate(zip(answers[::2], BAD_LINES.values(), strict=True)):
        assert set(answer) == {"user_id", "error"}
        assert f"users.jsonl, line {2 * number + 1}" in answer["error"]
        assert expected in answer["error"]
    expected_items = [vars(item) for item in make_recommender().recommend(["i1"], k=3)]
    assert all(answer["items"] == expected_items for answer in answers[1::2])
    assert (summary.num_lines, summary.num_errors) == (len(lines), len(BAD_LINES))
    assert len(summary.errors) == 5
    assert "line 1" in summary.errors[0]


def test_bytes_that_are_not_utf_8_spoil_only_their_own_line(tmp_path: Path) -> None:
    content = b'{"history": ["i1"]}\n{"history": ["caf\xe9"]}\n{"user_id": "\xc3\xa9", "history": []}\n'
    answers, summary = serve(tmp_path, content)
    assert "not UTF-8" in answers[1]["error"]
    assert "items" in answers[0]
    assert answers[2]["user_id"] == "é"
    assert summary.num_errors == 1


def test_a_bad_line_keeps_its_user_id(tmp_path: Path) -> None:
    answers, _ = serve(tmp_path, '{"user_id": "u9", "history": ["nobody"]}\n{"user_id": "\\ud83c", "history": [1]}\n')
    assert [answer["user_id"] for answer in answers] == ["u9", "\ud83c"]


def test_byte_order_mark_carriage_returns_and_a_missing_last_newline_are_harmless(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"history": ["i1"]}\r\n{"history":\r["i2"]}\r\n{"history": ["i3"]}'
    answers, summary = serve(tmp_path, content)
    assert summary == BatchSummary(3, 0, [])
    assert [len(answer["items"]) for answer in answers] == [3, 3, 3]


def test_an_empty_file_gives_an_empty_file(tmp_path: Path) -> None:
    assert serve(tmp_path, "") == ([], BatchSummary())


def test_a_user_with_fewer_items_left_than_asked_for_gets_them_and_a_note(tmp_path: Path) -> None:
    lines = '{"history": ["i0"], "allow": {"genres": "Comedy"}}\n{"history": ["i0"], "allow": {"item_id": "i0"}}\n'
    (some, none), summary = serve(tmp_path, lines, k=5)
    assert len(some["items"]) == 3
    assert some["note"].startswith("3 of 5")
    assert none["items"] == []
    assert none["note"].startswith("0 of 5")
    assert summary.num_errors == 0


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_an_input_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"cannot be read.*--input"):
        recommend_file(make_recommender(), tmp_path / name, tmp_path / "out.jsonl", k=3)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_pipe_is_refused_and_the_old_output_stays(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("what was here before\n")
    reading, writing = os.pipe()
    os.write(writing, b'{"history": ["i1"]}\n')
    os.close(writing)
    with pytest.raises(DataError, match=r"no regular file.*Write it to a file"):
        recommend_file(make_recommender(), Path(f"/dev/fd/{reading}"), target, k=3)
    os.close(reading)
    assert target.read_text() == "what was here before\n"


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_an_input_may_be_compressed_as_every_other_input_may(tmp_path: Path, name: str) -> None:
    content = ('\ufeff{"user_id": "é", "history": ["i1"]}\r\n{"history": ["i2", "i3"]}\n{"history": [' + "\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    summary = recommend_file(make_recommender(), tmp_path / name, tmp_path / "out.jsonl", k=3)
    first, second, bad = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert (summary.num_lines, summary.num_errors, first["user_id"]) == (3, 1, "é")
    recommender = make_recommender()
    assert first["items"] == [vars(item) for item in recommender.recommend(["i1"], k=3)]
    assert second["items"] == [vars(item) for item in recommender.recommend(["i2", "i3"], k=3)]
    assert f"{name}, line 3" in bad["error"]


@pytest.mark.parametrize(
    "content", [b"not compressed", gzip.compress(b'{"history": []}\n' * 99, mtime=0)[:-12]], ids=["plain", "cut short"]
)
def test_a_compressed_input_that_is_damaged_is_named_and_nothing_is_written(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"in\.jsonl\.gz cannot be read: \w+"):
        recommend_file(make_recommender(), tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl", k=3)
    assert not (tmp_path / "out.jsonl").exists()


def test_answers_never_take_the_place_of_their_questions(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"history": ["i1"]}\n')
    (tmp_path / "same.jsonl").symlink_to(source)
    for target in (source, tmp_path / "same.jsonl"):
        with pytest.raises(ConfigError, match="are one file"):
            recommend_file(make_recommender(), source, target, k=3)
    assert source.read_text() == '{"history": ["i1"]}\n'


def test_the_folder_of_the_output_is_made(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"history": []}\n')
    recommend_file(make_recommender(), tmp_path / "in.jsonl", tmp_path / "a" / "b" / "out.jsonl", k=1)
    assert (tmp_path / "a" / "b" / "out.jsonl").read_text().count("\n") == 1


def test_an_output_that_is_a_folder_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"history": []}\n')
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="out could not be written"):
        recommend_file(make_recommender(), tmp_path / "in.jsonl", tmp_path / "out", k=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out"]


def test_the_old_output_stays_whole_where_the_model_fails_half_way(tmp_path: Path) -> None:
    calls = 0

    def failing(prompt: tuple[int, ...], codes: tuple[int, ...]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > 400:
            raise ModelError("the model has gone.")
        return script(prompt, codes)

    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"history": []}\n' * 600)
    target.write_text("what was here before\n")
    with pytest.raises(ModelError, match="has gone"):
        recommend_file(make_recommender(failing), source, target, k=1)
    assert target.read_text() == "what was here before\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_line_may_limit_how_often_a_value_comes_and_a_share_needs_a_run(tmp_path: Path) -> None:
    lines = ['{"history": ["i0"], "at_most": {"genres": 1}}', '{"history": ["i0"], "at_most": {"genres": 0}}']
    answers, summary = serve(tmp_path, "\n".join(lines), k=9)
    assert len(answers[0]["items"]) == 2  # one comedy and one of the others
    assert "at most 0 items" in answers[1]["error"]
    assert summary.num_errors == 1
