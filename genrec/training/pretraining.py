"""From text at hand to a small causal language model and its tokenizer: a base for machines without a model hub.

What comes out is small and knows the words of its text and little else. It is a real architecture (Qwen3) in a plain
Hugging Face folder, so that adapters, chat and explanations can be exercised as with a large one.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from genrec.config import PretrainConfig, TrainConfig, dump_config
from genrec.data.text_source import TextSource
from genrec.errors import DataError, RunError
from genrec.examples import Example
from genrec.files import atomic_folder
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport, text_checksum, write_json
from genrec.training.corpus import pack_corpus, read_corpus, texts_of
from genrec.training.export import neutral_generation
from genrec.training.loop import Trainer, TrainingTask
from genrec.training.model import PackedLoss, scratch_model
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import SidVocabulary

_FACTS_FILE = "pretraining.json"
_NO_SIDS = SidVocabulary((), ())


def pretrain(
    sources: Sequence[TextSource],
    runs: Sequence[Run],
    config: PretrainConfig,
    *,
    out: Path,
    resume: bool = False,
    progress: Progress = SILENT,
) -> StageReport:
    """Train a base on text files and on the words of runs, and write it to the folder `out`.

    Beside it, `OUT.work/` holds the cache of the text and the checkpoint. Raises DataError where there is too little
    text, RunError where `out` holds something else, or with `resume` a finished base.
    """
    started = time.monotonic()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _FACTS_FILE).is_file())):
        raise RunError(f"{out} exists and is no base that was made here.", "Name an empty or new folder with --out.")
    work = out.with_name(out.name + ".work")
    if resume and (out / _FACTS_FILE).is_file() and not (work / "checkpoint").exists():
        raise RunError(
            f"{out} is finished: there is no training to go on with.",
            "Leave out --resume to train anew; the base is replaced then.",
        )
    corpus = read_corpus(sources, runs, cache=work / "cache")
    if len(corpus) < 2:
        raise DataError(
            "there is one document alone, of which none can be held out.", "Give more: every line of a file is one."
        )
    progress.say(f"{len(corpus):,} documents; training the tokenizer")
    parts = corpus.train_test_split(test_size=config.held_out_share, seed=config.seed)
    tokenizer = train_text_tokenizer(texts_of(parts["train"]), config.shape.text_vocabulary)
    blocks, held_out = (
        pack_corpus(parts[name], tokenizer, block_tokens=config.block_tokens) for name in ("train", "test")
    )
    torch.manual_seed(config.seed)
    model: Any = scratch_model(config.shape, tokenizer)
    task = TrainingTask(
        make_examples=lambda rng: _examples(blocks, rng, limit=config.epoch_tokens),
        validate=lambda: text_likelihood(model, held_out, batch_tokens=config.batch_tokens),
        max_example_tokens=config.block_tokens,
        vocabulary=_NO_SIDS,
        monitor="token_likelihood",
        identity=dump_config(config) | {"text": text_checksum([blocks._fingerprint, held_out._fingerprint])},
    )
    progress.say(f"{len(blocks):,} blocks of {config.block_tokens} tokens, {len(held_out):,} held out")
    trainer = Trainer(model, _train_config(config), task, folder=work, progress=progress)
    state = trainer.run(resume=resume)
    PartialState().destroy_process_group()
    perplexity = 1 / state.best_metric
    facts = {
        "num_parameters": trainer.num_parameters,
        "num_documents": len(corpus),
        "num_tokens": len(blocks) * config.block_tokens,
        "tokens_read": state.tokens,
        "held_out_tokens": len(held_out) * config.block_tokens,
        "held_out_perplexity": perplexity,
        "history": state.history,
        "config": dump_config(config),
    }
    words = [
        f"{out}: a small base of {trainer.num_parameters / 1e6:.1f} M parameters that has read {state.tokens:,} tokens "
        f"({facts['num_tokens']:,} different ones).",
        f"Perplexity {perplexity:.2f} per token on {facts['held_out_tokens']:,} held-out tokens. It knows the words of "
        "this text and little else: a stand-in for a language model, not one.",
    ]
    if trainer.accelerator.is_main_process:
        with atomic_folder(out) as folder:
            model.generation_config = neutral_generation(model, tokenizer)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            write_json(folder / _FACTS_FILE, facts)
            (folder / "README.md").write_text("\n".join(["# A small base", "", *words]) + "\n", encoding="utf-8")
        shutil.rmtree(work / "checkpoint", ignore_errors=True)
    seconds = round(time.monotonic() - started, 1)
    return StageReport("pretrain", facts | {"seconds": seconds}, words, f"genrec train RUN --base {out} --adapter lora")


def text_likelihood(model: Any, blocks: Any, *, batch_tokens: int) -> Mapping[str, float]:
    """`token_likelihood`, the geometric mean of the tokens' probabilities (1 / perplexity), and `perplexity`."""
    loss = PackedLoss(model, _NO_SIDS, dropout=0.0, label_smoothing=0.0)
    total = 0.0
    training = model.training
    model.eval()
    size = max(1, batch_tokens // len(blocks[0]["tokens"]))
    with torch.no_grad():
        for batch in blocks.with_format("numpy").iter(batch_size=size):
            tokens = torch.from_numpy(batch["tokens"].astype(np.int64)).to(model.device)
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
            ones = torch.ones_like(tokens)
            total += float(loss(tokens, positions, ones, ones.bool())) * len(tokens)
    model.train(training)
    mean = total / len(blocks)
    return {"token_likelihood": math.exp(-mean), "perplexity": math.exp(mean)}


def _examples(blocks: Any, rng: np.random.Generator, *, limit: int | None) -> list[Example]:
    """The blocks of an epoch: all of them, or as many drawn ones as `limit` tokens allow."""
    length = len(blocks[0]["tokens"])
    chosen = np.arange(len(blocks))
    if limit is not None and limit < len(blocks) * length:
        chosen = np.sort(rng.choice(len(blocks), size=max(1, limit // length), replace=False))
    rows = blocks.with_format("numpy")[chosen]["tokens"]
    targets = np.ones(length, dtype=np.bool_)
    return [Example(row.astype(np.int64), targets) for row in rows]


def _train_config(config: PretrainConfig) -> TrainConfig:
    """What the loop reads of a configuration; nothing else of it is used."""
    return TrainConfig(
        scratch=config.shape,
        epochs=config.epochs,
        batch_tokens=config.batch_tokens,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        dropout=config.dropout,
        precision=config.precision,
        validate_every=1,
        patience=config.patience,
        checkpoint_seconds=config.checkpoint_seconds,
        seed=config.seed,
    )
