"""A catalogue as an index of words: which titles, attribute values and flags a text can speak of.

I items. Built once per catalogue; every lookup is by normalised words (`words.normalise`). Titles are also
known without their article, before their colon and by what stands in brackets; values also by their plural and
by everyday words (`SYNONYMS`) where the catalogue has the value they stand for. A column of truth values is a flag: its
one value is its name ("vegan"), which the items have for which it is true.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from genrec.chat.words import singular_forms, words_of
from genrec.data.catalog import Catalog, are_truths, is_object

Words = tuple[str, ...]
_NOT_ATTRIBUTES = {"item_id", "title", "description", "image", "audio", "video", "imdb_id", "tmdb_id"}
_MAX_FACET_VALUES = 400  # a column with more different values is spoken of with "about …" only
_MIN_TAG_ITEMS = 2
_LONG_WORD = 5  # letters
_ARTICLES = {"the", "a", "an", "le", "la", "les", "il", "el", "der", "die", "das"}
_FLAG_VERB = re.compile(r"^(?:is|has)_", re.IGNORECASE)
_BRACKETS = re.compile(r"\(([^()]*)\)")
FUZZY_CUTOFF = 86.0  # rapidfuzz's ratio in percent; "termintor" / "terminator" is 95, "alien" / "aliens" 91

# An everyday word → the value that it stands for, in catalogues that have the value.
SYNONYMS: Mapping[str, str] = {
    "funny": "comedy",
    "hilarious": "comedy",
    "comedic": "comedy",
    "scary": "horror",
    "spooky": "horror",
    "romantic": "romance",
    "love story": "romance",
    "love stories": "romance",
    "rom com": "romance",
    "animated": "animation",
    "cartoon": "animation",
    "scifi": "sci fi",
    "science fiction": "sci fi",
    "kids": "children",
    "childrens": "children",
    "for children": "children",
    "family": "children",
    "suspenseful": "thriller",
    "suspense": "thriller",
    "documentaries": "documentary",
    "detective": "mystery",
    "gangster": "crime",
    "noir": "film noir",
}


@dataclass(frozen=True)
class Value:
    """One attribute value of the catalogue."""

    attribute: str
    value: str
    num_items: int


@dataclass(frozen=True, eq=False)
class CatalogueIndex:
    """Look-ups over one catalogue. Make one with `build`."""

    catalog: Catalog
    names: dict[Words, tuple[int, ...]]  # full titles → rows
    aliases: dict[Words, tuple[int, ...]]  # shorter forms of titles → rows, where no full title is written so
    facets: dict[Words, Value]
    topics: dict[Words, Value]  # values of open vocabularies, such as tags
    numbers: dict[str, NDArray[np.float64]]  # (I,) each, NaN where an item has none
    columns: dict[str, list[frozenset[str]]]  # attribute → values of every item
    flags: frozenset[str]  # attributes that are true or false

    @classmethod
    def build(cls, catalog: Catalog) -> CatalogueIndex:
        """Index a catalogue: seconds for a hundred thousand items."""
        names: defaultdict[Words, list[int]] = defaultdict(list)
        short: defaultdict[Words, list[int]] = defaultdict(list)
        lone: defaultdict[Words, list[int]] = defaultdict(list)
        for row, title in enumerate(catalog.titles):
            full = words_of(title)
            if full:
                names[full].append(row)
            for alias in _aliases(title, full):
                short[alias].append(row)
            if beginning := _lone_beginning(title):
                lone[beginning].append(row)
        short.update((words, rows) for words, rows in lone.items() if len(rows) == 1 and words not in short)
        numbers: dict[str, NDArray[np.float64]] = {}
        columns: dict[str, list[frozenset[str]]] = {}
        flags: set[str] = set()
        for name in catalog.table.columns:
            series = catalog.table[name]
            if name in _NOT_ATTRIBUTES:
                continue
            if series.dtype.is_numeric():
                numbers[name] = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
            else:
                columns[name] = [_cell_values(cell) for cell in series.to_list()]
                if are_truths(frozenset().union(*columns[name])):
                    flags.add(name)
                    columns[name] = [_flag_values(name, cell) for cell in columns[name]]
        facets, topics = _values(columns, flags, len(catalog))
        frozen = {words: tuple(rows) for words, rows in names.items()}
        aliases = {words: tuple(dict.fromkeys(rows)) for words, rows in short.items() if words not in frozen}
        return cls(catalog, frozen, aliases, facets, topics, numbers, columns, frozenset(flags))

    @cached_property
    def longest_name(self) -> int:
        """Words of the longest title or alias."""
        return max(map(len, (*self.names, *self.aliases)), default=0)

    @cached_property
    def longest_value(self) -> int:
        """Words of the longest attribute value."""
        return max(map(len, (*self.facets, *self.topics)), default=0)

    @cached_property
    def title_words(self) -> Counter[str]:
        """In how many titles a word stands."""
        return Counter(word for title in self.catalog.titles for word in set(words_of(title)))

    @cached_property
    def beginnings(self) -> dict[Words, tuple[int, ...]]:
        """Two and more words that titles begin with and that are none themselves → rows: "harry potter"."""
        found: defaultdict[Words, dict[int, None]] = defaultdict(dict)
        for full, rows in self.names.items():
            for words in (full, full[1:]) if full[0] in _ARTICLES else (full,):
                for size in range(2, len(words)):
                    found[words[:size]].update(dict.fromkeys(rows))
        return {words: tuple(rows) for words, rows in found.items()}

    def similar_title(self, text: str) -> tuple[int, ...]:
        """Rows of the title that is written most like a normalised text, or none that is close enough."""
        names = self._titles
        found = process.extractOne(text, names, scorer=fuzz.ratio, score_cutoff=FUZZY_CUTOFF)
        return () if found is None else self._rows_of(tuple(names[found[2]].split()))

    def _rows_of(self, words: Words) -> tuple[int, ...]:
        return self.names.get(words) or self.aliases.get(words, ())

    @cached_property
    def _titles(self) -> list[str]:
        return [" ".join(words) for words in (*self.names, *self.aliases) if len(" ".join(words)) > 4]

    def year(self, row: int) -> int | None:
        """The year of an item, where the catalogue has one."""
        years = self.numbers.get("year")
        return None if years is None or np.isnan(years[row]) else int(years[row])

    def shared(self, rows: Sequence[int], other: int) -> dict[str, list[str]]:
        """Attribute values that item `other` has in common with one of the items `rows`."""
        found: dict[str, list[str]] = {}
        for name, cells in self.columns.items():
            if both := sorted(cells[other] & frozenset().union(*(cells[row] for row in rows))):
                found[name] = both
        return found

    def facet_names(self) -> list[str]:
        """Attributes whose values can be asked for by name: the fewest different values first, flags last of all."""
        counts: defaultdict[str, set[str]] = defaultdict(set)
        for value in self.facets.values():
            counts[value.attribute].add(value.value)
        return sorted(counts, key=lambda name: (name in self.flags, len(counts[name])))

    def common_values(self, attribute: str, number: int) -> list[str]:
        """The values of an attribute that most items have."""
        values = {value.value: value.num_items for value in self.facets.values() if value.attribute == attribute}
        return sorted(values, key=lambda value: (-values[value], value))[:number]


def _lone_beginning(title: str) -> Words:
    """ "Birdman" of "Birdman: Or …": a long word before a colon, which says enough where one title begins so."""
    before, colon, _ = _BRACKETS.sub(" ", title).partition(":")
    words = words_of(before)
    return words if colon and len(words) == 1 and len(words[0]) >= _LONG_WORD else ()


def _aliases(title: str, full: Words) -> Iterable[Words]:
    """Shorter ways to say a title, without one-word beginnings (`_lone_beginning`)."""
    forms = [words_of(inside.removeprefix("a.k.a. ")) for inside in _BRACKETS.findall(title)]
    outside = _BRACKETS.sub(" ", title)
    forms.append(words_of(outside))
    before, colon, _ = outside.partition(":")
    if colon and len(words_of(before)) > 1:
        forms.append(words_of(before))
    forms += [words[1:] for words in (full, *forms) if len(words) > 1 and words[0] in _ARTICLES]
    return {words for words in forms if words and words != full and not (len(words) == 1 and words[0].isdigit())}


def _cell_values(cell: object) -> frozenset[str]:
    if cell is None:
        return frozenset()
    parts = cell if isinstance(cell, list) else [cell]
    return frozenset(str(part) for part in parts if part is not None and str(part) and not is_object(part))


def flag_words(name: str) -> str:
    """What the items are for which a column of truth values is true: "vegan" of `is_vegan`."""
    return _FLAG_VERB.sub("", name).replace("_", " ").strip()


def _flag_values(name: str, cell: frozenset[str]) -> frozenset[str]:
    return frozenset({flag_words(name)} if any(part.casefold() == "true" for part in cell) else ())


def _values(
    columns: Mapping[str, Sequence[frozenset[str]]], flags: Collection[str], num_items: int
) -> tuple[dict[Words, Value], dict[Words, Value]]:
    """Values by their words: those of small vocabularies, and those of open ones (tags) that several items have."""
    facets: dict[Words, Value] = {}
    topics: dict[Words, Value] = {}
    for name, cells in columns.items():
        counts: defaultdict[str, int] = defaultdict(int)
        for cell in cells:
            for part in cell:
                counts[part] += 1
        if name in flags:
            counts.setdefault(flag_words(name), 0)  # what nothing is can be asked for, too
        if not counts or len(counts) > max(num_items / 2, 8):
            continue  # nearly every item its own: an id, not an attribute
        closed = name != "tags" and len(counts) <= _MAX_FACET_VALUES
        for part, count in counts.items():
            if not closed and count < _MIN_TAG_ITEMS:
                continue
            for words in _spoken(part):
                (facets if closed else topics).setdefault(words, Value(name, part, count))
    by_words = {" ".join(words): value for words, value in facets.items()}
    for spoken, meant in SYNONYMS.items():
        if meant in by_words:
            facets.setdefault(tuple(spoken.split()), by_words[meant])
    return facets, topics


def _spoken(value: str) -> Iterable[Words]:
    words = words_of(value)
    if not words:
        return
    yield words
    yield (*words[:-1], words[-1] + "s")
    if words[-1].endswith(("o", "s", "x", "z", "ch", "sh")):
        yield (*words[:-1], words[-1] + "es")
    if words[-1].endswith("y"):
        yield (*words[:-1], words[-1][:-1] + "ies")
    for form in singular_forms(words[-1])[1:]:
        yield (*words[:-1], form)
