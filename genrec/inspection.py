"""`genrec inspect`: what a run holds, and what an item looks like to the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from genrec.data.catalog import Catalog
from genrec.run import Run, StageReport
from genrec.tokenizers.codes import SemanticIds
from genrec.vocabulary import sid_token

_NEIGHBOURS = 5


def inspect_run(run: Run) -> StageReport:
    """Which stages are finished, with the figures that each reported."""
    stages = run.stages
    facts = {
        name: {"config": record.config, "seconds": record.seconds, "report": record.report}
        for name, record in stages.items()
    }
    words = [f"{run.path}: {len(stages)} finished stage(s)"]
    for name, record in stages.items():
        plain = {key: value for key, value in record.report.items() if isinstance(value, str | int | float)}
        figures = ", ".join(f"{key} {_figure(value)}" for key, value in list(plain.items())[:6])
        words.append(f"  {name:16} {record.seconds:8.1f} s  {figures}")
    words += [f"  {entry['when']}  {entry['change']}: {_counts(entry['facts'])}" for entry in run.amendments]
    return StageReport("inspect", facts, words)


def inspect_item(run: Run, item_id: str) -> StageReport:
    """An item's record, its codes, and the items that share each prefix of its semantic ID.

    Raises UnknownItemError where the catalogue does not have it.
    """
    catalog = Catalog.load(run)
    row = int(catalog.indices([item_id])[0])
    semantic_ids = SemanticIds.load(run, catalog=catalog)
    codes = semantic_ids.codes
    own = codes[row]
    record = {key: value for key, value in catalog.table.row(row, named=True).items() if value not in (None, [])}
    tokens = [sid_token(level, int(code)) for level, code in enumerate(own)]
    words = [f"{catalog.titles[row]}  ({item_id})"]
    words += [f"  {name}: {_plain(value)}" for name, value in record.items() if name not in {"item_id", "title"}]
    words.append(f"  semantic ID: {' '.join(tokens)}")
    prefixes: list[dict[str, Any]] = []
    for length in range(len(own), 0, -1):
        same = np.flatnonzero((codes[:, :length] == own[:length]).all(axis=1))
        others = [int(item) for item in same if item != row]
        titles = [catalog.titles[item] for item in others[:_NEIGHBOURS]]
        prefixes.append(
            {
                "prefix": tokens[:length],
                "num_items": len(same),
                "neighbours": [catalog.item_ids[item] for item in others[:_NEIGHBOURS]],
            }
        )
        shown = "; ".join(titles) if titles else "nobody else"
        more = f"; … {len(others) - len(titles)} more" if len(others) > len(titles) else ""
        words.append(f"  {' '.join(tokens[:length])}: {shown}{more}")
    facts = {"item_id": item_id, "record": record, "codes": own.tolist(), "prefixes": prefixes}
    return StageReport("inspect", facts, words)


def _counts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items() if isinstance(value, int | str))


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
