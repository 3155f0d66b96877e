"""After the training that imitates histories, one that asks what the model recommends and rewards it.

Rollouts are what users will be shown: the constrained beam search over the trie, so every rollout is a real item.
`grpo` scores the items of a list against each other; `dpo` compares the item that was really taken with others. Only
training interactions are looked at. The result is a run of its own, and the better of before and after by validation.

Shapes: B users of a step, G items of a user's list, L levels.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from sklearn.preprocessing import normalize
from transformers import AutoModelForCausalLM, AutoTokenizer

from genrec.adapter import adapter_folder, merge_adapter
from genrec.baselines.base import taken_items
from genrec.baselines_of_run import tuned_file
from genrec.config import ReinforceConfig, dump_config
from genrec.data.catalog import Catalog, removed_items
from genrec.data.splits import cold_items, training_sequences
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.errors import DataError, ModelError, RunError
from genrec.files import atomic_folder
from genrec.memory import freed_memory_kept
from genrec.pipeline import validation_cases, validation_metrics
from genrec.precision import uses_bfloat16
from genrec.progress import SILENT, Progress
from genrec.prompting import compile_history_prompt, load_templates
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run, StageReport, Started
from genrec.tokenizers.codes import SemanticIds
from genrec.training.export import save_model_folder
from genrec.training.preferences import dpo_loss, graded_reward, group_advantages, grpo_loss, ranking_reward
from genrec.training.rollouts import item_log_probabilities
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

Likeness = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.float32]]
"""Targets (B,) and lists (B, G) → how alike each item is to the target, from 0 to 1: (B, G)."""


@dataclass(frozen=True)
class _Step:
    """Users of a step: prompts in token ids, the items that they took, and lists of items (B, G) to learn from."""

    prompts: list[list[int]]
    targets: NDArray[np.int32]
    items: NDArray[np.int32]


def reinforce(run: Run, config: ReinforceConfig, *, out: Path, progress: Progress = SILENT) -> StageReport:
    """Train the run's model on its own recommendations and write a copy of the run with the new model to `out`.

    Raises RunError where the run is not trained or `out` exists, DataError without histories to learn from or cases to
    validate with.
    """
    started = run.begin()
    record = run.require("train")
    if out.exists():
        raise RunError(f"{out} exists already.", "Name a new folder with --out.")
    folder, adapter = run.path / "model", adapter_folder(run)
    vocabulary = SidVocabulary.load(folder).of_catalogue(Catalog.load(run).item_ids)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model = (model if adapter is None else merge_adapter(model, adapter)).to(PartialState().device)
    reference = copy.deepcopy(model).eval()
    recommender = Recommender.assemble(
        run,
        engine=TransformersEngine(model, None, vocabulary=vocabulary),
        vocabulary=vocabulary,
        prompt=compile_history_prompt(load_templates(run.path / "prompts", "next_item").templates[0], tokenizer),
        max_history_items=int(record.config["max_history_items"]),
        beam_width=config.validation_beam_width,
    )
    cases = validation_cases(run, recommender.catalog, size=config.validation_users, seed=config.seed)
    warm = ~cold_items(run)
    draw, likeness = _Drawing(run, recommender, config), _likeness(run, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    history = [{"step": 0.0, **validation_metrics(recommender, cases, warm=warm)}]
    best, weights = history[0]["ndcg@10"], copy.deepcopy(model.state_dict())
    progress.say(f"before: NDCG@10 {best:.4f}, Recall@10 {history[0]['recall@10']:.4f}")
    with freed_memory_kept(), progress.track("reinforcing", config.steps, "steps") as task:
        for number in range(1, config.steps + 1):
            step = draw.step(number)
            loss, reward = _learn(step, (model, reference), recommender, config, likeness, optimizer, vocabulary)
            task.advance(1, f"loss {loss:.4f} reward {reward:.4f}")
            if number % config.validate_every == 0 or number == config.steps:
                history.append(
                    {"step": float(number), "loss": loss, **validation_metrics(recommender, cases, warm=warm)}
                )
                progress.say(f"step {number}: NDCG@10 {history[-1]['ndcg@10']:.4f}")
                if history[-1]["ndcg@10"] > best:
                    best, weights = history[-1]["ndcg@10"], copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return _write(
        run, out, config, model=model, tokenizer=tokenizer, vocabulary=vocabulary, history=history, started=started
    )


class _Drawing:
    """Draws users and a place in each one's training history; the step number is the seed, so steps can be repeated."""

    def __init__(self, run: Run, recommender: Recommender, config: ReinforceConfig) -> None:
        self._recommender, self._config = recommender, config
        known = ~cold_items(run) & ~removed_items(run, catalog=Catalog.load(run))
        own = recommender.live.own_tokens
        known &= True if own is None else own >= 0  # as `_learn` spells them
        self._targets = known
        self._known = np.flatnonzero(known)
        self._filter = ItemFilter.allowing(recommender.trie, known)
        self._histories = [history for history in training_sequences(run) if self._has_target(history)]
        if not self._histories:
            raise DataError(
                "no training history has an item that can be learned from: one that is new in it, is still in the "
                "catalogue and, where the model spells items by tokens of their own, has one.",
                "Ingest more interactions, or train the run again.",
            )
        if len(self._known) < 2:
            raise DataError("one item alone can be learned from.", "Ingest more of them, or train the run again.")

    def _has_target(self, history: NDArray[np.int32]) -> bool:
        """Whether an item of a history may be a target: behind the first, new in it, and known."""
        first = np.unique(history, return_index=True)[1]  # places
        return bool(self._targets[history[first[first > 0]]].any())

    def step(self, number: int) -> _Step:
        """The users, targets and lists of a step; users whose target was used before are drawn again."""
        rng = np.random.default_rng([self._config.seed, number])
        histories: list[NDArray[np.int32]] = []
        targets: list[int] = []
        while len(targets) < self._config.users_per_step:
            history = self._histories[int(rng.integers(len(self._histories)))]
            place = int(rng.integers(1, len(history)))
            if self._targets[history[place]] and history[place] not in history[:place]:
                histories.append(history[:place])
                targets.append(int(history[place]))
        wanted = np.array(targets, dtype=np.int32)
        if self._config.method == "dpo" and self._config.negatives == "random":
            # Any item but the target: where it is chosen and refused at once, there is no gradient.
            own = np.searchsorted(self._known, wanted)[:, None]
            further = rng.integers(1, len(self._known), size=(len(wanted), self._config.group_size))
            items = self._known[(own + further) % len(self._known)].astype(np.int32)
        else:
            items = self._beams(histories)
        # As `_learn` spells items.
        prompts = [
            self._recommender.item_prompt(history) or self._recommender.prompt_tokens(history) for history in histories
        ]
        return _Step(prompts, wanted, _with_target(items, wanted))

    def _beams(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        requests = [RankRequest(history, allowed=self._filter) for history in histories]
        ranked = self._recommender.rank(requests, self._config.group_size)
        lists = [[item.item_index for item in answer] for answer in ranked]
        if any(len(items) < self._config.group_size for items in lists):
            raise DataError(f"some user has fewer than {self._config.group_size} items left.", "Lower group_size.")
        return np.array(lists, dtype=np.int32)


def _with_target(items: NDArray[np.int32], targets: NDArray[np.int32]) -> NDArray[np.int32]:
    """Lists (B, G) that all hold their target: where it is missing it takes the last place.

    A list without it has penalties only, and most lists miss; MiniOneRec, whose models hit more often, does without.
    """
    missing = ~(items == targets[:, None]).any(axis=1)
    items = items.copy()
    items[missing, -1] = targets[missing]
    return items


def _learn(
    step: _Step,
    models: tuple[Any, Any],
    recommender: Recommender,
    config: ReinforceConfig,
    likeness: Likeness | None,
    optimizer: torch.optim.Optimizer,
    vocabulary: SidVocabulary,
) -> tuple[float, float]:
    """One update; the loss and the mean reward of the lists as they were (1 for a hit)."""
    model, reference = models
    tokens = recommender.item_tokens[step.items]  # (B, G, L)
    groups = vocabulary.groups[: tokens.shape[-1]]
    own = recommender.live.own_tokens
    if own is not None:  # what decides most of the ranking
        tokens, groups = own[step.items][..., None], vocabulary.groups[-1:]
    hits = step.items == step.targets[:, None]
    device = model.device.type
    with torch.autocast(device, torch.bfloat16, enabled=uses_bfloat16(config.precision, device)):
        policy = item_log_probabilities(model, groups, step.prompts, tokens)
        with torch.no_grad():
            before = item_log_probabilities(reference, groups, step.prompts, tokens)
    if config.method == "grpo":
        reward = _reward(step, hits, config, likeness)
        advantages = group_advantages(torch.from_numpy(reward)).to(policy.device)
        loss = grpo_loss(policy, before, advantages, kl_weight=config.kl_weight)
    else:
        gains = (policy - before).sum(dim=-1)  # (B, G)
        wanted = torch.from_numpy(hits).to(gains.device)
        # Every list holds its target once (beams) or perhaps twice (drawn): the first is the chosen one.
        first = wanted & (wanted.cumsum(dim=1) == 1)
        rejected = gains.masked_fill(wanted, -torch.inf)
        loss = dpo_loss(gains[first], rejected, beta=config.beta)
    if not torch.isfinite(loss):
        raise ModelError(f"the loss is {float(loss)}.", "Lower learning_rate, or train with precision: float32.")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach()), float(hits[:, :-1].any(axis=1).mean())


