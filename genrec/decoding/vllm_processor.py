"""The part of genrec that runs inside vLLM's worker: logits in, scores of valid codes out.

One class serves both of vLLM's interfaces, the V1 runner's and Model Runner V2's. vLLM gets it by name:

    vllm serve RUN/model --logits-processors genrec.decoding.vllm_processor:SemanticIdProcessor …

Never register it as an entry point: vLLM would load it everywhere, and processors of others break on one runner.

A request says what it wants in `extra_args` (`vllm_xargs` over HTTP):

- `genrec_level`: log-probabilities of this level's codes and −inf for all other tokens; behind the last level those of
  the items' own tokens, where the model knows such. `VllmEngine` asks for this
  and keeps trie, filters and other evidence on its own side, so the worker knows no catalogue and cannot mix two.
  `genrec_scores` is a place in this process that gets them (`vllm_local`); such a request's own answer means nothing.
- `genrec_prefix`: the codes of an item chosen so far, `[]` at first. Only codes that lead to an item of the
  catalogue stay possible, and the end token behind the last one. `genrec_exclude` leaves out item indices;
  `genrec_allow`, such as `["genres=Comedy", "year=1994", "year=1995"]`, demands attributes, of each one of the values;
  `genrec_version` holds the request to one version of the catalogue.
- `genrec_words`: text alone, without any token of an item or of its codes; `VllmEngine` writes all its texts so.
- `genrec_score`: `level` (default), `raw` or `renormalised`; see `ScoreMode`.

What does not fit the catalogue (a prefix of no item, a version that is gone, an index beyond the last item) leaves
the end token alone: the answer is empty, never an item that does not exist.

Shapes: B rows of the batch, V vocabulary, K codes of a level.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from vllm.v1.sample.logits_processor import LogitsProcessor as ProcessorV1
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as ProcessorV2
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcRequestState

from genrec.decoding.engine import ScoreMode
from genrec.decoding.trie_shelf import TrieShelf
from genrec.decoding.vllm_local import Scores, install_code_head
from genrec.errors import ConfigError, GenrecError, ModelError
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

QUALIFIED_NAME = "genrec.decoding.vllm_processor:SemanticIdProcessor"
LEVEL, SCORES, PREFIX, WORDS, EXCLUDE, ALLOW, VERSION, SCORE = (
    "genrec_level",
    "genrec_scores",
    "genrec_prefix",
    "genrec_words",
    "genrec_exclude",
    "genrec_allow",
    "genrec_version",
    "genrec_score",
)
_BEGUN = "genrec_begun"  # where a request began, for the worker alone: refused from outside as any unknown name
TRIE_OPTION = "genrec_trie"  # in vLLM's additional_config: the folder RUN/trie

_LOG = logging.getLogger(__name__)
_MODES = ("level", "raw", "renormalised")
_MAX_LEVELS, _MAX_CODES, _MAX_ITEMS = 64, 1 << 16, 1 << 31  # what a trie can hold at most
_OTHER_MASKS = ("allowed_token_ids", "bad_words", "structured_outputs", "min_tokens")  # of vLLM's parameters
_MAX_EXCLUDED, _MAX_ALLOWED = 100_000, 1000


@dataclass
class _Request:
    """One request of the batch. `output` is what it generated itself, the list that vLLM appends to (V1 only)."""

    score_mode: ScoreMode
    level: int
    scores: tuple[Scores, int] | None = None  # where they go, and which beam this is
    walk: _Walk | None = None  # None: scores of one level, no catalogue
    words: bool = False  # neither: a text
    output: Sequence[int] = ()


@dataclass
class _Walk:
    """Where an item request stands in the trie. An empty range is a dead end."""

    trie: ItemTrie
    item_filter: ItemFilter | None
    lo: int
    hi: int
    level: int = 0
    walked: int = 0  # generated tokens that were followed


class SemanticIdProcessor(ProcessorV1, ProcessorV2):  # type: ignore[misc]  # vLLM is optional: its types are Any here
    """Leaves semantic-ID codes their log-probabilities and everything else −inf, for requests that ask for it."""

    made_here: SemanticIdProcessor | None = None  # the latest one of this process

    def __init__(self, vllm_config: Any, place: Any, is_pin_memory: bool = False) -> None:
        """vLLM calls this in the worker: V1 with a device as `place`, V2 with its request states.

        Raises ModelError for a model folder without semantic-ID vocabulary and for a run's base without the adapter
        that lies beside it, TrieError for a bad trie folder.
        """
        prepare_cpu()
        model = Path(vllm_config.model_config.model)
        is_base = (model.parent / "adapter").is_dir() and (model.parent / "manifest.json").is_file()
        if is_base and vllm_config.lora_config is None:
            raise ModelError(
                f"{model} is the base of a run whose adapter lies beside it: alone it is not what was trained.",
                f"Export the run (`genrec export {model.parent} --out FOLDER`) and serve FOLDER.",
            )
        self._vocabulary = SidVocabulary.load(model)
        self._states: LogitsProcRequestState | None = place if isinstance(place, LogitsProcRequestState) else None
        folder = vllm_config.additional_config.get(TRIE_OPTION)
        self._shelf = None if folder is None else TrieShelf(Path(folder), self._vocabulary)
        self._end = _end_token(vllm_config.model_config.hf_text_config)
        if self._shelf is not None and self._end is None:
            raise ConfigError("the model has no end token (eos_token_id), which item requests end with.")
        self._requests: dict[int, _Request] = {}  # by row (V1) or slot (V2)
        levels = len(self._vocabulary.codebook_sizes)
        firsts, ends = zip(*((first, first + size) for first, size in self._vocabulary.groups), strict=True)
        self._codes = slice(min(firsts[:levels]), max(ends[:levels]))
        self._items = slice(ends[-1] - len(self._vocabulary.item_rows), ends[-1])
        self._only: tuple[int, slice] | None = None  # rows of the batch, and what all of them ask for (V1)
        self._multiplied = slice(0, None)  # what the last logits are of
        SemanticIdProcessor.made_here = self

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse arguments that no catalogue could fit, before the worker sees them. Raises ValueError.

        Neither may vLLM take codes away before the trie is asked: where none is left that the trie allows, anything
        could come.
        """
        arguments = sampling_params.extra_args or {}
        check_arguments(arguments)
        others = [name for name in _OTHER_MASKS if getattr(sampling_params, name, None)]
        if others and any(name.startswith("genrec_") for name in arguments):
            raise ValueError(f"{others[0]} cannot stand beside genrec_… arguments: the trie says what may come")

    def is_argmax_invariant(self) -> bool:
        """V1: whether greedy decoding may skip this processor. It may not."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """V1: requests that came, went or moved to other rows."""
        process_dict_updates(self._requests, batch_update, lambda params, _, output: self._request(params, output))
        if batch_update is not None:
            wanted = [one for one in self._requests.values() if one.scores is not None and one.score_mode != "raw"]
            kinds = {one.level == len(self._vocabulary.codebook_sizes) for one in wanted}
            alone = len(wanted) == batch_update.batch_size and len(kinds) == 1
            self._only = (len(wanted), self._items if kinds == {True} else self._codes) if alone else None

    def shorten(self, model: nn.Module) -> None:
        """Have the model multiply no more rows of its output matrix than a step needs (V1)."""
        install_code_head(model, wanted=self._rows_of_output)

    def _rows_of_output(self, num_rows: int) -> slice | None:
        """The tokens whose logits a step of so many rows needs; None for all."""
        only = self._only[1] if self._only is not None and self._only[0] == num_rows else None
        self._multiplied = only or slice(0, None)
        return only

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """V2: a request takes a slot, in which another one may have been. True where its logits will change."""
        request = self._request(sampling_params, ())
        self._requests.pop(req_idx, None)
        if request is not None:
            self._requests[req_idx] = request
        return request is not None

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Change the rows of requests that asked for it, in place, float32 (B, V). `ctx` is V2's batch layout.

        From a `CodeHead` come no more than the tokens that all of the step's requests ask for.
        """
        if not self._requests:
            return logits
        slots = range(len(logits)) if ctx is None else ctx.idx_mapping_np.tolist()
        groups: dict[tuple[int, ScoreMode, bool], list[int]] = defaultdict(list)
        for row, slot in enumerate(slots):
            request = self._requests.get(slot)
            if request is None:
                continue
            if request.words:
                logits[row, self._vocabulary.span] = -torch.inf
            elif request.walk is None:
                groups[request.level, request.score_mode, request.scores is not None].append(row)
            else:
                self._follow(request.walk, self._generated(request, row, slot, ctx))
                self._restrict(logits[row], request.walk, request.score_mode)
        for (level, mode, handed), rows in groups.items():
            if handed:
                wanted = [cast("tuple[Scores, int]", self._requests[slots[row]].scores) for row in rows]
                self._hand_over(logits, rows, level, mode, wanted)
            else:
                self._score_level(logits, rows, level, mode)
        return logits

    def _request(self, params: Any, output: Sequence[int]) -> _Request | None:
        arguments: dict[str, Any] = params.extra_args or {}
        mode = cast(ScoreMode, arguments.get(SCORE, "level"))
        if WORDS in arguments:
            return _Request(mode, 0, words=True)
        if LEVEL in arguments and arguments[LEVEL] < len(self._vocabulary.groups):
            return _Request(mode, arguments[LEVEL], arguments.get(SCORES))
        if PREFIX in arguments or LEVEL in arguments:
            # vLLM takes a request out when memory runs short and puts it back later, as if it were new but with the
            # same parameters: by them it finds the catalogue that what it has written so far is of.
            if _BEGUN not in arguments:
                params.extra_args = arguments = {**arguments, _BEGUN: self._walk(arguments)}  # no other request's dict
            return _Request(mode, 0, walk=replace(arguments[_BEGUN]), output=output)
        return None

    def _walk(self, arguments: Mapping[str, Any]) -> _Walk:
        """Where an item request begins, in the catalogue of now or of the version that it names."""
        trie = None if self._shelf is None else self._shelf.get(arguments.get(VERSION))
        if trie is None or PREFIX not in arguments:
            return _Walk(_NO_TRIE, None, 0, 0)
        try:
            item_filter = self._filter(trie, arguments.get(ALLOW), arguments.get(EXCLUDE))
        except GenrecError as error:  # what this catalogue does not have; raising here would end the worker
            _LOG.warning("a request is answered with nothing: %s", error)
            return _Walk(trie, None, 0, 0)
        except Exception:  # nor may a manifest that nobody can read
            _LOG.exception("the catalogue beside the trie cannot be read")
            return _Walk(trie, None, 0, 0)
        walk = _Walk(trie, item_filter, 0, trie.num_items)
        for code in arguments[PREFIX]:
            _descend(walk, code)
        return walk

    def _filter(self, trie: ItemTrie, allow: Sequence[str] | None, excluded: Sequence[int] | None) -> ItemFilter | None:
        removed = np.asarray(excluded or (), np.int64)
        if not allow:
            return ItemFilter.excluding(trie, removed) if len(removed) else None
        wanted: dict[str, list[str]] = defaultdict(list)
        for name, _, value in (one.partition("=") for one in allow):
            wanted[name].append(value)
        assert self._shelf is not None
        return self._shelf.filter(trie, wanted).without(removed)

    def _generated(self, request: _Request, row: int, slot: int, ctx: Any) -> Sequence[int]:
        """Tokens that the request has generated so far."""
        if self._states is None:
            return request.output
        start = int(self._states.prompt_len.np[slot])
        count = int(ctx.seq_lens_upper_bound_np[row]) - start
        if count <= 0:  # nothing yet: no need to wait for the device
            return ()
        return cast(list[int], self._states.all_token_ids.gpu[slot, start : start + count].tolist())

    def _follow(self, walk: _Walk, tokens: Sequence[int]) -> None:
        for token in tokens[walk.walked :]:
            inside = walk.level < walk.trie.num_levels
            _descend(walk, token - self._vocabulary.first_token_ids[walk.level] if inside else -1)
        walk.walked = len(tokens)

    def _restrict(self, row: Tensor, walk: _Walk, mode: ScoreMode) -> None:
        """Leave one row (V,) the codes below `walk`, or the end token where there are none.

        Where all of these are impossible (−inf: something before took them away), each is as likely as any other: a
        row without a number that may come would let anything come.
        """
        codes = _live_codes(walk)
        if not len(codes):
            row.fill_(-torch.inf)
            row[self._end if self._end is not None else 0] = 0.0
            return
        tokens = torch.from_numpy(codes + self._vocabulary.first_token_ids[walk.level]).to(row.device)
        kept = row[tokens]
        if mode == "renormalised":
            values = kept.log_softmax(dim=-1)
        else:
            first, size = self._vocabulary.first_token_ids[walk.level], self._vocabulary.codebook_sizes[walk.level]
            values = kept - (row if mode == "raw" else row[first : first + size]).logsumexp(dim=-1)
        values = torch.where(torch.isneginf(kept).all(), torch.zeros_like(values), values)
        row.fill_(-torch.inf)
        row[tokens] = values

    def _hand_over(
        self, logits: Tensor, rows: list[int], level: int, mode: ScoreMode, wanted: list[tuple[Scores, int]]
    ) -> None:
        """Give log-probabilities of one level's codes to those who wait for them; the logits stay as they are."""
        part = logits if len(rows) == len(logits) else logits[rows]
        values = self._level_values(part, level, mode)
        places: dict[int, tuple[Scores, list[int], list[int]]] = {}
        for number, (scores, beam) in enumerate(wanted):
            _, numbers, beams = places.setdefault(id(scores), (scores, [], []))
            numbers.append(number)
            beams.append(beam)
        for scores, numbers, beams in places.values():
            scores.put(beams, values if len(numbers) == len(values) else values[numbers])

    def _level_values(self, logits: Tensor, level: int, mode: ScoreMode) -> Tensor:
        """Log-probabilities of one level's codes, a copy (B, K), from logits (B, V) or those of `_multiplied`."""
        first, size = self._vocabulary.groups[level]
        first -= self._multiplied.start
        values = logits[:, first : first + size].clone()
        values -= (logits if mode == "raw" else values).logsumexp(dim=-1, keepdim=True)
        return values

    def _score_level(self, logits: Tensor, rows: list[int], level: int, mode: ScoreMode) -> None:
        """Log-probabilities of one level's codes for some rows, −inf elsewhere."""
        # All rows at once need no copy of B × V; so it is when a beam search fills the batch.
        part = logits if len(rows) == len(logits) else logits[rows]
        values = self._level_values(part, level, mode)
        first, _ = self._vocabulary.groups[level]
        part.fill_(-torch.inf)
        part[:, first : first + values.shape[1]] = values
        if part is not logits:
            logits[rows] = part


