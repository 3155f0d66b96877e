"""Items that come, go and change while a run is in use: `genrec items add | remove | update`. Nothing is trained.

A new item is a new row at the end of the catalogue. It is encoded by the run's encoders, gets codes from the
frozen tokenizer that nobody else has, and is in the next version of the trie. A removed item keeps its row and its
codes, so it may stand in histories and come back as what it was; it only leaves the trie. Nobody's semantic ID
ever changes, unless an update asks for it. All files change together (`journal`), the manifest last.

R rows of the catalogue, N rows of a change, L levels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.config import EmbedConfig, TokenizeConfig, build_config
from genrec.data.catalog import REMOVED_ITEMS, Catalog, removed_items
from genrec.data.changes import read_changed_items, read_new_items, read_removed_ids, with_rows
from genrec.data.dialogues import STAGE as DIALOGUES
from genrec.data.dialogues import dialogues_file, forget_items
from genrec.data.interactions import read_run_table
from genrec.data.sources.records import Item
from genrec.data.splits import forget
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import content_modalities, problem_words, problems_file, read_problems, write_problems
from genrec.encoders.extend import ExtendedVectors, extend_embeddings
from genrec.files import atomic_file
from genrec.journal import change_together
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport, writes
from genrec.tokenizers.codes import SemanticIds
from genrec.tokenizers.files import tokenizer_checksum
from genrec.tokenizers.placement import place_items
from genrec.tokenizers.stage import ItemVectors, load_fusion, load_tokenizer, policy_for_new_items
from genrec.trie import ItemTrie

_LAST = ("trie/CURRENT", "manifest.json")  # moved into place after everything that they speak of


@dataclass(frozen=True, eq=False)
class _State:
    """A run's catalogue before a change, or after it."""

    catalog: Catalog
    removed: NDArray[np.bool_]  # (R,)
    ids: SemanticIds

    @classmethod
    def load(cls, run: Run) -> _State:
        for stage in ("ingest", "embed", "tokenize", "trie"):
            run.require(stage)
        catalog = Catalog.load(run)
        return cls(catalog, removed_items(run, catalog=catalog), SemanticIds.load(run, catalog=catalog))


@writes("genrec items add")
def add_items(
    run: Run,
    file: Path,
    *,
    when: str,
    precomputed: Mapping[str, Path] | None = None,
    progress: Progress = SILENT,
) -> StageReport:
    """Add the items of a table, recommendable at once. Items that were removed come back with their old IDs.

    `precomputed` has vectors of the new items for modalities that came from files; without one they are missing
    there. `when` (ISO 8601) goes into the manifest. Raises BadRowsError naming every bad row, DataError where
    no semantic ID is free, RunError where the run is not tokenized or is being changed; then nothing has changed.
    """
    started = time.monotonic()
    with change_together(run.path, last=_LAST) as staging:
        before = _State.load(run)
        items = read_new_items(
            file,
            before.catalog,
            removed=before.removed,
            title_required=_title_required(run),
            media_root=_media_root(run),
            progress=progress,
        )
        rows = _rows_of(items, before.catalog)
        catalog = Catalog(with_rows(before.catalog.table, dict(zip(rows.tolist(), items, strict=True))))
        extended = extend_embeddings(
            run,
            before.catalog,
            catalog,
            encode=dict.fromkeys(content_modalities(_embed_config(run)), rows),
            precomputed=precomputed or {},
            given=rows,
            progress=progress,
        )
        embeddings = extended.embeddings
        fresh = rows[rows >= len(before.catalog)]
        ids, num_moved = _place(run, before.ids, catalog, embeddings, rows=fresh)
        removed = np.concatenate([before.removed, np.zeros(len(fresh), np.bool_)])
        removed[rows] = False
        missing = {name: int((~made.mask[rows]).sum()) for name, made in embeddings.items()}
        num_again = len(rows) - len(fresh)
        facts = {"num_added": len(rows), "num_again": num_again, "num_moved": num_moved, "missing": missing}
        again = f", {num_again:,} of them again, with their old IDs" if num_again else ""
        words = [f"Added {len(rows):,} items{again}."]
        if num_moved:
            words.append(f"{num_moved:,} of them got the nearest free ID: others have the codes that they asked for.")
        words += [f"{name}: {count:,} of them have no vector." for name, count in missing.items() if count]
        words += _left_out_words(extended)
        report = StageReport("items add", facts, words)
        after = _State(catalog, removed, ids)
        return _finish(run, staging, before, after, extended, report=report, when=when, started=started)


