"""A second opinion on what `genrec explain` wrote in English: every sentence, against the run's own tables.

    python eval/check_explanations.py RUN pairs.jsonl out.jsonl

Shares no code with genrec: it reads Parquet, NumPy and JSON for itself, parses the texts with a grammar of its own and
counts again. What it cannot parse counts as unsupported. Exit status 1 where a sentence is unsupported.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

PEOPLE = re.compile(r"(\d+) of (\d+) people who chose <(\d+)> also chose <(\d+)>\.")
CLOSE = re.compile(r"In content, <(\d+)> is close to ((?:<\d+>(?:, | and )?)+)\.")
SHARED = re.compile(r"((?:<\d+>(?:, | and )?)+) have the same ([\w ]+): ")
READER = re.compile(r"This is for those who chose ((?:<\d+>(?:, | and )?)+)\.")
COUNT = re.compile(r"(\d+) of the (\d+) items that you chose have the ")
RECORD = re.compile(r"The ([\w ]+?) of <(\d+)>: ")
HEADLINE = re.compile(r"<(\d+)>: ")
TAGGED = re.compile(r"You tagged <(\d+)> ")
WROTE = re.compile(r"You wrote about <(\d+)>: ")
EMPTY = [
    re.compile(pattern)
    for pattern in (
        r"Why <\d+>\?",
        r"<\d+> may be for you, and here is why\.",
        r"Perhaps have a look at it!",
    )
]
SINGULAR = {"categories": "category", "genres": "genre", "brands": "brand", "actors": "actor", "directors": "director"}
NO_VALUES = {"item_id", "title", "description", "image", "audio", "video", "tags"}
MOST_READINGS = 64  # of a sentence whose titles several items have
NOTHING = {"", "unknown", "n/a", "none", "null", "other", "others", "various", "misc", "generic"}


class UnsupportedError(Exception):
    """A sentence that the tables do not bear out, or that no rule parses."""


@dataclass
class Tables:
    """What the run's files say."""

    titles: dict[str, str]
    descriptions: dict[str, str]
    values: dict[str, set[tuple[str, str]]]  # item → (column in the singular, value)
    chosen_by: dict[str, set[str]]  # item → users of the training split
    row: dict[str, int]
    vectors: np.ndarray | None  # None: no text was embedded, and nothing can be said to be close by its text
    tags: dict[tuple[str, str], set[str]]  # (user, item) → what was written
    reviews: dict[tuple[str, str], set[str]]  # of training interactions


def squeeze(text: str) -> str:
    """One space where there was any white space."""
    return re.sub(r"\s+", " ", text).strip()


def read_run(folder: Path, tags: Path | None) -> Tables:
    """Read items, training interactions, vectors and, where given, tags."""
    items = pl.read_parquet(folder / "items.parquet")
    titles = {item: squeeze(title) for item, title in items.select("item_id", "title").iter_rows()}
    described = items.select("item_id", "description").iter_rows() if "description" in items.columns else []
    values: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for column, kind in items.schema.items():
        if column in NO_VALUES or kind not in (pl.String, pl.List(pl.String)):
            continue
        for item, cell in items.select("item_id", column).iter_rows():
            for value in cell if isinstance(cell, list) else [cell]:
                if value is not None and squeeze(value).lower() not in NOTHING:
                    values[item].add((SINGULAR.get(column, column.replace("_", " ")), squeeze(value)))
    train = pl.read_parquet(folder / "splits.parquet").filter(pl.col("split") == "train")
    chosen_by: dict[str, set[str]] = defaultdict(set)
    for user, item in train.select("user_id", "item_id").iter_rows():
        chosen_by[item].add(user)
    file = folder / "embeddings" / "text.npy"
    vectors = np.load(file, allow_pickle=False).astype(np.float64) if file.is_file() else None
    if vectors is not None:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    said: dict[tuple[str, str], set[str]] = defaultdict(set)
    if tags is not None:
        table = pl.read_csv(tags, infer_schema=False).rename({"userId": "user_id", "movieId": "item_id"}, strict=False)
        for user, item, tag in table.select("user_id", "item_id", "tag").iter_rows():
            if user in chosen_by[item]:
                said[user, item].add(squeeze(tag))
    wrote: dict[tuple[str, str], set[str]] = defaultdict(set)
    interactions = pl.read_parquet(folder / "interactions.parquet", columns=["user_id", "item_id", "review"])
    for user, item, review in train.join(interactions, on=["user_id", "item_id"])[interactions.columns].iter_rows():
        wrote[user, item] |= {squeeze(review)} if review else set()
    return Tables(
        titles,
        {item: squeeze(text) for item, text in described if text},
        values,
        chosen_by,
        {item: n for n, item in enumerate(items["item_id"])},
        vectors,
        said,
        wrote,
    )