def prepare_cpu() -> None:
    """Ask the kernel for the AMX state; without it bfloat16 ends the process with an illegal instruction."""
    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError, saying what is wrong, for `genrec_…` arguments of a request that cannot be meant."""
    ours = {name: value for name, value in arguments.items() if name.startswith("genrec_")}
    unknown = sorted(ours.keys() - {LEVEL, SCORES, PREFIX, WORDS, EXCLUDE, ALLOW, VERSION, SCORE})
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]!r}; genrec knows {LEVEL}, {PREFIX}, {WORDS}, {EXCLUDE}, …")
    if ours and len(ours.keys() & {LEVEL, PREFIX, WORDS}) != 1:
        raise ValueError(f"expected one of {LEVEL}, {PREFIX} and {WORDS} beside {', '.join(sorted(ours))}")
    if WORDS in ours and (len(ours) > 1 or ours[WORDS] not in (True, 1)):
        raise ValueError(f"{WORDS} is true, and nothing else of genrec goes with it")
    if SCORES in ours and not (LEVEL in ours and _is_place(ours[SCORES])):
        raise ValueError(f"{SCORES} is for searches inside of one process")
    if LEVEL in ours and ours.keys() & {EXCLUDE, ALLOW, VERSION}:
        raise ValueError(f"{EXCLUDE}, {ALLOW} and {VERSION} go with {PREFIX}")
    if LEVEL in ours and not _whole(ours[LEVEL], _MAX_LEVELS):
        raise ValueError(f"{LEVEL} is {ours[LEVEL]!r}; expected a whole number from 0")
    for name, longest, limit in ((PREFIX, _MAX_LEVELS, _MAX_CODES), (EXCLUDE, _MAX_EXCLUDED, _MAX_ITEMS)):
        values = ours.get(name, [])
        if not isinstance(values, list) or len(values) > longest or not all(_whole(one, limit) for one in values):
            raise ValueError(f"{name} is no list of at most {longest:,} whole numbers from 0 to {limit - 1:,}")
    allow = ours.get(ALLOW, [])
    texts = isinstance(allow, list) and all(isinstance(one, str) and "=" in one for one in allow)
    if not texts or max(len(allow), *map(len, allow), 0) > _MAX_ALLOWED:
        raise ValueError(f"{ALLOW} is no list of at most {_MAX_ALLOWED:,} short texts such as 'genres=Comedy'")
    if ours.get(SCORE, "level") not in _MODES:
        raise ValueError(f"{SCORE} is {ours[SCORE]!r}; expected one of {', '.join(_MODES)}")
    if VERSION in ours and not (isinstance(ours[VERSION], str) and re.fullmatch("[0-9a-f]{12}", ours[VERSION])):
        raise ValueError(f"{VERSION} is {ours[VERSION]!r}; expected 12 hexadecimal digits")


_NO_TRIE = ItemTrie.build(np.zeros((1, 1), np.int64), (1,))


def _is_place(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Scores)


def _whole(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _descend(walk: _Walk, code: int) -> None:
    """Go to the child with this code; to a dead end where there is none."""
    if walk.hi > walk.lo and walk.level < walk.trie.num_levels:
        below = walk.trie.children(walk.level, np.array([walk.lo]), np.array([walk.hi]))
        (found,) = np.nonzero(below.code == code)
        walk.lo, walk.hi = (int(below.lo[found[0]]), int(below.hi[found[0]])) if len(found) else (0, 0)
    else:
        walk.lo = walk.hi = 0
    walk.level += 1


def _live_codes(walk: _Walk) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Codes of the next level that lead to an allowed item; none at a leaf and at a dead end."""
    if walk.hi <= walk.lo or walk.level >= walk.trie.num_levels:
        return np.zeros(0, np.int64)
    below = walk.trie.children(walk.level, np.array([walk.lo]), np.array([walk.hi]))
    return below.code if walk.item_filter is None else below.code[walk.item_filter.alive(below.lo, below.hi)]


def _end_token(config: Any) -> int | None:
    ends = config.eos_token_id
    return (ends[0] if ends else None) if isinstance(ends, list) else ends