@writes("genrec items remove")
def remove_items(run: Run, file: Path, *, when: str) -> StageReport:
    """Remove the items whose ids stand in a file, one a line: they are recommended to nobody any more.

    Raises BadRowsError naming every line that cannot be followed, TrieError where no item would be left.
    """
    started = time.monotonic()
    with change_together(run.path, last=_LAST) as staging:
        before = _State.load(run)
        item_ids = read_removed_ids(file, before.catalog, removed=before.removed)
        removed = before.removed.copy()
        removed[before.catalog.indices(item_ids)] = True
        report = StageReport("items remove", {"num_removed": len(item_ids)}, [f"Removed {len(item_ids):,} items."])
        after = replace(before, removed=removed)
        return _finish(run, staging, before, after, ExtendedVectors(), report=report, when=when, started=started)


@writes("genrec items update")
def update_items(
    run: Run,
    file: Path,
    *,
    when: str,
    reencode: bool = False,
    precomputed: Mapping[str, Path] | None = None,
    progress: Progress = SILENT,
) -> StageReport:
    """Change attributes, titles and other columns of items. Their semantic IDs stay, unless `reencode`.

    A change of what an encoder reads changes the item's vector. The model knows the item by its ID, so the ID
    stays; with `reencode` the items of the file get the IDs that new items would get: their behaviour was that of
    something else, and is forgotten, with the tokens of their own. Raises what `add_items` raises.
    """
    started = time.monotonic()
    with change_together(run.path, last=_LAST) as staging:
        before = _State.load(run)
        items = read_changed_items(
            file,
            before.catalog,
            removed=before.removed,
            title_required=_title_required(run),
            media_root=_media_root(run),
            progress=progress,
        )
        rows = _rows_of(items, before.catalog)
        table = before.catalog.table
        merged = {int(row): table.row(int(row), named=True) | item for row, item in zip(rows, items, strict=True)}
        catalog = Catalog(with_rows(table, merged))
        encode = _rows_to_encode(run, table, dict(zip(rows.tolist(), items, strict=True)))
        extended = extend_embeddings(
            run,
            before.catalog,
            catalog,
            encode=encode,
            precomputed=precomputed or {},
            given=rows,
            as_new=reencode,
            progress=progress,
        )
        embeddings = extended.embeddings
        ids, num_moved = before.ids, 0
        if reencode:
            ids, num_moved = _place(run, before.ids, catalog, embeddings, rows=np.sort(rows))
            _forget(run, staging, [item["item_id"] for item in items])
        num_ids = int((ids.codes != before.ids.codes).any(axis=1).sum())
        num_encoded = len(np.unique(np.concatenate([*encode.values(), rows[:0]])))
        missing = {name: int((~embeddings[name].mask[some]).sum()) for name, some in encode.items() if len(some)}
        facts = {
            "num_updated": len(rows),
            "num_encoded": num_encoded,
            "num_new_ids": num_ids,
            "num_moved": num_moved,
            "missing": missing,
        }
        words = [f"Updated {len(rows):,} items; what the encoders read of {num_encoded:,} of them may have changed."]
        words += [f"{name}: {count:,} of these have no vector (now)." for name, count in missing.items() if count]
        words += _left_out_words(extended)
        kept = "Every ID is what it was (--reencode gives new ones)."
        words.append(f"{num_ids:,} got another ID." if reencode else kept)
        after = replace(before, catalog=catalog, ids=ids)
        report = StageReport("items update", facts, words)
        return _finish(run, staging, before, after, extended, report=report, when=when, started=started)


