"""The logits processor on both of vLLM's interfaces, driven by vLLM's own classes, against a table of items."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary
from tests.decoding.conftest import run_with_trie

vllm = pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")

SIZES = (5, 3, 4)
VOCABULARY = SidVocabulary(SIZES, (10, 20, 24))
NUM_TOKENS, END = 32, 2
CODES = np.unique(np.random.default_rng(0).integers(0, SIZES, (20, 3)), axis=0)


def configuration(folder: Path, **options: Any) -> Any:
    """vLLM's own configuration of a model folder that needs no weights here."""
    from transformers import Qwen3Config
    from vllm.engine.arg_utils import EngineArgs

    shape = {"vocab_size": NUM_TOKENS, "hidden_size": 64, "num_attention_heads": 2, "head_dim": 32}
    architecture = {"architectures": ["Qwen3ForCausalLM"], "eos_token_id": options.pop("end", END)}
    Qwen3Config(**shape, **architecture, num_hidden_layers=1, num_key_value_heads=1).save_pretrained(folder)
    VOCABULARY.save(folder)
    return EngineArgs(model=str(folder), skip_tokenizer_init=True, additional_config=options).create_engine_config()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("processor")
    run_with_trie(folder / "run", CODES, SIZES)
    return configuration(folder, genrec_trie=str(folder / "run" / "trie"))


class RunnerV1:
    """What the V1 runner does with a processor: rows that are added, moved and removed."""

    def __init__(self, config: Any) -> None:
        from vllm.v1.sample.logits_processor import BatchUpdateBuilder, build_logitsprocs

        built = build_logitsprocs(config, torch.device("cpu"), False, False, [NAME])
        (self.processor,) = [one for one in built.all if type(one).__name__ == "SemanticIdProcessor"]
        self._updates, self._outputs = BatchUpdateBuilder(), dict[int, list[int]]()

    def add(self, row: int, arguments: dict[str, Any]) -> None:
        self._outputs[row] = []
        self._updates.added.append((row, parameters(arguments), [1, 2, 3], self._outputs[row]))

    def remove(self, row: int) -> None:
        self._updates.removed_append(row)
        del self._outputs[row]

    def swap(self, one: int, other: int) -> None:
        from vllm.v1.sample.logits_processor import MoveDirectionality

        self._updates.moved.append((one, other, MoveDirectionality.SWAP))
        self._outputs[one], self._outputs[other] = self._outputs[other], self._outputs[one]

    def update(self) -> None:
        self.processor.update_state(self._updates.get_and_reset(len(self._outputs)))

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        self.update()
        return self.processor.apply(logits.clone())  # type: ignore[no-any-return]

    def sampled(self, row: int, token: int) -> None:
        self._outputs[row].append(token)


class RunnerV2:
    """What Model Runner V2 does with a processor: slots of its request states, rows in any order."""

    def __init__(self, config: Any) -> None:
        import vllm.v1.worker.cpu.shm  # noqa: F401  # vLLM's stand-ins for pinned memory
        from vllm.v1.worker.gpu.sample.logits_processor import build_custom_logits_processors
        from vllm.v1.worker.gpu.states import RequestState

        self._states = RequestState(8, 64, 64, 1, NUM_TOKENS, torch.device("cpu"))
        (self._processor,) = build_custom_logits_processors(config, self._states, False, [NAME])
        self._slots, self._lengths = dict[int, int](), dict[int, int]()  # of each row
        self._numbers = itertools.count()

    def add(self, row: int, arguments: dict[str, Any]) -> None:
        if row in self._slots:
            self.remove(row)
        name = f"request {next(self._numbers)}"
        self._states.add_request(name, 3, [1, 2, 3], 0, 8)
        slot = self._slots[row] = self._states.req_id_to_index[name]
        self._lengths[row] = 3
        assert self._processor.add_request(slot, parameters(arguments)) == bool(arguments)
        self._processor.apply_staged_writes()

    def remove(self, row: int) -> None:
        self._states.remove_request(self._states.index_to_req_id[self._slots.pop(row)])
        del self._lengths[row]

    def swap(self, one: int, other: int) -> None:
        for of in (self._slots, self._lengths):
            of[one], of[other] = of[other], of[one]

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

        slots = np.array([self._slots[row] for row in range(len(logits))], dtype=np.int32)
        rows, nothing = torch.from_numpy(slots), torch.zeros(len(logits), dtype=torch.int64)
        lengths = np.array([self._lengths[row] for row in range(len(logits))], dtype=np.int32)
        context = LogitsContext(rows, rows, slots, nothing, nothing, torch.from_numpy(lengths - 1), lengths)
        return self._processor.apply(logits.clone(), context)

    def sampled(self, row: int, token: int) -> None:
        self._states.all_token_ids.gpu[self._slots[row], self._lengths[row]] = token
        self._lengths[row] += 1