class Reader:
    """Parses one text about one pair; `item` None: about the history alone."""

    def __init__(self, tables: Tables, user: str, history: list[str], item: str | None) -> None:
        self.tables, self.user, self.history, self.item = tables, user, history, item
        self.names = list(dict.fromkeys([*([] if item is None else [item]), *history]))

    def sentences(self, text: str) -> Iterator[str]:
        """The kind of every sentence, in order. Raises UnsupportedError at the first that is wrong."""
        for number, name in sorted(enumerate(self.names), key=lambda one: -len(self.tables.titles[one[1]])):
            text = text.replace(f"“{self.tables.titles[name]}”", f"<{number}>")
        while text := re.sub(r"^[\s-]+", "", text):
            kind, length = self.sentence(text) if self.item is not None else self.sentence_of_taste(text)
            yield kind
            text = text[length:]

    def sentence(self, text: str) -> tuple[str, int]:
        """Kind and length of the first sentence."""
        for pattern in EMPTY:
            if found := pattern.match(text):
                return "empty", found.end()
        if found := PEOPLE.match(text):
            both, total = int(found[1]), int(found[2])
            self.people(both, total, self.same_title(found[3]), self.same_title(found[4]))
            return "people", found.end()
        if found := CLOSE.match(text):
            self.close(self.same_title(found[1]), re.findall(r"<(\d+)>", found[2]))
            return "close", found.end()
        if found := SHARED.match(text):
            numbers = re.findall(r"<(\d+)>", found[1])
            return "shared", found.end() + self.shared(numbers, found[2], text[found.end() :])
        if found := READER.match(text):
            for number in re.findall(r"<(\d+)>", found[1]):
                need(any(item in self.history for item in self.same_title(number)), "not in the history")
            return "reader", found.end()
        if found := TAGGED.match(text):
            return "tagged", self.own(text, found.end(), self.written(self.tables.tags, found[1]), whole=True)
        if found := WROTE.match(text):
            return "wrote", self.own(text, found.end(), self.written(self.tables.reviews, found[1]), whole=False)
        if found := RECORD.match(text):
            return "record", found.end() + self.record(found[2], found[1], text[found.end() :])
        if found := HEADLINE.match(text):
            return "headline", found.end() + self.record(found[1], None, text[found.end() :])
        if self.begins_description(self.with_titles(text)):
            return "described", len(text)
        raise UnsupportedError(f"no rule reads: {text[:120]}")

    def sentence_of_taste(self, text: str) -> tuple[str, int]:
        """Kind and length of the first sentence of a text about the history: counts and nothing else."""
        if found := COUNT.match(text):
            return "count", found.end() + self.count(int(found[1]), int(found[2]), text[found.end() :])
        raise UnsupportedError(f"no rule reads: {text[:120]}")

    def with_titles(self, text: str) -> str:
        """A text as it was written, with titles in place of their numbers."""
        for number, name in enumerate(self.names):
            text = text.replace(f"<{number}>", f"“{self.tables.titles[name]}”")
        return text

    def same_title(self, number: str) -> list[str]:
        """The items of the pair that the title may mean."""
        title = self.tables.titles[self.names[int(number)]]
        return [name for name in self.names if self.tables.titles[name] == title]

    def people(self, both: int, total: int, one: list[str], other: list[str]) -> None:
        """`both` of `total`: counted over the training interactions, and the sentence is about the item."""
        by = self.tables.chosen_by
        right = any(
            len(by[a] & by[b]) == both and len(by[a]) == total and self.item in (a, b)
            for a in one
            for b in other
            if a != b
        )
        need(right and both >= 2, f"{both} of {total} is not what the interactions say")

    def close(self, one: list[str], others: list[str]) -> None:
        """Each of the others is in the history and among the 1 % of the items with the largest cosine."""
        need(self.item in one, "not about the item")
        assert self.item is not None  # what is in `one` has a name
        need(self.tables.vectors is not None, "the run has no vectors of texts")
        assert self.tables.vectors is not None
        row = self.tables.row[self.item]
        cosines = self.tables.vectors @ self.tables.vectors[row]
        cosines[row] = -np.inf
        limit = np.sort(cosines)[-max(1, round(len(cosines) / 100))]
        for number in others:
            rows = [self.tables.row[item] for item in self.same_title(number) if item in self.history]
            need(any(cosines[other] >= limit - 1e-6 for other in rows), "not among the closest items")

    def shared(self, numbers: list[str], column: str, rest: str) -> int:
        """All items have all values; how long the values are, with their full stop."""
        # Two items may have one title; an item shares nothing with itself.
        need(len({item for number in numbers for item in self.same_title(number)}) > 1, "nothing is shared")
        column = SINGULAR.get(column, column)
        # A title may mean either of two items, but one of them has to have all the values.
        for meant in itertools.islice(itertools.product(*map(self.same_title, numbers)), MOST_READINGS):
            records = [{v for c, v in self.tables.values[item] if c == column} for item in meant]
            with contextlib.suppress(UnsupportedError):
                return self.listed(set.intersection(*records), rest)
        raise UnsupportedError(f"not what all records say: {rest[:80]}")

    def count(self, some: int, total: int, rest: str) -> int:
        """How many different items of the history have the value."""
        different = set(self.history)
        for column, value in {one for item in different for one in self.tables.values[item]}:
            having = sum((column, value) in self.tables.values[item] for item in different)
            for written in (f"{column} {value}.", f"{column} “{value}”."):
                if rest.startswith(written) and (having, len(different)) == (some, total):
                    return len(written)
        raise UnsupportedError(f"{some} of {total} is not what the history says")

    def record(self, number: str, column: str | None, rest: str) -> int:
        """The item has all values, in the column or, in a headline, in any; how long they are, with what ends them."""
        need(self.item is not None and self.item in self.same_title(number), "not about the item")
        wanted = None if column is None else SINGULAR.get(column, column)
        values = {v for c, v in self.tables.values[str(self.item)] if wanted in (None, c)}
        return self.listed(values, rest, end=r"\.(\s|$)" if column else r"$")

    def written(self, texts: dict[tuple[str, str], set[str]], number: str) -> set[str]:
        """What the user wrote about the item of the history with this title."""
        items = [item for item in self.same_title(number) if item in self.history]
        return {text for item in items for text in texts[self.user, item]}

    def own(self, text: str, start: int, written: set[str], *, whole: bool) -> int:
        """Where `“…”.` ends that begins at `start` and holds a whole text, or whole sentences of one."""
        for end in (found.end() for found in re.finditer(r"\.(?=\s|$)", text)):
            said = self.with_titles(text[start:end])
            if said[:1] != "“" or said[-2:] != "”.":
                continue
            words = said[1:-2]
            if words in written if whole else any(in_whole_sentences(words, one) for one in written):
                return end
        raise UnsupportedError(f"not what the user wrote: {text[:80]}")

    def begins_description(self, words: str) -> bool:
        """Whether the item's description begins with these words, up to the end of a sentence."""
        description = self.tables.descriptions.get(str(self.item), "")
        ends = words[-1:] in ".!?…" and description[len(words) :][:1] == " "
        return description.startswith(words) and (words == description or ends)

    @staticmethod
    def listed(values: set[str], rest: str, *, end: str = r"\.(\s|$)") -> int:
        """Length of `A, B and C.` at the beginning of `rest`, all of them among `values`, with the full stop."""
        ends = {0}
        done = set()
        while ends:
            start = ends.pop()
            done.add(start)
            for value in values:
                for written in (value, f"“{value}”"):
                    if not rest[start:].startswith(written):
                        continue
                    after = start + len(written)
                    if found := re.match(end, rest[after:]):
                        return after + len(found[0].rstrip())
                    ends |= {after + len(gap) for gap in (", ", " and ") if rest[after:].startswith(gap)} - done
        raise UnsupportedError(f"not what all records say: {rest[:80]}")


