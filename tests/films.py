"""The bundled films without a trained model: the words are real, the ranking is by popularity."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.sources.movielens import bundled_movielens
from genrec.data.splits import training_sequences
from genrec.decoding.scripted import ScriptedEngine
from genrec.prompting import HistoryPrompt
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary

SIZES = (256, 16)


def by_popularity(trie: ItemTrie, counts: np.ndarray):
    """A script for `ScriptedEngine`: whatever the prompt, a code's chance is the share of its subtree."""
    mass = counts[trie.items] + 1.0

    def script(prompt: tuple[int, ...], codes: tuple[int, ...]) -> np.ndarray:
        lo, hi = np.array([0]), np.array([trie.num_items])
        for level, code in enumerate(codes):
            below = trie.children(level, lo, hi)
            lo, hi = below.lo[below.code == code], below.hi[below.code == code]
        children = trie.children(len(codes), lo, hi)
        values = np.full(SIZES[len(codes)], -np.inf)
        shares = np.add.reduceat(mass[lo[0] : hi[0]], children.lo - lo[0])
        values[children.code] = np.log(shares / shares.sum())
        return values

    return script


def film_recommender(folder: Path) -> Recommender:
    """A recommender over the bundled films, which are ingested into the run `folder`."""
    run = Run.create(folder)
    ingest(run, "movielens", [bundled_movielens()], IngestConfig())
    catalog = Catalog.load(run)
    counts = np.zeros(len(catalog))
    np.add.at(counts, training_sequences(run).items, 1)
    codes = np.stack([np.arange(len(catalog)) // 16, np.arange(len(catalog)) % 16], axis=1)
    trie = ItemTrie.build(codes, SIZES)
    vocabulary = SidVocabulary(SIZES, (10, 270))
    return Recommender(
        catalog,
        trie,
        engine=ScriptedEngine(by_popularity(trie, counts)),
        prompt=HistoryPrompt((1,)),
        item_tokens=vocabulary.token_ids(codes),
        max_history_items=20,
    )
