"""The stage `tokenize`: vectors of one or several modalities to semantic IDs, with a report of how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.config import TokenizeConfig, dump_config
from genrec.data.catalog import Catalog
from genrec.data.sequences import Sequences
from genrec.data.splits import cold_items, evaluation_cases, training_sequences
from genrec.encoders.base import Embeddings, embedding_files
from genrec.errors import ConfigError, DataError, RunError
from genrec.files import atomic_folder
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport, read_json, write_json
from genrec.tokenizers.base import ItemTokenizer, Makeup
from genrec.tokenizers.codes import Policy, SemanticIds, resolve_collisions
from genrec.tokenizers.controls import RandomCodes
from genrec.tokenizers.fusion import Fusion
from genrec.tokenizers.health import (
    Health,
    collision_share,
    consecutive_pairs,
    level_health,
    prefix_lift,
    relative_error,
)
from genrec.tokenizers.health_plot import plot_health
from genrec.tokenizers.item_level import ItemIdCodes, ItemLevel
from genrec.tokenizers.placement import place_items
from genrec.tokenizers.residual_kmeans import ResidualKMeans
from genrec.tokenizers.rqvae import RQVAE
from genrec.tokenizers.rqvae_training import RQVAEOptions

_PAIR_LEARNING_RATE = 3e-4
# Of the variance: with these and codes used equally often, each of the first two levels says more than twice as much of
# the next item as codes of texts do (eval/RESULTS.md).
SHARES = {"behaviour": 2.0}
_MOST_BITS = 64  # of an ID, which the trie keeps as one number


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """The modalities that a tokenizer reads, by name: vectors (I, D_m) and masks (I,)."""

    vectors: dict[str, NDArray[np.float32]]
    masks: dict[str, NDArray[np.bool_]]

    @classmethod
    def load(cls, run: Run, names: tuple[str, ...], *, catalog: Catalog) -> ItemVectors:
        """Read modalities of a run. Raises RunError where one is missing or belongs to another catalogue."""
        loaded = [Embeddings.load(run, name, catalog=catalog) for name in names]
        return cls({one.modality: one.vectors for one in loaded}, {one.modality: one.mask for one in loaded})

    @classmethod
    def of_tokenizer(
        cls, run: Run, fusion: Fusion, *, catalog: Catalog, changed: Mapping[str, Embeddings] | None = None
    ) -> ItemVectors:
        """What the run's tokenizer reads of the items; a modality that it guessed for all of them is missing again.

        `changed` modalities stand in for those on disk. Raises what `load` raises.
        """
        guessed, changed = guessed_modalities(run), changed or {}
        found = [
            changed.get(name) or Embeddings.load(run, name, catalog=catalog)
            for name in fusion.names
            if name not in guessed
        ]
        items = cls({one.modality: one.vectors for one in found}, {one.modality: one.mask for one in found})
        return items.completed(fusion, num_items=len(catalog))

    def completed(self, fusion: Fusion, *, num_items: int) -> ItemVectors:
        """With every modality that `fusion` reads; what these lack altogether is missing for each item."""
        widths = dict(zip(fusion.names, fusion.widths, strict=True))
        vectors = {name: np.zeros((num_items, width), np.float32) for name, width in widths.items()}
        masks = {name: np.zeros(num_items, np.bool_) for name in widths}
        return ItemVectors(vectors | self.vectors, masks | self.masks)

    def only(self, rows: NDArray[np.bool_]) -> ItemVectors:
        """These of some items, by a mask (I,)."""
        return ItemVectors(
            {name: values[rows] for name, values in self.vectors.items()},
            {name: mask[rows] for name, mask in self.masks.items()},
        )

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which item has which modality, (I, M)."""
        return np.stack(list(self.masks.values()), axis=1)


