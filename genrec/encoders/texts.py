"""From the catalogue to one text per item: the fields that are read, or a template of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from genrec.config import EmbedConfig
from genrec.data.catalog import Catalog
from genrec.errors import ConfigError


def item_texts(catalog: Catalog, config: EmbedConfig) -> list[str | None]:
    """One text per item, (I,), None where it is empty: by `text_template` if there is one, else by `text_fields`.

    Raises ConfigError where the catalogue has none of the fields, or the template names a column that it does not
    have or cannot be rendered.
    """
    if config.text_template is None:
        return [text or None for text in catalog.texts(config.text_fields)]
    # What items say is data, put in as it is: only the template itself is a program, and it runs in a sandbox.
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_printed)
    columns = ", ".join(catalog.table.columns)
    try:
        template = environment.from_string(config.text_template)
        return [template.render(_cells(row)).strip() or None for row in catalog.table.iter_rows(named=True)]
    except UndefinedError as error:
        raise ConfigError(
            f"text_template {config.text_template!r}: {error}.", f"The catalogue has the columns {columns}."
        ) from error
    except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise ConfigError(
            f"text_template {config.text_template!r} cannot be rendered: {error}.",
            f"Write it in Jinja2, as in '{{{{ title }}}}. {{{{ description }}}}', with the columns {columns}.",
        ) from error


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a template sees it. An id that stands for a title that is not known is no text (`Catalog.texts`)."""
    return {name: "" if name == "title" and value == row["item_id"] else _present(value) for name, value in row.items()}


def _present(value: Any) -> Any:
    """A missing cell is an empty text, so that `{% if brand %}` and every filter work on it."""
    return "" if value is None else value


def _printed(value: Any) -> Any:
    """How a value is written: a list as `Makeup, Nails`."""
    return ", ".join(str(part) for part in value) if isinstance(value, list) else value
