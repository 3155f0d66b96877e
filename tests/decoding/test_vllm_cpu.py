"""What bfloat16 on a CPU with AMX needs of the process: without it, the first product ends the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrec.errors import ModelError
from genrec.vocabulary import SidVocabulary
from tests.decoding.test_vllm_processor import RunnerV1, configuration

pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")


@pytest.fixture(params=[True, False])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, list[str]]:
    """A CPU with AMX and one without, as torch tells; and what torch is asked for."""
    asked: list[str] = []
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: request.param)
    monkeypatch.setattr("torch.cpu._init_amx", lambda: asked.append("AMX"))
    return request.param, asked


def test_a_worker_asks_for_the_amx_state_where_there_is_one(machine: tuple[bool, list[str]], tmp_path: Path) -> None:
    """The worker of a plain `vllm serve`, where nothing of ours runs before."""
    has_amx, asked = machine
    RunnerV1(configuration(tmp_path))
    assert bool(asked) is has_amx


def test_an_engine_asks_for_the_amx_state_before_vllm_computes(
    machine: tuple[bool, list[str]], vllm_folder: Path
) -> None:
    from genrec.decoding.vllm_engine import VllmEngine

    has_amx, asked = machine
    with pytest.raises(ModelError, match="vLLM cannot load"):  # it gets no further than vLLM's own reading of options
        VllmEngine.load(vllm_folder, vocabulary=SidVocabulary.load(vllm_folder), dtype="int4")
    assert bool(asked) is has_amx