def tokenize(run: Run, config: TokenizeConfig, *, progress: Progress = SILENT) -> StageReport:
    """Write `semantic_ids/` (codes, tokenizer, health report and plot) and record the stage.

    A missing modality of an item is guessed from its others. An item without any vector stands at the mean, so it
    lands under a common prefix and the collision policy tells it apart; the report counts them. Held-out items
    (`--cold-fraction`) teach nothing and get codes afterwards, as items that are added later do. Raises DataError
    where there are fewer vectors than codes of a level, RunError where vectors are missing or belong to another
    catalogue, ConfigError for a weight or a loss that no modality has.
    """
    started = run.begin()
    catalog = Catalog.load(run)
    warm = ~cold_items(run)
    items = ItemVectors.load(run, wanted_modalities(run, config), catalog=catalog)
    remarks: list[str] = []
    if config.modalities is None:
        items, remarks = _that_teach(items, warm)
    _check(config, items)
    known = items.only(warm)
    fusion = Fusion.fit(known.vectors, known.masks, weights=_shares(config), seed=config.seed)
    fused, guesses = fusion.apply(items.vectors, items.masks)
    # An item without any vector teaches nothing; but every item has an id.
    some = np.asarray(warm & (items.present.any(axis=1) | (config.method == ItemIdCodes.method)), dtype=np.bool_)
    histories = training_sequences(run)
    makeup = Makeup(
        widths=fusion.widths,
        present=items.present[some],
        without=tuple(guess[some] for guess in guesses),
        pairs=_pairs(histories, some) if config.behaviour_loss > 0 else None,
        uses=np.bincount(histories.items, minlength=len(catalog))[some],
    )
    tokenizer = _make(config, balance=_balance(config, fusion.names))
    tokenizer.fit(fused[some], seed=config.seed, makeup=makeup, progress=progress)
    before = np.zeros((len(fused), len(tokenizer.codebook_sizes)), dtype=np.uint16)
    before[some] = tokenizer.encode(fused[some])
    if not some.all():
        before[~some] = tokenizer.encode(fused[~some])
    after, sizes = _semantic_ids(tokenizer, fused, before, warm, config)
    steps = histories, unseen_steps(run)
    health = measure_health(tokenizer, fusion, items, before=before, after=after, sizes=sizes, steps=steps)
    ids = SemanticIds(after, sizes, catalog.order_checksum)
    outputs = write_semantic_ids(run, tokenizer, fusion, ids=ids, health=health)
    facts = {"method": config.method, "modalities": list(fusion.names), **health.facts}
    for level in facts["levels"]:
        level.pop("counts")  # health.json has them; the manifest stays readable
    report = StageReport("tokenize", facts, [*remarks, *health.words()], f"genrec train {run.path}")
    files = [file for name in fusion.names for file in embedding_files(run, name)]
    run.record(
        report,
        config=dump_config(config),
        seed=config.seed,
        inputs=[run.path / "items.parquet", run.path / "splits.parquet", *files],
        outputs=outputs,
        started=started,
    )
    return report


def wanted_modalities(run: Run, config: TokenizeConfig) -> tuple[str, ...]:
    """The modalities that `config` names, or else all that the run's `embed` stage made."""
    if config.modalities is not None:
        return config.modalities
    return tuple(run.require("embed", verify=False).report["modalities"])


def _that_teach(items: ItemVectors, warm: NDArray[np.bool_]) -> tuple[ItemVectors, list[str]]:
    """Without modalities of which fewer than two of the items that teach have a vector; and what was left out."""
    few = [name for name, mask in items.masks.items() if np.count_nonzero(mask & warm) < 2]
    if len(few) == len(items.masks):
        raise DataError("fewer than two items have a vector of anything.", "Run `genrec embed` with other modalities.")
    kept = [name for name in items.masks if name not in few]
    left_out = [f"{name} is left out: fewer than two items that teach have a vector of it." for name in few]
    those = ItemVectors({name: items.vectors[name] for name in kept}, {name: items.masks[name] for name in kept})
    return those, left_out


def guessed_modalities(run: Run) -> list[str]:
    """What the run's tokenizer reads and its codes were made without: behaviour of another catalogue, above all.

    The run may have vectors of that name. They are not what the tokenizer learned from, so nothing joins them to it.
    """
    return list(run.require("tokenize", verify=False).report.get("guessed_modalities", []))


def encode_items(
    run: Run, vectors: Mapping[str, NDArray[np.float32]], masks: Mapping[str, NDArray[np.bool_]]
) -> NDArray[np.uint16]:
    """Codes (N, L), before any collision policy, of items with vectors (N, D_m) and masks (N,) by modality."""
    return load_tokenizer(run).encode(load_fusion(run).apply(vectors, masks)[0])


