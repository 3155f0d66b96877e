"""The engine on vLLM: a model folder in; items and text out.

The beam search, the trie, its filters and whatever else is mixed into scores are those of all engines (`beam`).
vLLM only answers how likely the codes of a level are (`vllm_scorer`, `vllm_processor`). Any thread may call it:
the requests of all threads run in one continuous batch (`vllm_runner`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from vllm import LLM
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, SamplingParams

from genrec.decoding.beam import answerable, beam_search, check_item_prompts, check_request
from genrec.decoding.engine import (
    BeamWidth,
    Generation,
    RankedItem,
    ScoreMode,
    check_score_mode,
    check_tokens,
    check_trie,
    check_writing,
)
from genrec.decoding.text import Decoder, TextUnderWay
from genrec.decoding.vllm_processor import QUALIFIED_NAME, WORDS, SemanticIdProcessor, prepare_cpu
from genrec.decoding.vllm_runner import Runner, Ticket, hold_process, in_this_process, release_process
from genrec.decoding.vllm_scorer import VllmScorer
from genrec.errors import ConfigError, ModelError, PromptTooLongError
from genrec.evidence import Evidence, check_evidence
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

_CPU_CACHE_BYTES = 2 << 30  # vLLM itself would take nearly all memory of the machine
_CPU_BLOCK = 32  # tokens; the smallest that vLLM's attention on a CPU takes, so the least is computed twice


class VllmEngine:
    """Ranks and writes with a model folder that vLLM holds. Make one with `load`.

    `llm` is vLLM's own object, for what this engine does not do.
    """

    concurrent = True  # one continuous batch

    def __init__(
        self,
        llm: LLM,
        *,
        vocabulary: SidVocabulary,
        score_mode: ScoreMode,
        batch_size: int,
        runner: Runner,
        lora: LoRARequest | None = None,
    ) -> None:
        """An engine over an `LLM` that was made with the options of `load`; see there."""
        self.llm, self._runner, self._lora = llm, runner, lora
        # Of all copies of this engine: vLLM goes on with what it has loaded under a number, whatever path comes later.
        self._adapters = {} if lora is None else {lora.lora_int_id: Path(lora.lora_path)}
        check_score_mode(score_mode)
        self._vocabulary, self._score_mode, self._batch_size = vocabulary, score_mode, batch_size
        self._tokenizer = cast(Decoder, llm.get_tokenizer())
        self._end_ids = _end_ids(Path(llm.model_config.model), self._tokenizer)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        vocabulary: SidVocabulary,
        score_mode: ScoreMode = "level",
        batch_size: int = 64,
        dtype: str = "float32",
        options: Mapping[str, Any] | None = None,
        adapter: Path | None = None,
    ) -> VllmEngine:
        """Open a Hugging Face folder: safetensors only, no code from the folder is run.

        `batch_size` prompts are searched together. `options` are vLLM's own engine arguments, such as
        `tensor_parallel_size`, and win over our defaults. `adapter` is a folder with a LoRA of linear layers.
        Raises ConfigError for options that vLLM does not have, ModelError, with its reason, for what it cannot load.
        """
        _check_options(options or {})
        check_score_mode(score_mode)
        _check_folder(folder, vocabulary)
        arguments = engine_arguments(folder, vocabulary, dtype=dtype, adapter=adapter) | dict(options or {})
        hold_process()
        prepare_cpu()
        SemanticIdProcessor.made_here = None
        try:
            with in_this_process():
                llm = LLM(**arguments)
                _try_out(llm, vocabulary)
        except Exception as error:  # vLLM raises nearly everything, also of its own; the reason is in the text
            cleanup_dist_env_and_memory()  # or the next engine finds half of this one
            release_process()
            raise ModelError(f"vLLM cannot load {folder}: {_reason(error)}", _ADVICE) from error
        lora = None if adapter is None else LoRARequest(adapter.name, 1, str(adapter))
        worker = SemanticIdProcessor.made_here
        if worker is not None:
            llm.apply_model(worker.shorten)
        return cls(
            llm,
            vocabulary=vocabulary,
            score_mode=score_mode,
            batch_size=batch_size,
            runner=Runner(llm, local=worker is not None),
            lora=lora,
        )

    def with_score_mode(self, score_mode: ScoreMode) -> VllmEngine:
        """This engine with another score mode, over the same weights and the same batch."""
        other = copy.copy(self)
        check_score_mode(score_mode)
        other._score_mode = score_mode
        return other

    def with_adapter(self, adapter: Path | None, number: int) -> VllmEngine:
        """This engine with another LoRA (None: the base alone), over the same weights and the same batch.

        `number` from 1 is the adapter's own. Needs an engine that was loaded with an adapter; `max_loras` among the
        `options` of `load` says how many are held at once. Raises ConfigError for a number that another adapter has,
        ModelError for an adapter that this engine cannot hold.
        """
        other = copy.copy(self)
        other._lora = None if adapter is None else LoRARequest(_checked_adapter(adapter).name, number, str(adapter))
        if adapter is None:
            return other
        limits = self.llm.llm_engine.vllm_config.lora_config
        if limits is None:
            raise ModelError("the engine was loaded without an adapter.", "Load it with the first one (`adapter=`).")
        if (rank := _adapter_rank(adapter)) > limits.max_lora_rank:
            raise ModelError(
                f"the adapter {adapter} has rank {rank}; the engine was loaded for {limits.max_lora_rank}.",
                "Load the engine with the option `max_lora_rank`.",
            )
        known = self._adapters.setdefault(number, adapter)
        if known.resolve() != adapter.resolve():
            raise ConfigError(f"number {number} is that of the adapter {known}.", "Give every adapter its own.")
        return other

    def rank(
        self,
        prompts: Sequence[Sequence[int]],
        trie: ItemTrie,
        *,
        beam_width: BeamWidth,
        k: int,
        allowed: Sequence[ItemFilter | None] | None = None,
        evidence: Sequence[Evidence | None] | None = None,
        item_prompts: Sequence[Sequence[int] | None] | None = None,
        own_items: NDArray[np.bool_] | None = None,
    ) -> list[list[RankedItem]]:
        """See `Engine.rank`. Raises ModelError for an empty prompt and one beyond the model's context."""
        filters = check_request(trie, num_users=len(prompts), beam_width=beam_width, k=k, allowed=allowed)
        given = check_evidence(evidence, trie=trie, num_users=len(prompts))
        check_trie(trie, self._vocabulary)
        asked = check_item_prompts(item_prompts, num_users=len(prompts))
        self._check_prompts([*prompts, *(prompt for prompt in asked if prompt is not None)], trie.num_levels)
        answers: list[list[RankedItem]] = [[] for _ in prompts]
        users = answerable(filters)
        for start in range(0, len(users), self._batch_size):
            batch = users[start : start + self._batch_size]
            found = beam_search(
                VllmScorer(
                    self._runner,
                    [prompts[user] for user in batch],
                    vocabulary=self._vocabulary,
                    score_mode=self._score_mode,
                    lora=self._lora,
                    item_prompts=[asked[user] for user in batch],
                    own_items=own_items,
                ),
                trie,
                num_users=len(batch),
                beam_width=beam_width,
                k=k,
                score_mode=self._score_mode,
                allowed=[filters[user] for user in batch],
                evidence=[given[user] for user in batch],
            )
            for user, ranked in zip(batch, found, strict=True):
                answers[user] = ranked
        return answers

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Generation]:
        """See `Engine.generate`. Raises ConfigError for a bad option, ModelError for a prompt that is too long."""
        self._check_prompts(prompts, max_new_tokens)  # all of them before the first is under way
        written = [self._submit(prompt, max_new_tokens, temperature, stop, seed) for prompt in prompts]
        try:
            for text, ticket in written:
                for _ in self._pieces(text, ticket):
                    pass
        finally:
            for _, ticket in written:
                self._runner.cancel(ticket)
        return [text.finished() for text, _ in written]

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[str]:
        """See `Engine.stream`. The pieces joined are the text of `generate`; leaving early ends the request."""
        yield from self._pieces(*self._submit(prompt, max_new_tokens, temperature, stop, seed))

    def close(self) -> None:
        """Free the model, for engines that share it as well."""
        self._runner.close()

    def _opened(self) -> LLM:
        if self._runner.closed:
            raise ModelError("the engine is closed.", "Load the recommender again.")
        return self.llm

    def _check_prompts(self, prompts: Sequence[Sequence[int]], num_new_tokens: int) -> None:
        limit = int(self._opened().model_config.max_model_len)
        check_tokens(prompts, num_tokens=int(self.llm.model_config.get_vocab_size()))
        for row, prompt in enumerate(prompts):
            if len(prompt) + num_new_tokens > limit:
                raise PromptTooLongError(
                    f"prompt {row} needs {len(prompt) + num_new_tokens} tokens with what follows; the context is "
                    f"{limit} tokens.",
                    "Raise `max_model_len`, where the model can, or cut the oldest history.",
                )

    def _submit(
        self, prompt: Sequence[int], max_new_tokens: int, temperature: float, stop: Sequence[str], seed: int
    ) -> tuple[TextUnderWay, Ticket]:
        check_writing(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        self._check_prompts([prompt], max_new_tokens)
        params = SamplingParams(
            max_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            detokenize=False,
            ignore_eos=True,
            stop_token_ids=sorted(self._end_ids),
            output_kind=RequestOutputKind.DELTA,
            extra_args={WORDS: True},
        )
        text = TextUnderWay(self._tokenizer, end_ids=self._end_ids, stop=stop, max_new_tokens=max_new_tokens)
        return text, self._runner.submit(list(prompt), params, self._lora)

    def _pieces(self, text: TextUnderWay, ticket: Ticket) -> Iterator[str]:
        try:
            for output in self._runner.outputs(ticket):
                for token in output.new_token_ids:
                    text.add(token)
                piece = text.news()
                if piece:
                    yield piece
                if text.done:
                    return
        finally:
            self._runner.cancel(ticket)


def _try_out(llm: LLM, vocabulary: SidVocabulary) -> None:
    """Ask for one token: some of what vLLM cannot do, such as heads of a size without a kernel, it says only then."""
    once = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
    try:
        llm.generate({"prompt_token_ids": [vocabulary.first_token_ids[0]]}, once, use_tqdm=False)
    except Exception:
        cast(Any, llm.llm_engine.engine_core).shutdown()  # else whenever it is collected, under the next engine
        raise


def engine_arguments(folder: Path, vocabulary: SidVocabulary, *, dtype: str, adapter: Path | None) -> dict[str, Any]:
    """What `LLM` (or `AsyncEngineArgs`) is made with, and why where it is not vLLM's default."""
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": dtype,
        "logits_processors": [QUALIFIED_NAME],
        "logprobs_mode": "processed_logits",  # what the processor left, not what the model said
        "max_logprobs": max(size for _, size in vocabulary.groups),
        "enable_prefix_caching": True,
        "async_scheduling": False,  # threads take turns at stepping: no step may overlap another thread's
        "generation_config": "vllm",  # not the folder's: its top-k would cut the scores of codes
        "max_model_len": -1,  # what the model and the memory allow
        "trust_remote_code": False,
        "load_format": "safetensors",
        "disable_log_stats": True,
        "log_level": "ERROR",  # its log goes to standard output, where answers go
        "use_tqdm_on_load": False,
    }
    if current_platform.is_cpu():
        # Eager: compiling takes longer than most jobs, and needs a C++ compiler.
        arguments |= {"block_size": _CPU_BLOCK, "kv_cache_memory_bytes": _CPU_CACHE_BYTES, "enforce_eager": True}
    if adapter is not None:
        arguments |= {"enable_lora": True, "max_lora_rank": _adapter_rank(_checked_adapter(adapter)), "max_loras": 2}
    return arguments


