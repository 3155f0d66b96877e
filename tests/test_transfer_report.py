"""What a transfer's table means in words, on results made by hand."""

from __future__ import annotations

import pytest

from genrec.report import Estimate, MethodResult
from genrec.transfer_report import Difference, TransferResult, TransferRow, markdown, terminal_lines, verdicts


def row(name: str, ndcg: float) -> TransferRow:
    value = Estimate(ndcg, ndcg - 0.01, ndcg + 0.01)
    return TransferRow(MethodResult(name, {"ndcg@10": value, "recall@10": value}, 0.5, None, None, {}, [], 1.0))


def result(low: float, high: float, *, shared_users: int = 0) -> TransferResult:
    return TransferResult(
        source="runs/a",
        target="runs/b",
        split="test",
        num_cases=100,
        num_items=500,
        headline=10,
        epochs=3,
        shared_users=shared_users,
        num_users=100,
        shared_items=0,
        rows=[row("zero-shot", 0.1), row("popularity", 0.2)],
        differences=[Difference("zero-shot", "popularity", Estimate((low + high) / 2, low, high))],
        skipped={"hybrid": "there are no text vectors."},
    )


@pytest.mark.parametrize(
    ("low", "high", "first", "second"),
    [
        (0.01, 0.03, "Zero-shot is above popularity", "zero-shot is above popularity by 0.0200"),
        (-0.03, -0.01, "Zero-shot is below popularity", "zero-shot is below popularity by 0.0200"),
        (-0.01, 0.03, "Zero-shot is no better than popularity", "cannot be told apart"),
    ],
)
def test_the_first_sentence_says_what_zero_shot_is_worth(low: float, high: float, first: str, second: str) -> None:
    sentences = verdicts(result(low, high))
    assert sentences[0].startswith(first)
    assert second in sentences[1]


def test_what_is_missing_chance_and_common_users_are_said() -> None:
    sentences = verdicts(result(-0.1, -0.05))
    assert "hybrid is not in the table: there are no text vectors." in sentences
    assert any("about 0.0200 at 10" in line and "3 times at most" in line for line in sentences)  # 10 of 500 items
    assert not any("have an id that the source has" in line for line in sentences)
    assert any("40 of the target's 100 users" in line for line in verdicts(result(-0.1, 0.1, shared_users=40)))


def test_tables_show_the_best_first_and_a_dash_for_what_was_not_measured() -> None:
    found = result(-0.1, -0.05)
    lines = terminal_lines(found)
    assert [line.split()[0] for line in lines[2:4]] == ["popularity", "zero-shot"]
    table = [line for line in markdown(found, plot="p.svg").splitlines() if line.startswith("| ")]
    assert table[2] == "| popularity | 0.2000 [0.1900, 0.2100] | 0.2000 [0.1900, 0.2100] | 50.0% | – | – | – |"
    assert "](p.svg)" in markdown(found, plot="p.svg")