def load_fusion(run: Run) -> Fusion:
    """How the run's tokenizer joins modalities. Raises RunError where it is missing or damaged."""
    return Fusion.load(run.path / "semantic_ids" / "tokenizer")


def load_tokenizer(run: Run) -> ItemTokenizer:
    """The tokenizer that made the run's semantic IDs. Raises RunError where it is missing or damaged."""
    folder = run.path / "semantic_ids" / "tokenizer"
    method = read_json(folder / "tokenizer.json").get("method")
    kinds = {kind.method: kind for kind in (RQVAE, ResidualKMeans, RandomCodes, ItemIdCodes)}
    if method not in kinds:
        raise RunError(f"{folder} holds an unknown tokenizer: {method!r}.", "Run `genrec tokenize RUN` again.")
    inside: ItemTokenizer = kinds[method].load(folder)
    return inside if method == ItemIdCodes.method else ItemLevel.around(inside, folder) or inside


def policy_for_new_items(config: TokenizeConfig) -> Policy:
    """What becomes of an item that is not trained on: where every code is an item's own, it shares one."""
    return "shared" if config.method == ItemIdCodes.method else config.collisions


def _shares(config: TokenizeConfig) -> dict[str, float] | None:
    """Modality → its share of the variance, None where vectors are joined as they are."""
    return None if config.weights == "none" else SHARES | config.weights


def _check(config: TokenizeConfig, items: ItemVectors) -> None:
    unknown = sorted(set(() if config.weights == "none" else config.weights) - set(items.vectors))
    if unknown:
        raise ConfigError(
            f"weights: {unknown[0]!r} is none of the modalities {', '.join(items.vectors)}.", "Correct its name."
        )
    if config.behaviour_loss > 0 and config.method != "rqvae":
        raise ConfigError(f"{config.method} learns no behaviour_loss.", "Use --method rqvae, or leave it out.")
    if config.balance and config.method != "rqvae":
        raise ConfigError(f"{config.method} balances no codes.", "Use --method rqvae, or leave --balance out.")
    if config.item_codes and config.method in (RandomCodes.method, ItemIdCodes.method):
        raise ConfigError(
            f"{config.method} gets no further codes of the items' own behind it.",
            "Use --method rqvae or residual-kmeans, or leave --item-codes out.",
        )
    bits = sum((size - 1).bit_length() for size in (*config.sizes, *filter(None, [config.item_codes])))
    if bits > _MOST_BITS and config.method != ItemIdCodes.method:
        raise ConfigError(
            f"IDs of {config.levels} levels with codebooks of {', '.join(map(str, config.sizes))} need {bits} bits; "
            f"the trie has {_MOST_BITS}.",
            "Use fewer levels or smaller codebooks.",
        )
    if config.behaviour_loss > 0 and config.behaviour_loss_level > config.levels:
        raise ConfigError(
            f"behaviour_loss_level is {config.behaviour_loss_level}; there are {config.levels} levels.", "Lower it."
        )


def _balance(config: TokenizeConfig, modalities: Sequence[str]) -> float:
    """By default, equally often used codes where behaviour has a say in them; with content alone, levels collapse."""
    return float("behaviour" in modalities) if config.balance is None else config.balance


def _make(config: TokenizeConfig, *, balance: float) -> ItemTokenizer:
    if config.method == "item-id":
        return ItemIdCodes()
    if config.method == "random":
        return RandomCodes(codebook_sizes=config.sizes)
    inside = _made_inside(config, balance)
    return ItemLevel(inside, most_codes=config.item_codes) if config.item_codes else inside


def _made_inside(config: TokenizeConfig, balance: float) -> ItemTokenizer:
    if config.method == "residual-kmeans":
        return ResidualKMeans(codebook_sizes=config.sizes)
    options = RQVAEOptions(modality_dropout=config.modality_dropout, balance=balance, separate=not config.item_codes)
    if config.behaviour_loss > 0:
        options = replace(
            options,
            pair_weight=config.behaviour_loss,
            pair_level=config.behaviour_loss_level - 1,
            # Pairs pull the codes themselves, which at the usual rate hardly move.
            encoder_learning_rate=_PAIR_LEARNING_RATE,
        )
    return RQVAE(codebook_sizes=config.sizes, options=options)


