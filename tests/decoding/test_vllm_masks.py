"""What else stands in a plain vLLM server's way: masks of its own before the trie is asked, adapters it cannot hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec.errors import ConfigError, ModelError
from genrec.trie import ItemTrie
from tests.decoding.test_vllm_processor import (
    CODES,
    NUM_TOKENS,
    SIZES,
    VOCABULARY,
    Runner,
    RunnerV1,
    RunnerV2,
    children,
    configuration,
    possible,
)

vllm = pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.decoding.conftest import run_with_trie

    folder = tmp_path_factory.mktemp("masks")
    run_with_trie(folder / "run", CODES, SIZES)
    return configuration(folder, genrec_trie=str(folder / "run" / "trie"))


@pytest.mark.parametrize("kind", [RunnerV1, RunnerV2])
@pytest.mark.parametrize("mode", ["level", "raw", "renormalised"])
def test_codes_that_were_all_taken_away_come_alike_and_nothing_else(config: Any, kind: type[Runner], mode: str) -> None:
    runner, allowed = kind(config), sorted(children([], CODES))
    logits = torch.zeros(1, NUM_TOKENS)
    logits[0, VOCABULARY.first_token_ids[0] : VOCABULARY.first_token_ids[0] + SIZES[0]] = -torch.inf
    runner.add(0, {"genrec_prefix": [], "genrec_score": mode})
    found = runner.apply(logits)[0]
    assert not found.isnan().any()
    assert possible(found) == set(allowed)
    assert len(set(found[allowed].tolist())) == 1


def test_as_many_tokens_as_somebody_likes_cannot_be_asked_of_an_item() -> None:
    from genrec.decoding.vllm_processor import SemanticIdProcessor

    asked = vllm.SamplingParams(max_tokens=5, min_tokens=5, stop_token_ids=[10], extra_args={"genrec_prefix": []})
    with pytest.raises(ValueError, match="min_tokens cannot stand beside genrec_"):
        SemanticIdProcessor.validate_params(asked)
    SemanticIdProcessor.validate_params(vllm.SamplingParams(max_tokens=5, min_tokens=5))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"use_dora": True}, "weight-decomposed"), ({"bias": "lora_only"}, "changes biases .bias: lora_only.")],
)
def test_an_adapter_that_vllm_would_fail_at_later_is_refused(
    changed: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    from genrec.decoding.vllm_engine import _checked_adapter

    config = {"peft_type": "LORA", "r": 4, "bias": "none"}
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert _checked_adapter(tmp_path) == tmp_path
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | changed))
    with pytest.raises(ModelError, match=f"{reason}.*genrec export"):
        _checked_adapter(tmp_path)


def test_the_rank_of_an_adapter_is_that_of_its_widest_layer(tmp_path: Path) -> None:
    from genrec.decoding.vllm_engine import _adapter_rank

    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "rank_pattern": {"q_proj": 60, "k_proj": 2}}))
    assert _adapter_rank(tmp_path) == 64
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "rank_pattern": None}))
    assert _adapter_rank(tmp_path) == 8


def test_the_base_of_a_run_is_refused_while_its_adapter_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match="alone it is not what was trained") as caught:
        RunnerV1(configuration(tmp_path / "model"))
    assert "genrec export" in caught.value.hint


def test_a_model_without_vocabulary_or_end_token_is_refused_when_the_server_starts(tmp_path: Path) -> None:
    ItemTrie.build(CODES, SIZES).save(tmp_path / "trie")
    endless = configuration(tmp_path, genrec_trie=str(tmp_path / "trie"), end=None)
    make: Callable[[], Any] = lambda: RunnerV1(endless)  # noqa: E731
    with pytest.raises(ConfigError, match="no end token"):
        make()
    (tmp_path / "semantic_id_vocabulary.json").unlink()
    with pytest.raises(ModelError, match="does not know semantic IDs"):
        make()
