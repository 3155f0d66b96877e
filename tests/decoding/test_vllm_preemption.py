"""Item requests that vLLM takes out of its batch and puts back, while the catalogue changes: driven, and for real."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary
from tests.decoding.conftest import run_with_trie
from tests.decoding.test_vllm_processor import (
    CODES,
    END,
    SIZES,
    VOCABULARY,
    RunnerV1,
    RunnerV2,
    children,
    configuration,
    parameters,
    possible,
    random_logits,
)

vllm = pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")


class PreemptingV1(RunnerV1):
    """Rows that go and come back: V1 keeps a request's parameters and the list of what it has written."""

    def begin(self, row: int, params: Any, output: list[int]) -> None:
        self._outputs[row] = output
        self._updates.added.append((row, params, [1, 2, 3], output))

    def preempt(self, row: int) -> list[int]:
        written = self._outputs[row]
        self.remove(row)
        self.update()
        return written


class PreemptingV2(RunnerV2):
    """Slots that are freed and taken again, with what was written behind the prompt."""

    def begin(self, row: int, params: Any, output: list[int]) -> None:
        name = f"request {next(self._numbers)}"
        self._states.add_request(name, 3, [1, 2, 3, *output], 0, 8)
        slot = self._slots[row] = self._states.req_id_to_index[name]
        self._lengths[row] = 3 + len(output)
        assert self._processor.add_request(slot, params)
        # What the staged write would put there, with a kernel that a CPU does not have.
        self._states.all_token_ids.gpu[slot, 3 : 3 + len(output)] = torch.tensor(output, dtype=torch.int32)
        self._processor.apply_staged_writes()

    def preempt(self, row: int) -> list[int]:
        slot, length = self._slots[row], self._lengths[row]
        written: list[int] = self._states.all_token_ids.gpu[slot, 3:length].tolist()
        self.remove(row)
        return written


def without(codes: np.ndarray[Any, np.dtype[np.int64]], prefix: list[int], trie: ItemTrie) -> ItemTrie:
    """The next version of a catalogue, in which no item under a prefix is left."""
    gone = (codes[:, : len(prefix)] == prefix).all(axis=1)
    return ItemTrie.build(codes, trie.codebook_sizes, live=~gone, order_checksum=trie.order_checksum)


@pytest.mark.parametrize("kind", [PreemptingV1, PreemptingV2])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_request_that_comes_back_goes_on_in_the_catalogue_that_it_began_with(
    kind: type[PreemptingV1 | PreemptingV2], deleted: bool, tmp_path: Path
) -> None:
    old = run_with_trie(tmp_path / "run", CODES, SIZES)
    runner = kind(configuration(tmp_path, genrec_trie=str(tmp_path / "run" / "trie")))
    first, second, _ = CODES[7].tolist()
    allowed = CODES[np.arange(len(CODES)) != 3]
    params = parameters({"genrec_prefix": [], "genrec_exclude": [3]})
    runner.begin(0, params, [])
    assert possible(runner.apply(random_logits(1, 1))[0]) == children([], allowed)
    runner.sampled(0, VOCABULARY.first_token_ids[0] + first)
    assert possible(runner.apply(random_logits(1, 2))[0]) == children([first], allowed)
    runner.sampled(0, VOCABULARY.first_token_ids[1] + second)
    written = runner.preempt(0)
    new = without(CODES, [first, second], old)
    new.save(tmp_path / "run" / "trie")
    if deleted:  # nobody could open it again
        shutil.rmtree(tmp_path / "run" / "trie" / old.version)
    runner.begin(0, params, written)
    runner.begin(1, parameters({"genrec_prefix": [], "genrec_exclude": [3]}), [])
    again, other = runner.apply(random_logits(2, 3))
    assert possible(again) == children([first, second], allowed)  # and not the end of half an item
    assert possible(other) == children([], CODES[np.setdiff1d(new.items, [3])])
    runner.sampled(0, min(possible(again)))
    assert possible(runner.apply(random_logits(2, 4))[0]) == {END}


def test_parameters_that_are_used_twice_ask_for_the_catalogue_of_now_each_time(tmp_path: Path) -> None:
    old = run_with_trie(tmp_path / "run", CODES, SIZES)
    runner = PreemptingV1(configuration(tmp_path, genrec_trie=str(tmp_path / "run" / "trie")))
    params = parameters({"genrec_prefix": []})
    runner.begin(0, copy.copy(params), [])  # what vLLM makes of them at admission
    runner.apply(random_logits(1, 1))
    new = without(CODES, CODES[7, :1].tolist(), old)
    new.save(tmp_path / "run" / "trie")
    runner.begin(1, copy.copy(params), [])
    found = runner.apply(random_logits(2, 2))
    assert possible(found[0]) == children([], CODES)
    assert possible(found[1]) == children([], CODES[np.sort(new.items)])


def test_where_an_item_began_cannot_be_said_from_outside() -> None:
    with pytest.raises(ValueError, match="unknown argument 'genrec_begun'"):
        parameters({"genrec_prefix": [], "genrec_begun": [0, 3]})


def test_vllm_itself_preempts_a_request_and_the_item_is_whole(vllm_folder: Path, tmp_path: Path) -> None:
    from genrec.decoding.vllm_engine import VllmEngine

    codes = np.array([[a, b] for a in range(4) for b in range(4)])
    old = run_with_trie(tmp_path / "run", codes, (4, 4))
    options = {"kv_cache_memory_bytes": 1 << 26, "additional_config": {"genrec_trie": str(tmp_path / "run" / "trie")}}
    engine = VllmEngine.load(vllm_folder, vocabulary=SidVocabulary.load(vllm_folder), options=options)
    try:
        params = vllm.SamplingParams(
            max_tokens=3, temperature=0.0, detokenize=False, stop_token_ids=[2], extra_args={"genrec_prefix": []}
        )
        outputs = engine._runner.outputs(engine._runner.submit([1, 2, 3], params))
        tokens = list(next(outputs).new_token_ids)
        without(codes, [tokens[0] - 40], old).save(tmp_path / "run" / "trie")
        scheduler = engine.llm.llm_engine.engine_core.engine_core.scheduler  # type: ignore[attr-defined]
        assert len(scheduler.running) == 1
        assert scheduler.reset_prefix_cache(reset_running_requests=True)
        assert not scheduler.running
        for output in outputs:
            tokens += output.new_token_ids
    finally:
        engine.close()
    first, second, end = tokens
    assert 40 <= first < 44 <= second < 48  # of the catalogue in which it began
    assert end == 2
