"""A run's evidence, ready to use: histories in, `Evidence` for the beam search out.

The signals are counted anew from the run's tables whenever a catalogue is opened, so they always belong to the items
of that moment; what was learned is `evidence/weights.json`, written by the stage `evidence` (see `weighing`). Where a
run has dialogues, `evidence/dialogue_weights.json` of the stage `evidence:dialogues` holds weights for conversations.

B histories, R rows of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.blend import Blend
from genrec.baselines.signals import Signals, SignalSource, SignalsWithDialogues
from genrec.baselines.two_tower import TwoTower
from genrec.data.catalog import Catalog
from genrec.data.dialogues import DialogueTurn, item_sequences, load_turns
from genrec.data.splits import cold_items, forgotten_items, training_sequences
from genrec.decoding.engine import RankedItem
from genrec.encoders.base import Embeddings, vouched_modalities
from genrec.errors import RunError
from genrec.evidence import Evidence, Join
from genrec.run import Run, read_json
from genrec.trie import ItemTrie

Setting: TypeAlias = Literal["users", "dialogues"]
MODEL = "model"  # what a share of the model itself is called
STAGES: dict[Setting, str] = {"users": "evidence", "dialogues": "evidence:dialogues"}
FORMAT_VERSION = 3


def weights_file(run: Run, setting: Setting = "users") -> Path:
    """Where a run keeps the weights of its evidence: for histories of users, or for what conversations mention."""
    return run.path / "evidence" / ("weights.json" if setting == "users" else "dialogue_weights.json")


def retriever_file(run: Run, setting: Setting = "users") -> Path:
    """Where a run keeps the trained retriever of its evidence."""
    return run.path / "evidence" / ("two_tower.safetensors" if setting == "users" else "dialogue_two_tower.safetensors")


@dataclass(frozen=True, eq=False)
class EvidenceSource:
    """Signals of one catalogue, the blend of them, and how it joins the run's model."""

    signals: SignalSource
    blend: Blend
    weight: float
    join: Join

    @classmethod
    def load(cls, run: Run, setting: Setting = "users", *, catalog: Catalog) -> EvidenceSource | None:
        """The evidence of a run, None where the run has none. Raises RunError for a damaged file."""
        stage, file = STAGES[setting], weights_file(run, setting)
        if stage not in run.stages:
            return None
        run.require(stage)
        values = read_json(file)
        again = f"Run `genrec evidence RUN{' --dialogues' if setting == 'dialogues' else ''}` again."
        try:
            if values["format_version"] != FORMAT_VERSION:
                raise RunError(
                    f"{file} has format {values['format_version']!r}; this genrec reads {FORMAT_VERSION}.", again
                )
            blend = Blend.from_json(values["blend"])
            joined = float(values["weight"]), cast(Join, values["join"])
            modality = values["modality"]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{file} is damaged: {error}.", again) from error
        turns = load_turns(run, catalog=catalog) if setting == "dialogues" else None
        tower = TwoTower.load(retriever_file(run, setting))
        return cls(load_signals(run, modality, catalog=catalog, tower=tower, turns=turns), blend, *joined)

    def evidence(self, histories: Sequence[NDArray[np.int32]], trie: ItemTrie) -> list[Evidence | None]:
        """One per history; None where the weight is 0. Items of the history have no mass."""
        if self.weight == 0:
            return [None for _ in histories]
        scores = self.blend.scores(self.signals, histories)
        for row, history in enumerate(histories):
            scores[row, history] = -np.inf
        return [Evidence.from_scores(trie, row, weight=self.weight, join=self.join) for row in scores]

    def shares(
        self, history: NDArray[np.int32], ranked: Sequence[RankedItem], trie: ItemTrie
    ) -> list[dict[str, float]]:
        """What speaks for each ranked item: shares by group of signals and for the model, largest first.

        A group speaks for an item by as much as the item's score falls where the group says what it says of the
        catalogue's average item. Beside a product the model speaks by as much as it lifts the item above 1 / R; in a
        mixture it has the part of the item's probability that is its own, and the groups share the rest. What lowers an
        item has no share. Shares sum to 1, or there are none.
        """
        (evidence,) = self.evidence([history], trie)
        if evidence is None:
            return [{MODEL: 1.0} for _ in ranked]
        groups = self.blend.lifts(self.signals, history, [item.item_index for item in ranked])
        positions = trie.positions([item.item_index for item in ranked])
        found = []
        for row, (item, mass) in enumerate(zip(ranked, evidence.mass[positions], strict=True)):
            spoken = {name: self.weight * max(0.0, float(lift[row])) for name, lift in groups.items()}
            if self.join == "product":
                spoken[MODEL] = max(0.0, item.model_score + float(np.log(self.signals.num_items)))
            else:
                own, others = (1 - self.weight) * float(np.exp(item.model_score)), self.weight * float(mass)
                lifted = sum(spoken.values())
                spoken = {name: others * lift / lifted for name, lift in spoken.items() if lift}
                spoken[MODEL] = own
            total = sum(spoken.values())
            order = sorted((name for name, part in spoken.items() if part), key=lambda name: -spoken[name])
            found.append({name: spoken[name] / total for name in order})
        return found


def load_signals(
    run: Run,
    modality: str | None,
    *,
    catalog: Catalog,
    tower: TwoTower,
    turns: Sequence[DialogueTurn] | None = None,
) -> SignalSource:
    """The signals of a run and, where `turns` are given, those of dialogues.

    `modality` names the vectors that content is compared by, None is counts alone.
    """
    vectors, mask = load_content(run, modality, catalog=catalog)
    retriever = tower.over(len(catalog), vectors, mask, forgotten=forgotten_items(run, catalog=catalog))
    signals = Signals(
        training_sequences(run),
        len(catalog),
        vectors=vectors,
        mask=mask,
        titles=catalog.texts(("title",)),
        retriever=retriever,
    )
    return signals if turns is None else SignalsWithDialogues(signals, item_sequences(turns, ~cold_items(run)))


def load_content(
    run: Run, modality: str | None, *, catalog: Catalog
) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | tuple[None, None]:
    """Vectors (I, D) and mask (I,) of a modality, or nothing where there is none."""
    if modality is None:
        return None, None
    embeddings = Embeddings.load(run, modality, catalog=catalog)
    return embeddings.vectors, embeddings.mask


def content_modality(run: Run) -> str | None:
    """`text` where the run has vectors of texts, else None."""
    return "text" if "text" in vouched_modalities(run) else None


def weights_json(source: EvidenceSource, *, modality: str | None) -> dict[str, Any]:
    """The content of `weights_file`."""
    return {
        "format_version": FORMAT_VERSION,
        "join": source.join,
        "weight": source.weight,
        "modality": modality,
        "blend": source.blend.as_json,
    }