NAME = "genrec.decoding.vllm_processor:SemanticIdProcessor"
Runner = RunnerV1 | RunnerV2


def parameters(arguments: dict[str, Any]) -> Any:
    from genrec.decoding.vllm_processor import SemanticIdProcessor

    made = vllm.SamplingParams(extra_args=arguments)
    SemanticIdProcessor.validate_params(made)
    return made


@pytest.fixture(params=[RunnerV1, RunnerV2])
def runner(request: pytest.FixtureRequest, config: Any) -> Runner:
    return request.param(config)  # type: ignore[no-any-return]


def random_logits(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, NUM_TOKENS, generator=torch.Generator().manual_seed(seed))


def possible(row: torch.Tensor) -> set[int]:
    return set(torch.isfinite(row).nonzero().flatten().tolist())


def children(prefix: list[int], codes: NDArray[np.int64]) -> set[int]:
    level = len(prefix)
    below = codes[(codes[:, :level] == prefix).all(axis=1)]
    return {int(code) + VOCABULARY.first_token_ids[level] for code in below[:, level]}


@pytest.mark.parametrize("mode", ["level", "raw"])
def test_level_scores_are_log_probabilities_of_that_level_and_others_are_untouched(runner: Runner, mode: str) -> None:
    logits = random_logits(3, 1)
    runner.add(0, {"genrec_level": 1, "genrec_score": mode})
    runner.add(1, {})
    runner.add(2, {"genrec_level": 1, "genrec_score": mode})
    found = runner.apply(logits)
    torch.testing.assert_close(found[1], logits[1])
    for row in (0, 2):
        assert possible(found[row]) == {20, 21, 22}
        expected = logits[row].log_softmax(-1)[20:23] if mode == "raw" else logits[row, 20:23].log_softmax(-1)
        torch.testing.assert_close(found[row, 20:23], expected)


def test_all_rows_of_one_level_score_as_each_row_alone(runner: Runner) -> None:
    logits = random_logits(4, 2)
    for row in range(4):
        runner.add(row, {"genrec_level": 2})
    found = runner.apply(logits)
    for row in range(4):
        torch.testing.assert_close(found[row, 24:28], logits[row, 24:28].log_softmax(-1))
        assert possible(found[row]) == {24, 25, 26, 27}


@pytest.mark.parametrize("mode", ["level", "raw"])
def test_scores_are_handed_over_to_whoever_waits_for_them(runner: Runner, mode: str) -> None:
    from genrec.decoding.vllm_local import Scores

    logits, one, other = random_logits(4, 3), Scores(2), Scores(1)
    runner.add(0, {"genrec_level": 1, "genrec_score": mode, "genrec_scores": (one, 1)})
    runner.add(1, {})
    runner.add(2, {"genrec_level": 1, "genrec_score": mode, "genrec_scores": (other, 0)})
    runner.add(3, {"genrec_level": 1, "genrec_score": mode, "genrec_scores": (one, 0)})
    with pytest.raises(RuntimeError, match="did not hand over"):
        one.collected()
    torch.testing.assert_close(runner.apply(logits), logits)  # their own answers are nobody's, others' stay
    columns = slice(20, 23)
    expected = logits.log_softmax(-1)[:, columns] if mode == "raw" else logits[:, columns].log_softmax(-1)
    np.testing.assert_allclose(one.collected(), expected[[3, 0]].numpy(), rtol=1e-6)
    np.testing.assert_allclose(other.collected(), expected[[2]].numpy(), rtol=1e-6)
    with pytest.raises(RuntimeError, match="did not hand over"):
        one.collected()  # they are not held any longer than they are needed
    again = random_logits(4, 4)  # a prompt that is read in parts: its last part counts
    runner.apply(again)
    expected = again.log_softmax(-1)[:, columns] if mode == "raw" else again[:, columns].log_softmax(-1)
    np.testing.assert_allclose(one.collected(), expected[[3, 0]].numpy(), rtol=1e-6)