_ADVICE = (
    "Use a merged export (`genrec export`) of an architecture that vLLM supports, or `--engine transformers`; "
    "for memory, lower `max_model_len` or raise `kv_cache_memory_bytes` (`--engine-option NAME=VALUE` or "
    "`engine_options`)."
)


def _check_options(options: Mapping[str, Any]) -> None:
    known = sorted(field.name for field in fields(EngineArgs))
    if unknown := sorted(options.keys() - set(known)):
        raise ConfigError(f"vLLM has no engine option {unknown[0]!r}.", f"It has: {', '.join(known)}.")


def _check_folder(folder: Path, vocabulary: SidVocabulary) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json.", "Check the path.")
    _generation_config(folder)
    known = SidVocabulary.load(folder)
    if vocabulary not in (known, known.of_catalogue(())):
        raise ModelError(f"{folder} was trained with other semantic IDs than those given.", "Train it again.")


def _checked_adapter(adapter: Path) -> Path:
    """The folder, if vLLM can serve it. Raises ModelError naming what it cannot."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{adapter} has no readable adapter_config.json.", "Check the path.") from error
    kind = config.get("peft_type")
    found = [] if kind == "LORA" else [f"is of PEFT's kind {kind}"]
    parts = [part for part in ("modules_to_save", "trainable_token_indices") if config.get(part)]
    found += [f"changes embeddings ({part}: {config[part]})" for part in parts]
    found += ["is weight-decomposed (use_dora)"] if config.get("use_dora") else []
    found += [f"changes biases (bias: {config['bias']})"] if config.get("bias", "none") != "none" else []
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter} has no adapter_model.safetensors.", "Save it with PEFT's safe serialisation.")
    if found:
        raise ModelError(
            f"the adapter {adapter} {' and '.join(found)}; vLLM serves LoRA adapters of linear layers only.",
            "Merge it into the base: `genrec export RUN --out DIR`.",
        )
    return adapter


def _adapter_rank(adapter: Path) -> int:
    """vLLM's next larger rank than the largest of any layer."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max(map(int, (config["r"], *(config.get("rank_pattern") or {}).values())))
    return next(size for size in (8, 16, 32, 64, 128, 256, 320, 512, rank) if size >= rank)


def _end_ids(folder: Path, tokenizer: Decoder) -> set[int]:
    """Tokens that end a text. Of generation_config.json this, and only this, is read."""
    configured = _generation_config(folder).get("eos_token_id")
    ends = configured if isinstance(configured, list) else [configured]
    # What answers are trained to end with is the tokenizer's own.
    return {int(end) for end in (*ends, tokenizer.eos_token_id) if end is not None}


def _generation_config(folder: Path) -> dict[str, Any]:
    """Nothing where there is none. Raises ModelError for a file that holds something else."""
    file = folder / "generation_config.json"
    try:
        found = json.loads(file.read_bytes()) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {error}.", "Export the model again, or mend the file.") from error
    ends = found.get("eos_token_id") if isinstance(found, dict) else ""
    if not all(end is None or type(end) is int for end in (ends if isinstance(ends, list) else [ends])):
        raise ModelError(
            f"{file} has no token numbers under eos_token_id.", "Export the model again, or mend the file."
        )
    return dict(found)


def _reason(error: Exception) -> str:
    """The last line that says something: vLLM wraps reasons in long validation reports."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("For further information")]
    return " ".join(told)[:500] if told else type(error).__name__