def _pairs(histories: Sequences, some: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Consecutive items of training histories as rows of the items that have vectors, (P, 2)."""
    pairs = np.stack(consecutive_pairs(histories), axis=1)
    pairs = pairs[some[pairs].all(axis=1)]
    return (np.cumsum(some) - 1)[pairs].astype(np.int64)


def _semantic_ids(
    tokenizer: ItemTokenizer,
    fused: NDArray[np.float32],
    before: NDArray[np.uint16],
    warm: NDArray[np.bool_],
    config: TokenizeConfig,
) -> tuple[NDArray[np.uint16], tuple[int, ...]]:
    """Codes of all items: collisions of the warm ones are resolved together, then the cold ones find places."""
    rows = np.flatnonzero(warm)
    resolved, sizes = resolve_collisions(
        before[rows],
        tokenizer.codebook_sizes,
        policy=config.collisions,
        last_costs=lambda some: tokenizer.last_costs(fused[rows[some]], before[rows[some]]),
    )
    after = np.zeros((len(before), len(sizes)), dtype=np.uint16)
    after[warm] = resolved
    policy = policy_for_new_items(config)
    after[~warm] = place_items(tokenizer, fused[~warm], taken=resolved, sizes=sizes, policy=policy)
    return after, sizes


def measure_health(
    tokenizer: ItemTokenizer,
    fusion: Fusion,
    items: ItemVectors,
    *,
    before: NDArray[np.uint16],
    after: NDArray[np.uint16],
    sizes: tuple[int, ...],
    steps: tuple[Sequences, Sequences],
) -> Health:
    """Health of codes (I, L) before and (I, len(sizes)) after the policy, over the modalities that `items` have.

    `steps` are training histories, and steps that no training sees (`unseen_steps`).
    """
    own_levels = after[:, : len(tokenizer.codebook_sizes)]
    moved = (own_levels != before).any(axis=1)
    lengths = range(1, len(tokenizer.codebook_sizes) + 1)
    by_length = [_errors(tokenizer, fusion, items, before[:, :length]) for length in lengths]
    return Health(
        num_items=len(after),
        levels=level_health(after, sizes),
        colliding_before=collision_share(before),
        colliding_after=collision_share(after),
        moved_items=int(np.count_nonzero(moved)),
        missing_items={name: int(np.count_nonzero(~mask)) for name, mask in items.masks.items()},
        reconstruction={name: [errors[name] for errors in by_length] for name in items.masks},
        reconstruction_after=_errors(tokenizer, fusion, items, own_levels) if moved.any() else None,
        prefix_lift=prefix_lift(own_levels, steps[0]),
        prefix_lift_unseen=prefix_lift(own_levels, steps[1]),
    )


def unseen_steps(run: Run) -> Sequences:
    """From every user's last training item to the validation item."""
    cases = evaluation_cases(run, "validation")
    last = [int(history[-1]) for history in cases.histories]
    pairs = [[before, int(after)] for before, after in zip(last, cases.targets, strict=True)]
    return Sequences.from_lists([str(number) for number in range(len(pairs))], pairs)


def _errors(
    tokenizer: ItemTokenizer, fusion: Fusion, items: ItemVectors, codes: NDArray[np.uint16]
) -> dict[str, float]:
    """What these codes leave out of every modality, as a share of its variance, over the items that have it."""
    found = fusion.split(tokenizer.reconstruct(codes))
    return {name: relative_error(items.vectors[name][mask], found[name][mask]) for name, mask in items.masks.items()}


def write_semantic_ids(
    run: Run, tokenizer: ItemTokenizer, fusion: Fusion, *, ids: SemanticIds, health: Health
) -> list[Path]:
    """Write all of `semantic_ids/`; the paths written."""
    folder = run.path / "semantic_ids"
    with atomic_folder(folder / "tokenizer") as temporary:
        tokenizer.save(temporary)
        fusion.save(temporary)
    weights = sorted((folder / "tokenizer").iterdir())
    written = ids.save(run)
    write_json(folder / "health.json", {**health.facts, "warnings": health.warnings()})
    plot_health(health, folder / "health.png")
    return [*written, *weights, folder / "health.json", folder / "health.png"]