def in_whole_sentences(words: str, text: str) -> bool:
    """Whether the words are sentences of the text, from the beginning of one to the end of one.

    A full stop or exclamation marks may be left out; a question mark and dots say something and may not.
    """
    starts = [0, *(found.end() for found in re.finditer(r"[.!?…]\s+", text))]
    end = re.compile(r"[.!]*(\s|$)" if words[-1:] in ".!?…" else r"(?!\.\.)[.!]+(\s|$)|$")
    return any(text.startswith(words, at) and end.match(text, at + len(words)) for at in starts)


def need(condition: bool, problem: str) -> None:
    """Raise UnsupportedError unless the condition holds."""
    if not condition:
        raise UnsupportedError(problem)


def read_answer(tables: Tables, pair: dict[str, Any], answer: dict[str, Any]) -> Iterator[str]:
    """The kinds of the sentences of an answer. One without an item is a text about taste, whatever the line asked."""
    if answer["item_id"] not in (None, pair.get("item_id")) or answer["user_id"] != pair.get("user_id"):
        raise UnsupportedError("the answer to another line")
    yield from Reader(tables, str(pair.get("user_id")), pair["history"], answer["item_id"]).sentences(answer["text"])


def main() -> int:
    """Read the command line and the files, check every line, print the counts."""
    parser = argparse.ArgumentParser(description="Check explanations against a run's tables, without genrec.")
    for name in ("run", "pairs", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--tags", type=Path)
    parser.add_argument("--show", type=int, default=10, help="problems to print")
    given = parser.parse_args()
    tables = read_run(given.run, given.tags)
    counts, problems = Counter[str](), []
    pairs, answers = (path.read_bytes().splitlines() for path in (given.pairs, given.output))
    if len(pairs) != len(answers):
        problems.append(f"{len(pairs)} lines in, {len(answers)} lines out")
    for number, (line, told) in enumerate(zip(pairs, answers, strict=False), start=1):
        answer = json.loads(told)
        if "error" in answer:
            counts["errors"] += 1
            problems.append(f"line {number}: {answer['error']}")
            continue
        if not answer.get("text"):
            counts["silent"] += 1
            continue
        counts["texts"] += 1
        try:
            for kind in read_answer(tables, json.loads(line), answer):
                counts[f"sentences: {kind}"] += 1
        except UnsupportedError as problem:
            counts["unsupported"] += 1
            problems.append(f"line {number}: {problem}")
    print("\n".join(f"{count:8,}  {name}" for name, count in sorted(counts.items())))
    print("\n".join(problems[: given.show]) if problems else "every sentence is supported")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