def _finish(
    run: Run,
    staging: Path,
    before: _State,
    after: _State,
    extended: ExtendedVectors,
    *,
    report: StageReport,
    when: str,
    started: float,
) -> StageReport:
    """Write the files of a change into `staging` and say what has changed."""
    kept = [row for row in range(len(before.catalog)) if before.catalog.item_ids[row] != after.catalog.item_ids[row]]
    assert not kept, "an item's row has moved"
    mirror = Run(staging)
    for made in extended.embeddings.values():
        made.save(mirror)
    if after.catalog is not before.catalog:
        _write_table(staging / "items.parquet", after.catalog.table)
    if after.ids is not before.ids:
        after.ids.save(mirror)
    ingest_files = [name for name in run.require("ingest", verify=False).outputs if name != REMOVED_ITEMS]
    if after.removed.any():
        gone = pl.DataFrame({"item_id": after.catalog.table["item_id"].filter(pl.Series(after.removed))})
        _write_table(staging / REMOVED_ITEMS, gone)
        ingest_files.append(REMOVED_ITEMS)
    trie = ItemTrie.build(
        after.ids.codes,
        after.ids.codebook_sizes,
        live=~after.removed,
        order_checksum=after.catalog.order_checksum,
        tokenizer_checksum=tokenizer_checksum(run.path / "semantic_ids" / "tokenizer"),
    )
    trie_files = [file.relative_to(staging).as_posix() for file in trie.save(staging / "trie")]
    facts = report.facts | {
        "unreadable": {name: len(problems) for name, problems in extended.unreadable.items() if problems},
        "num_items": trie.num_items,
        "num_rows": trie.num_rows,
        "version": trie.version,
        "seconds": round(time.monotonic() - started, 3),
    }
    dropped = run.amend(
        staging,
        replace(report, facts=facts),
        when=when,
        outputs={"ingest": ingest_files, "trie": trie_files, "embed": _list_unreadable(run, mirror, extended)},
    )
    unreadable = [word for name, some in extended.unreadable.items() for word in problem_words(name, some)]
    words = [*report.words, *unreadable, f"Trie {trie.version}: {trie.num_items:,} items of {trie.num_rows:,} rows."]
    if dropped:
        words.append(f"Dropped {', '.join(dropped)}: measured on another catalogue. Run `genrec evaluate` again.")
    words.append(f"Done in {facts['seconds']:.1f} s.")
    next_command = f"genrec recommend {run.path} --input users.jsonl --output recs.jsonl"
    return StageReport(report.stage, facts | {"dropped": dropped}, words, next_command)


