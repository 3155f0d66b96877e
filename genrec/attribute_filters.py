"""Wishes such as `{"genres": "Comedy"}` in, filters for one trie out; each distinct wish is compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genrec.data.attributes import Attribute
from genrec.data.catalog import Catalog
from genrec.run import text_checksum
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter

_FILTERS_KEPT = 256  # the newest, and fewer where items are many: one is a number per item at most
_NUMBERS_KEPT = 1 << 27  # of all of them: half a gigabyte


@dataclass(frozen=True, eq=False)
class AttributeFilters:
    """Filters over one catalogue and one trie of it, and the attributes that were read for them."""

    catalog: Catalog
    trie: ItemTrie
    _attributes: dict[str, Attribute] = field(default_factory=dict)
    _filters: dict[str, ItemFilter] = field(default_factory=dict)

    def filter(self, allow: Mapping[str, Any]) -> ItemFilter:
        """The items that have all the attributes asked for. Raises ConfigError as `Attribute` does."""
        key = text_checksum([repr(pair) for pair in sorted(allow.items())])  # a question may be as long as a request
        found = self._filters.get(key)
        if found is None:
            mask = np.ones(len(self.catalog), dtype=np.bool_)
            for name, value in allow.items():
                mask &= self.attribute(name).mask(value)
            found = self._filters[key] = ItemFilter.allowing(self.trie, mask)
            kept = min(_FILTERS_KEPT, max(8, _NUMBERS_KEPT // max(1, self.trie.num_items)))
            for oldest in list(self._filters)[:-kept]:
                self._filters.pop(oldest, None)  # another thread may have been here
        return found

    def attribute(self, name: str) -> Attribute:
        """An attribute by value and by row; read once. Raises ConfigError for one that the catalogue does not have."""
        if name not in self._attributes:
            self._attributes[name] = Attribute.read(self.catalog, name)
        return self._attributes[name]

    def following(self, trie: ItemTrie) -> AttributeFilters:
        """The same attributes over another trie of the same catalogue."""
        return AttributeFilters(self.catalog, trie, self._attributes)

    def read_those_of(self, before: AttributeFilters) -> None:
        """Read the attributes that an earlier catalogue was asked for, so that no request of this one has to."""
        for name in list(before._attributes):  # another thread may add to them
            if name in self.catalog.table.columns:
                self.attribute(name)
