"""Every engine in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.cases import PARAMETERS, Case, case, vllm_engine


@pytest.fixture(scope="module", autouse=True)
def _close_vllm() -> Iterator[None]:
    """A process holds one vLLM engine at a time, and tests of other modules need theirs."""
    yield
    if vllm_engine.cache_info().currsize:
        vllm_engine().close()
        vllm_engine.cache_clear()
        case.cache_clear()


@pytest.fixture(params=PARAMETERS)
def engine_case(request: pytest.FixtureRequest) -> Case:
    return case(*request.param)