def _list_unreadable(run: Run, mirror: Run, extended: ExtendedVectors) -> list[str]:
    """Bring the lists of unreadable inputs up to date in the staging folder; the files that embed vouches for now."""
    files = dict.fromkeys(run.require("embed", verify=False).outputs)
    for name, item_ids in extended.encoded.items():
        asked = set(item_ids)
        before = read_problems(run, name) if problems_file(run, name).relative_to(run.path).as_posix() in files else []
        now = [problem for problem in before if problem["item_id"] not in asked] + extended.unreadable[name]
        if before or now:
            path = problems_file(mirror, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not write_problems(mirror, name, now):
                path.touch()  # all is mended: the list of before must not stay
            files[path.relative_to(mirror.path).as_posix()] = None
    return list(files)


def _place(
    run: Run,
    ids: SemanticIds,
    catalog: Catalog,
    embeddings: Mapping[str, Embeddings],
    *,
    rows: NDArray[np.int64],
) -> tuple[SemanticIds, int]:
    """IDs in which `rows` (N,) have new codes and all others theirs; and how many did not get what they asked for."""
    config = build_config(
        TokenizeConfig, run.require("tokenize", verify=False).config, source="the manifest, stage tokenize"
    )
    fusion, tokenizer = load_fusion(run), load_tokenizer(run)
    read = ItemVectors.of_tokenizer(run, fusion, catalog=catalog, changed=embeddings)
    vectors = {name: values[rows] for name, values in read.vectors.items()}
    fused, _ = fusion.apply(vectors, {name: mask[rows] for name, mask in read.masks.items()})
    others = np.ones(len(ids.codes), dtype=np.bool_)
    others[rows[rows < len(others)]] = False
    placed = place_items(
        tokenizer, fused, taken=ids.codes[others], sizes=ids.codebook_sizes, policy=policy_for_new_items(config)
    )
    codes = np.zeros((len(catalog), ids.codes.shape[1]), dtype=np.uint16)
    codes[: len(ids.codes)] = ids.codes
    codes[rows] = placed
    untouched = np.flatnonzero(others)
    assert (codes[untouched] == ids.codes[untouched]).all(), "another item's ID has changed"
    levels = len(tokenizer.codebook_sizes)
    wanted = tokenizer.encode(fused) if len(fused) else placed
    moved = int((placed[:, :levels] != wanted[:, :levels]).any(axis=1).sum())
    return SemanticIds(codes, ids.codebook_sizes, catalog.order_checksum), moved


def _forget(run: Run, staging: Path, item_ids: Sequence[str]) -> None:
    """Write the tables of what people did and said without what they meant by these ids, which name others now."""
    _write_table(staging / "splits.parquet", forget(read_run_table(run, "splits.parquet"), item_ids))
    if DIALOGUES in run.stages:
        run.require(DIALOGUES)
        turns = read_run_table(run, dialogues_file(run).name)
        _write_table(staging / dialogues_file(run).name, forget_items(turns, item_ids))


def _rows_of(items: Sequence[Item], catalog: Catalog) -> NDArray[np.int64]:
    """Row of every item, (N,): its own, or one behind the catalogue for an item that it does not have."""
    fresh = iter(range(len(catalog), len(catalog) + len(items)))
    rows = [catalog.index[item["item_id"]] if item["item_id"] in catalog.index else next(fresh) for item in items]
    return np.array(rows, dtype=np.int64)


def _rows_to_encode(run: Run, table: pl.DataFrame, changes: Mapping[int, Item]) -> dict[str, NDArray[np.int64]]:
    """Modality → rows of which its encoder may read something else than before; the cache has what it does not."""
    config = _embed_config(run)
    # A template may read any column.
    text = set(config.text_fields) if config.text_template is None else set(table.columns)
    found: dict[str, list[int]] = {modality: [] for modality in content_modalities(config)}
    for row, item in changes.items():
        old = table.row(row, named=True)
        for modality, rows in found.items():
            read = text if modality == "text" else {modality}
            # A path that the change names may lead to another file than it did, which the file's content tells.
            if any(item[name] != old[name] for name in read & set(item)) or (modality != "text" and item.get(modality)):
                rows.append(row)
    return {modality: np.array(rows, dtype=np.int64) for modality, rows in found.items()}


def _left_out_words(extended: ExtendedVectors) -> list[str]:
    return [
        f"{name}: the file leaves out {count:,} of them; they keep the vector that they had."
        for name, count in extended.left_out.items()
        if count
    ]


def _title_required(run: Run) -> bool:
    return run.require("ingest", verify=False).config.get("empty_title") == "stop"


def _media_root(run: Run) -> Path:
    # Without media at ingest there is no such column, and a path in a new row is refused.
    ingested = run.require("ingest", verify=False).report.get("media_root", run.path)
    return _embed_config(run).media_root or Path(ingested)


def _embed_config(run: Run) -> EmbedConfig:
    return build_config(EmbedConfig, run.require("embed", verify=False).config, source="the manifest, stage embed")


def _write_table(path: Path, table: pl.DataFrame) -> None:
    with atomic_file(path) as temporary:
        table.write_parquet(temporary)
