"""A trained run becomes one plain Hugging Face folder, which is then read again and has to give the same logits.

What comes out needs neither genrec nor PEFT: weights with the adapter merged in, a tokenizer that knows the
semantic-ID tokens, and a generation configuration without the base's sampling defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from genrec.adapter import adapter_folder, with_adapter
from genrec.data.catalog import Catalog
from genrec.data.splits import training_sequences
from genrec.errors import ModelError, RunError
from genrec.files import atomic_folder
from genrec.progress import SILENT, Progress
from genrec.prompting import compile_history_prompt, load_templates
from genrec.run import Run, StageReport
from genrec.tokenizers.codes import SemanticIds
from genrec.vocabulary import VOCABULARY_FILE, SidVocabulary, sid_token

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_DIFFERENCE = 1e-3  # of a logit, in float32, between adapter beside base and merged
_NUM_PROMPTS = 8


def save_model_folder(
    folder: Path, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: SidVocabulary
) -> list[Path]:
    """Write the Hugging Face folder with the tokenizer and where the semantic IDs are in it; the files.

    Sampling defaults of the base (top-k, temperature, penalties) are left out: they would sneak into beam search.
    """
    model.generation_config = neutral_generation(model, tokenizer)
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        vocabulary.save(temporary)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def neutral_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Which tokens begin, end and pad a text, and nothing about how it is drawn."""
    old = model.generation_config
    configured = None if old is None else old.eos_token_id
    known = configured if isinstance(configured, list) else [configured]
    ends = list(dict.fromkeys(end for end in (*known, tokenizer.eos_token_id) if end is not None))
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )


def export(run: Run, out: Path, *, progress: Progress = SILENT) -> StageReport:
    """Merge the run's model into the folder `out` and prove it: same logits, every semantic ID survives as text.

    What is not proven takes nobody's place: a folder of before stays as it is. Raises RunError where the run is not
    trained or `out` holds something else or lies in a run, ModelError where the proof fails.
    """
    run.require("train")
    inside = next((folder for folder in out.resolve().parents if (folder / "manifest.json").is_file()), None)
    if inside is not None:  # the `model` of a run looks like an exported model
        raise RunError(f"{out} lies in the run {inside}.", "Name a folder outside of any run with --out.")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / VOCABULARY_FILE).is_file())):
        raise RunError(f"{out} exists and is no exported model.", "Name an empty or new folder with --out.")
    folder, adapter = run.path / "model", adapter_folder(run)
    vocabulary = SidVocabulary.load(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = _read(folder)
    prompts = _prompts(run, vocabulary, tokenizer)
    adapted: Any = None
    if adapter is not None:
        adapted = with_adapter(model, adapter)
        expected = _logits(model, prompts)  # base and adapter beside each other, as they were trained
        model = adapted.merge_and_unload()
    else:
        expected = _logits(model, prompts)
    progress.say("merged; writing" if adapter is not None else "writing")
    with atomic_folder(out) as unproven:
        save_model_folder(unproven, model=model, tokenizer=tokenizer, vocabulary=vocabulary)
        del model, adapted  # or two models are in memory beside the one that is read
        progress.say("reading it again")
        difference = _largest_difference(expected, _logits(_read(unproven), prompts))
        num_items = _check_round_trips(run, AutoTokenizer.from_pretrained(unproven), vocabulary)
    num_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    facts = {
        "out": str(out),
        "adapter_merged": adapter is not None,
        "largest_logit_difference": difference,
        "num_prompts": len(prompts),
        "num_items_round_tripped": num_items,
        "num_bytes": num_bytes,
    }
    words = [
        f"{out}: {num_bytes / 1e6:.1f} MB" + (", adapter merged in." if adapter is not None else "."),
        f"Read again: logits of {len(prompts)} prompts differ by {difference:.2g} at most; the IDs of {num_items:,} "
        "items survive the tokenizer.",
    ]
    return StageReport("export", facts, words)


def _read(folder: Path) -> PreTrainedModel:
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, attn_implementation="sdpa"
    )
    return cast("PreTrainedModel", model.eval())


def _prompts(run: Run, vocabulary: SidVocabulary, tokenizer: Any) -> list[list[int]]:
    """Prompts of real histories, each with a whole item after it, spread over the users."""
    prompt = compile_history_prompt(load_templates(run.path / "prompts", "next_item").templates[0], tokenizer)
    item_tokens = vocabulary.token_ids(SemanticIds.load(run, catalog=Catalog.load(run)).codes)
    sequences = list(training_sequences(run))
    chosen = np.linspace(0, len(sequences) - 1, min(_NUM_PROMPTS, len(sequences))).astype(int)
    return [prompt.token_ids(item_tokens[sequences[user][-10:]].ravel().tolist()) for user in chosen]


def _logits(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits of every position of every prompt, each (T, V)."""
    with torch.no_grad():
        return [cast(Any, model)(input_ids=torch.tensor([list(prompt)])).logits[0] for prompt in prompts]


def _largest_difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """By how much logits differ. Raises ModelError where that is more than rounding."""
    difference = max(float((one - other).abs().max()) for one, other in zip(expected, found, strict=True))
    if not difference < LARGEST_DIFFERENCE:
        raise ModelError(
            f"the exported model does not give the logits of the run: they differ by {difference:.2g}, at most "
            f"{LARGEST_DIFFERENCE:g} was expected.",
            "The weights are damaged or very large: train the run again with a lower learning rate.",
        )
    return difference


def _check_round_trips(run: Run, tokenizer: Any, vocabulary: SidVocabulary) -> int:
    """Encode and decode the ID of every item as text. Raises ModelError for the first that changes."""
    codes = SemanticIds.load(run, catalog=Catalog.load(run)).codes
    texts = ["".join(sid_token(level, int(code)) for level, code in enumerate(row)) for row in codes]
    wanted = vocabulary.token_ids(codes).tolist()
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    decoded = tokenizer.batch_decode(wanted, skip_special_tokens=True)
    for text, ids, got, back in zip(texts, wanted, encoded, decoded, strict=True):
        if got != ids or back != text:
            raise ModelError(
                f"the exported tokenizer turns {text} into {got} and its ids into {back!r}; expected {ids}.",
                "The tokenizer changes added tokens: choose a base with another one.",
            )
    return len(texts)
