"""`genrec serve --engine vllm` as a process: vLLM's own options reach it, and it answers as the transformers engine."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from genrec.recommender import Recommender
from tests.server.conftest import Process

pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")


def test_a_service_on_vllm_answers_what_the_transformers_engine_answers(
    serve: Callable[..., Process], tiny_copy: Path, tiny_files: Path, genrec: Callable[..., Any]
) -> None:
    config = (tiny_files / "train.yaml").read_text().replace("heads: 2", "heads: 1")  # heads of 32, as vLLM needs
    (tiny_copy / "train.yaml").write_text(config)
    assert genrec("train", tiny_copy, "--config", tiny_copy / "train.yaml").status == 0
    options = ["max_model_len=64", f"kv_cache_memory_bytes={1 << 26}"]
    flags = [word for option in options for word in ("--engine-option", option)]
    database = f"sqlite:///{tiny_copy / 'c.sqlite'}"
    process = serve(tiny_copy, "--port", "0", "--database", database, "--engine", "vllm", *flags)
    here = Recommender.load(tiny_copy)
    expected = here.recommend(["i3", "i6"], k=5)
    process.wait_until_ready(300)
    body = {"history": ["i3", "i6"], "k": 5}
    answer = httpx.post(f"{process.address}/v1/recommendations", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert [item["item_id"] for item in answer.json()["items"]] == [item.item_id for item in expected]
    histories = [[f"i{number % 30}", f"i{(number + 7) % 30}"] for number in range(40)]  # several batches under way

    def items_for(history: list[str]) -> list[str]:
        told = httpx.post(f"{process.address}/v1/recommendations", json=body | {"history": history}, timeout=60)
        return [item["item_id"] for item in told.json()["items"]]

    with ThreadPoolExecutor(20) as many:
        found = list(many.map(items_for, histories))
    assert found == [[item.item_id for item in one] for one in here.recommend(histories, k=5)]
    assert process.end(signal.SIGTERM) in {0, -signal.SIGTERM}
