"""A trie folder that changes while a process serves from it: a version's name in, its trie out.

A request asks once and keeps the trie that it got, so a request never sees two versions. The files are
memory-mapped, and the switch on disk is one rename (`ItemTrie.save`), so a reader never meets half of a version.

Filters by attribute need the catalogue, which lies beside the trie where the folder is a run's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from genrec.attribute_filters import AttributeFilters
from genrec.data.catalog import Catalog
from genrec.decoding.engine import check_trie
from genrec.errors import TrieError
from genrec.run import Run
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

_VERSIONS_KEPT = 4  # those asked for last; more would only hold deleted files open
_LOG = logging.getLogger(__name__)


class TrieShelf:
    """The versions of one trie folder. Raises TrieError where the live one cannot be used with this vocabulary."""

    def __init__(self, folder: Path, vocabulary: SidVocabulary) -> None:
        self._folder, self._vocabulary = folder, vocabulary
        self._tries: dict[str, ItemTrie] = {}
        self._live = self._open(ItemTrie.live_version(folder))
        self._refused: tuple[str, float] = ("", 0.0)  # the live version that was of no use, and when it was written
        self._stamp: tuple[int, ...] = ()  # of the run, when its catalogue was read
        self._checksum = ""  # of the catalogue
        self._catalog: Catalog | None = None
        self._filters: dict[str, AttributeFilters] = {}  # by version

    def get(self, version: str | None = None) -> ItemTrie | None:
        """The trie of a version; without one the live trie. None for a version that is not there.

        A live version that cannot be read is logged, and the one before stays in use: the worker must not end.
        """
        try:
            if version is not None:
                return self._open(version)
            live = ItemTrie.live_version(self._folder)
            if self._refused == (live, written := _written(self._folder / live)):  # said and read once
                return self._live
            self._refused = (live, written)
            self._live = self._open(live)
            self._refused = ("", 0.0)
        except TrieError as error:
            if version is not None:
                return None
            _LOG.warning("version %s of the catalogue stays in use: %s", self._live.version, error)
        return self._live

    def filter(self, trie: ItemTrie, allow: Mapping[str, Sequence[str]]) -> ItemFilter:
        """The items of a version that have, of every attribute, one of the values asked for.

        The catalogue is read with the first call, and again where it has changed. Raises RunError where none lies
        beside the trie, ConfigError for an attribute that it does not have, TrieError where it is another trie's.
        """
        run = Run(self._folder.parent)
        self._follow(run)
        found = self._filters.get(trie.version)
        if found is None:
            try:
                found = self._filters_of(trie)
            except TrieError:
                run.read_unchanged(lambda: None)  # a change that is under way moves the trie before its manifest
                if not self._follow(run):
                    raise
                found = self._filters_of(trie)
            self._filters[trie.version] = found
            while len(self._filters) > _VERSIONS_KEPT:
                del self._filters[next(iter(self._filters))]
        return found.filter(allow)

    def _follow(self, run: Run) -> bool:
        """Read the catalogue where the run has changed since the last look; whether it had."""
        stamp = run.stamp
        if stamp == self._stamp:
            return False
        checksum = run.require("ingest", verify=False).outputs.get("items.parquet", "")
        if checksum != self._checksum:
            catalog = run.read_unchanged(lambda: Catalog.load(run))
            self._filters, self._catalog = {}, catalog
        self._stamp, self._checksum = stamp, checksum
        return True

    def _filters_of(self, trie: ItemTrie) -> AttributeFilters:
        assert self._catalog is not None
        for other in self._filters.values():
            if other.trie.order_checksum == trie.order_checksum:
                return other.following(trie)
        catalog = Catalog(self._catalog.table.head(trie.num_rows))  # items only ever come on top
        if catalog.order_checksum != trie.order_checksum:
            raise TrieError("the catalogue beside the trie is of other items.", "Serve the trie of a run, `RUN/trie`.")
        return AttributeFilters(catalog, trie)

    def _open(self, version: str) -> ItemTrie:
        trie = self._tries.pop(version, None) or ItemTrie.load(self._folder, version=version).prepare()
        self._tries[version] = trie  # last in order; also one that does not fit, or every request would read it again
        while len(self._tries) > _VERSIONS_KEPT:
            del self._tries[next(iter(self._tries))]
        check_trie(trie, self._vocabulary)
        return trie


def _written(version: Path) -> float:
    """When a version's files changed last; 0 where there are none."""
    return max((file.stat().st_mtime for file in version.iterdir()), default=0.0) if version.is_dir() else 0.0