def shortened(config: Any, runner: RunnerV1) -> tuple[torch.nn.Linear, Callable[[], torch.Tensor], torch.Tensor]:
    """An output matrix in vLLM's last layer, a step of two rows through what `shorten` made of it, and all logits."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.logits_processor import LogitsProcessor
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    head = torch.nn.Linear(8, NUM_TOKENS).requires_grad_(False)
    head.quant_method, head.tp_size = UnquantizedEmbeddingMethod(), 1  # type: ignore[assignment]
    head.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]
    model = torch.nn.Module()
    with set_current_vllm_config(config):
        model.logits_processor = LogitsProcessor(NUM_TOKENS, scale=0.5, soft_cap=2.0)
        model.logits_processor.head_dtype = torch.float32
    hidden = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    full = model.logits_processor(head, hidden, head.bias)
    runner.processor.shorten(model)

    def logits() -> torch.Tensor:
        runner.update()
        return model.logits_processor(head, hidden, head.bias)  # type: ignore[no-any-return]

    return head, logits, full


def test_only_codes_are_multiplied_where_nothing_else_is_asked_for(config: Any) -> None:
    from genrec.decoding.vllm_local import Scores

    runner = RunnerV1(config)
    head, logits, full = shortened(config, runner)
    scores = Scores(2)
    for row in range(2):
        runner.add(row, {"genrec_level": 2, "genrec_scores": (scores, row)})
    found = logits()
    torch.testing.assert_close(found, full[:, 10:28])  # from the first code to the last: scaled and capped as all
    runner.processor.apply(found)
    np.testing.assert_allclose(scores.collected(), full[:, 24:28].log_softmax(-1).detach().numpy(), rtol=1e-5)
    for other in ({}, {"genrec_level": 2}, {"genrec_prefix": []}, {"genrec_level": 2, "genrec_score": "raw"}):
        runner.add(1, other | ({"genrec_scores": (scores, 1)} if "genrec_score" in other else {}))
        torch.testing.assert_close(logits(), full)  # somebody needs the other tokens
    runner.add(1, {"genrec_level": 0, "genrec_scores": (scores, 1)})
    assert logits().shape == (2, 18)
    head.tp_size = 2  # type: ignore[assignment]  # a part of the matrix is elsewhere
    with pytest.raises(Exception, match="parallel"):
        logits()  # vLLM's own layer asks for the other part


@pytest.mark.parametrize("mode", ["level", "raw", "renormalised"])
def test_an_item_request_can_only_go_to_children_and_scores_them_as_its_mode_says(runner: Runner, mode: str) -> None:
    logits = random_logits(1, 3)
    prefix = CODES[7, :1].tolist()
    runner.add(0, {"genrec_prefix": prefix, "genrec_score": mode})
    found = runner.apply(logits)[0]
    tokens = sorted(children(prefix, CODES))
    assert possible(found) == set(tokens)
    over = {"level": [20, 21, 22], "raw": list(range(NUM_TOKENS)), "renormalised": tokens}[mode]
    torch.testing.assert_close(found[tokens], logits[0, tokens] - logits[0, over].logsumexp(-1))


def test_random_batches_only_ever_finish_items_that_exist_and_are_not_excluded(runner: Runner) -> None:
    """Four requests at a time; rows come, go and swap places; whoever ends is followed by another."""
    rng = np.random.default_rng(0)
    excluded: dict[int, list[int]] = {}
    written: dict[int, list[int]] = {}

    def start(row: int) -> None:
        excluded[row] = rng.choice(len(CODES), rng.integers(0, len(CODES)), replace=False).tolist()
        written[row] = []
        runner.add(row, {"genrec_prefix": [], "genrec_exclude": excluded[row]})

    for row in range(4):
        start(row)
    finished = 0
    for step in range(120):
        logits = runner.apply(random_logits(4, step))
        for row in range(4):
            allowed = np.delete(CODES, excluded[row], axis=0)
            codes = [token - first for token, first in zip(written[row], VOCABULARY.first_token_ids, strict=False)]
            expected = children(codes, allowed) if len(codes) < len(SIZES) else {END}
            assert possible(logits[row]) == expected
            token = int(torch.multinomial(logits[row].softmax(-1), 1))
            written[row].append(token)
            runner.sampled(row, token)
            if token == END:
                finished += 1
                assert codes in allowed.tolist()
                start(row)  # in its place
        one, other = rng.choice(4, 2, replace=False).tolist()
        runner.swap(one, other)
        for of in (excluded, written):
            of[one], of[other] = of[other], of[one]  # type: ignore[index]
    assert finished > 80


def test_only_items_with_the_attributes_that_were_asked_for_can_come(runner: Runner) -> None:
    asked = ["genres=A", "genres=C", "year=1991"]
    runner.add(0, {"genrec_prefix": [], "genrec_allow": asked, "genrec_exclude": [3]})
    runner.add(1, {"genrec_prefix": [], "genrec_exclude": [3]})
    left = np.array([n % 3 != 1 and n % 2 == 1 and n != 3 for n in range(len(CODES))])
    first, second = (possible(row) for row in runner.apply(random_logits(2, 5)))
    assert first == children([], CODES[left])
    assert second == children([], CODES[np.arange(len(CODES)) != 3])


def test_rows_of_requests_that_are_gone_are_left_alone(runner: Runner) -> None:
    for row in range(3):
        runner.add(row, {"genrec_level": 0})
    runner.apply(random_logits(3, 7))
    runner.remove(2)
    runner.apply(random_logits(2, 8))
    runner.add(2, {})
    logits = random_logits(3, 9)
    torch.testing.assert_close(runner.apply(logits)[2], logits[2])


def test_a_text_keeps_all_words_and_no_code_in_its_own_row_alone(runner: Runner) -> None:
    runner.add(0, {})
    runner.add(1, {"genrec_words": 1})  # as over HTTP
    logits = random_logits(2, 4)
    free, words = runner.apply(logits)
    torch.testing.assert_close(free, logits[0])
    assert possible(words) == set(range(10)) | set(range(28, NUM_TOKENS))
    torch.testing.assert_close(words[:10], logits[1, :10])


@pytest.mark.parametrize(
    "arguments",
    [
        {"genrec_prefix": [4, 2, 3, 1]},
        {"genrec_prefix": [900]},
        {"genrec_prefix": [], "genrec_exclude": list(range(len(CODES)))},
        {"genrec_prefix": [], "genrec_exclude": [5_000]},
        {"genrec_prefix": [], "genrec_allow": ["colour=red"]},
        {"genrec_prefix": [], "genrec_allow": ["genres=Z"]},
        {"genrec_prefix": [], "genrec_version": "0123456789ab"},
        {"genrec_level": 3},
    ],
)
def test_what_fits_no_catalogue_ends_with_an_empty_answer(runner: Runner, arguments: dict[str, Any]) -> None:
    runner.add(0, arguments)
    assert possible(runner.apply(random_logits(1, 4))[0]) == {END}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"genrec_level": -1}, "genrec_level is -1"),
        ({"genrec_level": "1"}, "genrec_level is '1'"),
        ({"genrec_level": True}, "genrec_level is True"),
        ({"genrec_level": 0, "genrec_prefix": []}, "expected one of"),
        ({"genrec_exclude": [1]}, "expected one of"),
        ({"genrec_words": True, "genrec_prefix": []}, "expected one of"),
        ({"genrec_words": True, "genrec_score": "raw"}, "nothing else of genrec"),
        ({"genrec_words": "yes"}, "genrec_words is true"),
        ({"genrec_level": 0, "genrec_exclude": [1]}, "go with genrec_prefix"),
        ({"genrec_prefix": 3}, "genrec_prefix is no list"),
        ({"genrec_prefix": [-1]}, "genrec_prefix is no list"),
        ({"genrec_prefix": [1 << 16]}, "genrec_prefix is no list"),
        ({"genrec_prefix": [0] * 65}, "genrec_prefix is no list"),
        ({"genrec_prefix": [], "genrec_exclude": [1 << 31]}, "genrec_exclude is no list"),
        ({"genrec_prefix": [], "genrec_exclude": [0.5]}, "genrec_exclude is no list"),
        ({"genrec_prefix": [], "genrec_allow": {"genres": "A"}}, "genrec_allow is no list"),
        ({"genrec_prefix": [], "genrec_allow": ["genres"]}, "genrec_allow is no list"),
        ({"genrec_prefix": [], "genrec_allow": ["genres=A"] * 1001}, "genrec_allow is no list"),
        ({"genrec_level": 0, "genrec_allow": ["genres=A"]}, "go with genrec_prefix"),
        ({"genrec_prefix": [], "genrec_version": "../secret"}, "genrec_version is"),
        ({"genrec_prefix": [], "genrec_score": "best"}, "genrec_score is 'best'"),
        ({"genrec_prefx": []}, "unknown argument 'genrec_prefx'"),
        ({"genrec_level": 0, "genrec_scores": [3, 0]}, "genrec_scores is for searches inside of one process"),
        ({"genrec_prefix": [], "genrec_scores": "here"}, "genrec_scores is for searches inside of one process"),
    ],
)
def test_arguments_that_no_catalogue_could_fit_are_refused_at_admission(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parameters(arguments)


def test_a_new_catalogue_serves_new_requests_while_old_ones_keep_theirs(tmp_path: Path) -> None:
    old = ItemTrie.build(CODES, SIZES)
    old.save(tmp_path / "trie")
    runner = RunnerV1(configuration(tmp_path, genrec_trie=str(tmp_path / "trie")))
    runner.add(0, {"genrec_prefix": []})
    runner.apply(random_logits(1, 5))
    ItemTrie.build([[4, 0, 1]], SIZES).save(tmp_path / "trie")
    runner.add(1, {"genrec_prefix": []})
    runner.add(2, {"genrec_prefix": [], "genrec_version": old.version})
    found = runner.apply(random_logits(3, 6))
    assert possible(found[0]) == possible(found[2]) == children([], CODES)
    assert possible(found[1]) == {14}
