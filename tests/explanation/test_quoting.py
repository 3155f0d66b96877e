"""Where sentences end, and what is a whole one."""

from __future__ import annotations

import pytest

from genrec.explanation.quoting import sentences, unstopped, whole_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [""]),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Mr. A. met Dr. No. Then Lt. B left.", ["Mr. A. met Dr. No.", "Then Lt. B left."]),
        ("Was it good? No. 1 of all. No. It broke.", ["Was it good?", "No. 1 of all.", "No.", "It broke."]),
        ("It works... not. It works… No.", ["It works... not.", "It works… No."]),
        ("Machines vs. People etc. and more. End.", ["Machines vs. People etc. and more.", "End."]),
    ],
)
def test_a_sentence_ends_where_another_begins(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("sentence", "bare"),
    [("It works.", "It works"), ("It works!!", "It works"), ("Does it?", "Does it?"), ("It is...", "It is...")],
)
def test_only_a_full_stop_can_be_left_out(sentence: str, bare: str) -> None:
    assert unstopped(sentence) == bare
    assert whole_sentences(f"Well. {sentence}", bare)
    assert whole_sentences(f"Well. {sentence}", f"Well. {sentence}")
    assert not whole_sentences(f"Well {sentence}", bare)


@pytest.mark.parametrize(("text", "words"), [("Does it? No.", "Does it"), ("It works... Not.", "It works")])
def test_a_question_without_its_mark_and_words_before_dots_are_no_sentences(text: str, words: str) -> None:
    assert not whole_sentences(text, words)
