"""What pydantic found wrong with values, in words that name no class of ours: key, what was found, what was expected.

A value of several kinds (a number or a list) is refused by pydantic once per kind, under names of its own between the
keys. Here it is refused once. Only what leads through the given values is a key; where a kind got further into them
than another, its word counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_MAX_SHOWN = 80
_WHOLE, _NUMBER, _KEYS = "a whole number", "a number", "keys with values"
# By the type of pydantic's error; in braces what its context says.
_EXPECTED = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "a finite number",
    "string_type": "text",
    "string_unicode": "text of whole letters",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "invalid_key": "a key that is text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": _KEYS,
    "model_type": _KEYS,
    "model_attributes_type": _KEYS,
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_too_short": "at least {min_length} letters",
    "string_too_long": "at most {max_length} letters",
}


def problems_of(error: ValidationError, values: Any) -> list[str]:
    """Every problem of the values in a few words, such as `epochs: found 'many', expected a whole number`."""
    wrong: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for problem in error.errors(include_url=False):
        wrong.setdefault(_keys(problem, values), []).append(dict(problem))
    deepest = [
        keys for keys in wrong if not any(len(other) > len(keys) and other[: len(keys)] == keys for other in wrong)
    ]
    return [": ".join(part for part in (".".join(keys), _words(wrong[keys])) if part) for keys in deepest]


def known_keys(error: ValidationError, values: Any, kind: type[BaseModel]) -> str:
    """The keys that are known where a key is unknown or missing; those of the whole where the keys are right."""
    places: dict[tuple[str, ...], type[BaseModel]] = {}
    for problem in error.errors(include_url=False):
        if problem["type"] in ("extra_forbidden", "missing"):
            above = _keys(problem, values)[:-1]
            places.setdefault(above, _at(kind, above) or kind)
    lists = [
        f"Known keys{' of ' if above else ''}{'.'.join(above)}: {', '.join(place.model_fields)}."
        for above, place in (places or {(): kind}).items()
    ]
    return " ".join(lists)


def _at(kind: type[BaseModel], keys: Sequence[str]) -> type[BaseModel] | None:
    for key in keys:
        field = kind.model_fields.get(key)
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        found = next((one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if found is None:
            return None
        kind = found
    return kind


def _keys(problem: Mapping[str, Any], values: Any) -> tuple[str, ...]:
    """The keys and places of a list that lead to what is wrong, without pydantic's names of kinds between them."""
    keys: list[str] = []
    for part in problem["loc"]:
        inside = isinstance(values, Mapping) and part in values
        if inside or (isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)):
            keys.append(str(part))
            values = values[part]
    return (*keys, str(problem["loc"][-1])) if problem["type"] == "missing" else tuple(keys)


def _words(problems: list[dict[str, Any]]) -> str:
    first = problems[0]
    if first["type"] == "extra_forbidden":
        return "there is no such key"
    if first["type"] == "missing":
        return "is missing"
    if first["type"] == "value_error":  # raised by a check of ours, which says it all
        return str(first["ctx"]["error"])
    return f"found {_shown(first['input'])}, expected {' or '.join(dict.fromkeys(map(_expected, problems)))}"


def _expected(problem: Mapping[str, Any]) -> str:
    known = _EXPECTED.get(problem["type"])
    if known is None:
        return str(problem["msg"])
    limits = problem.get("ctx", {})
    whole = {name: int(limit) for name, limit in limits.items() if isinstance(limit, float) and limit.is_integer()}
    return known.format(**(limits | whole))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
