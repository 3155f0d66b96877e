"""What the catalogue says of an item, and what it has in common with what a user told: all that replies may claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genrec.chat.catalogue_index import CatalogueIndex, flag_words
from genrec.data.catalog import is_object

_MAX_VALUES = 4
_MAX_REASONS = 2


@dataclass(frozen=True)
class Reason:
    """An item that the user told, and the attribute values that it shares with the recommended one."""

    row: int
    shared: dict[str, list[str]]


def facts_of(index: CatalogueIndex, row: int) -> dict[str, str | float | bool | list[str]]:
    """The attributes of an item by name, without empty ones."""
    facts: dict[str, str | float | bool | list[str]] = {}
    for name, numbers in index.numbers.items():
        if numbers[row] == numbers[row]:  # not NaN
            facts[name] = int(numbers[row]) if float(numbers[row]).is_integer() else float(numbers[row])
    record = index.catalog.table.row(row, named=True)
    for name in index.columns:
        value = record[name]
        if value in (None, "", []):
            continue
        if name in index.flags:
            facts[name] = bool(index.columns[name][row])
        else:
            facts[name] = [str(one) for one in value] if isinstance(value, list) else str(value)
    return facts


def fact_line(index: CatalogueIndex, row: int, *, everything: bool = False) -> str:
    """The facts in a line: "1979, Horror, Sci-Fi"; with their names where everything is told. Objects are no words."""
    parts = []
    told = {"year", "price", *index.facet_names()[:2]}
    for name, value in facts_of(index, row).items():
        if not everything and name not in told:
            continue
        if isinstance(value, bool):
            words = flag_words(name)
            parts += [f"{words} {'yes' if value else 'no'}"] if everything else [words] * value
            continue
        values = value if isinstance(value, list) else [f"{value:g}" if isinstance(value, float) else str(value)]
        values = [one for one in values if not is_object(one)]
        text = ", ".join(values if everything else values[:_MAX_VALUES])
        parts += [f"{name.replace('_', ' ')} {text}" if everything else text] if text else []
    return ("; " if everything else ", ").join(parts)


def reasons(index: CatalogueIndex, basis: Sequence[int], row: int) -> list[Reason]:
    """The told items that share most with an item, newest first among equals; none where nothing is shared."""
    found = [Reason(told, index.shared([told], row)) for told in reversed(basis) if told != row]
    found = [reason for reason in found if reason.shared]
    found.sort(key=lambda reason: -sum(map(len, reason.shared.values())))
    return found[:_MAX_REASONS]