def _reward(
    step: _Step, hits: NDArray[np.bool_], config: ReinforceConfig, likeness: Likeness | None
) -> NDArray[np.float32]:
    if config.reward == "rule":
        return hits.astype(np.float32)
    return ranking_reward(hits) if likeness is None else graded_reward(hits, likeness(step.targets, step.items))


def _likeness(run: Run, config: ReinforceConfig) -> Likeness | None:
    """What forgives a wrong item: users in common with the target, or codes in common from the first level on."""
    if config.reward == "collaborative":
        used = normalize(taken_items(training_sequences(run), len(Catalog.load(run))).T.tocsr())  # (I, U), sparse
        return lambda targets, items: np.stack(
            [(used[row] @ used[[target]].T).toarray()[:, 0] for target, row in zip(targets, items, strict=True)]
        )
    if config.reward == "semantic":
        codes = SemanticIds.load(run, catalog=Catalog.load(run)).codes
        return lambda targets, items: np.asarray(
            np.cumprod(codes[items] == codes[targets][:, None], axis=-1).mean(axis=-1), dtype=np.float32
        )
    return None


def _write(
    run: Run,
    out: Path,
    config: ReinforceConfig,
    *,
    model: Any,
    tokenizer: Any,
    vocabulary: SidVocabulary,
    history: list[dict[str, float]],
    started: Started,
) -> StageReport:
    """Write the new run as a whole or not at all, and report it."""
    before, after = history[0]["ndcg@10"], max(entry["ndcg@10"] for entry in history)
    best = max(history, key=lambda entry: entry["ndcg@10"])
    facts = {"reinforcement": dump_config(config), "before": before, "after": after, "history": history}
    change = f"{after / before - 1:+.1%}" if before else "from nothing"
    words = [
        f"Validation NDCG@10 {before:.4f} before, {after:.4f} after step {best['step']:.0f} ({change})."
        if after > before
        else f"Validation NDCG@10 {before:.4f} was never exceeded in {config.steps} steps: the model is as it was.",
        f"Run: {out}",
    ]
    report = StageReport("train", facts, words, f"genrec evaluate {out}")
    record = run.require("train")
    left_out = shutil.ignore_patterns("model", "adapter", "training", "evaluation")
    with atomic_folder(out) as folder:
        shutil.copytree(run.path, folder, ignore=left_out, dirs_exist_ok=True)
        if tuned_file(run).is_file():  # no evaluation of this model: its record stays in the manifest
            (folder / "evaluation").mkdir()
            shutil.copy2(tuned_file(run), folder / "evaluation")
        files = save_model_folder(folder / "model", model=model, tokenizer=tokenizer, vocabulary=vocabulary)
        Run.open(folder).record(
            report,
            config={**record.config, "adapter": "none"},
            seed=config.seed,
            inputs=[folder / name for name in ("items.parquet", "splits.parquet", "semantic_ids/codes.npy")],
            outputs=[*files, *sorted((folder / "prompts").glob("*.yaml"))],
            started=started,
        )
    return report
