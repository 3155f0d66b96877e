"""A plain `vllm serve` with our processor, as docs/vllm.md says, asked by the OpenAI client."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch

from genrec.decoding.transformers_engine import TransformersEngine
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary
from tests.decoding.conftest import run_with_trie

pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")

CODES = np.array([[0, 1], [0, 3], [1, 1], [2, 0], [2, 2], [3, 3]])
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8], [3, 3, 2]]


@dataclass
class Server:
    client: openai.OpenAI
    folder: Path  # of the model, with run/trie in it
    trie: ItemTrie
    reference: TransformersEngine

    def items(self, prompt: list[int], *, options: dict[str, Any] | None = None, **arguments: Any) -> list[int | None]:
        """Item indices that the server writes for a prompt, None for an empty answer; anything else is an error."""
        answer = self.client.completions.create(
            model="tiny", prompt=prompt, max_tokens=3, extra_body={"vllm_xargs": arguments}, **(options or {})
        )
        return [self._item(choice.text) for choice in answer.choices]

    def _item(self, text: str) -> int | None:
        if not text:
            return None
        found = re.fullmatch("<s0_([0-3])><s1_([0-3])>", text)
        assert found, text
        return CODES.tolist().index([int(code) for code in found.groups()])


@pytest.fixture(scope="module")
def server(vllm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = Path(shutil.copytree(vllm_folder, tmp_path_factory.mktemp("serve") / "model"))
    trie = run_with_trie(folder / "run", CODES, (4, 4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        folder,
        "--served-model-name",
        "tiny",
    ]
    command += ["--generation-config", "vllm", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--logits-processors", "genrec.decoding.vllm_processor:SemanticIdProcessor"]
    command += ["--logprobs-mode", "processed_logits", "--max-logprobs", "4"]
    command += ["--additional-config", json.dumps({"genrec_trie": str(folder / "run" / "trie")})]
    command += ["--enforce-eager", "--kv-cache-memory-bytes", str(1 << 26), "--block-size", "32"]
    environment = os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    log = []
    assert process.stdout is not None
    for line in process.stdout:
        log.append(line)
        if "Application startup complete" in line:
            break
    assert process.poll() is None, "".join(log[-40:])
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    reference = TransformersEngine.load(vllm_folder, vocabulary=SidVocabulary.load(vllm_folder))
    yield Server(client, folder, trie, reference)
    process.terminate()
    process.communicate()


def test_a_greedy_answer_is_the_item_that_a_search_with_one_beam_finds(server: Server) -> None:
    excluded = [[], [0], [0, 2, 5], [1, 3, 4]]
    filters = [ItemFilter.excluding(server.trie, np.array(items, np.int64)) for items in excluded]
    expected = server.reference.rank(PROMPTS, server.trie, beam_width=1, k=1, allowed=filters)
    for prompt, items, (best,) in zip(PROMPTS, excluded, expected, strict=True):
        found = server.items(prompt, options={"temperature": 0}, genrec_prefix=[], genrec_exclude=items)
        assert found == [best.item_index]


def test_sampled_answers_are_items_that_are_allowed(server: Server) -> None:
    found = server.items(
        PROMPTS[0], options={"temperature": 2, "n": 40, "seed": 1}, genrec_prefix=[], genrec_exclude=[1, 4]
    )
    assert set(found) <= {0, 2, 3, 5}
    assert len(set(found)) > 1
    wished = server.items(
        PROMPTS[0], options={"temperature": 2, "n": 40}, genrec_prefix=[], genrec_allow=["genres=A", "genres=C"]
    )
    assert set(wished) <= {0, 2, 3, 5}
    assert len(set(wished)) > 1


def test_log_probabilities_of_a_prefix_are_those_of_its_level(server: Server) -> None:
    answer = server.client.completions.create(
        model="tiny",
        prompt=PROMPTS[0],
        max_tokens=1,
        temperature=0,
        logprobs=4,
        extra_body={"vllm_xargs": {"genrec_level": 0}},
    )
    (scores,) = answer.choices[0].logprobs.top_logprobs  # type: ignore[union-attr,misc]
    assert sorted(scores) == [f"<s0_{code}>" for code in range(4)]
    assert np.exp(list(scores.values())).sum() == pytest.approx(1, abs=1e-5)


def test_text_is_written_as_without_the_processor_and_in_words_alone_where_asked(server: Server) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(server.folder)
    tokens = model.generate(torch.tensor(PROMPTS[:1]), max_new_tokens=8, do_sample=False, repetition_penalty=1.0)
    free = AutoTokenizer.from_pretrained(server.folder).decode(tokens[0, len(PROMPTS[0]) :], skip_special_tokens=True)
    asked: dict[str, Any] = {"model": "tiny", "prompt": PROMPTS[0], "max_tokens": 8, "temperature": 0}
    assert server.client.completions.create(**asked).choices[0].text == free
    (words,) = server.reference.generate(PROMPTS[:1], max_new_tokens=8)
    answer = server.client.completions.create(**asked, extra_body={"vllm_xargs": {"genrec_words": 1}})
    assert answer.choices[0].text == words.text


def test_bad_arguments_are_refused_and_prefixes_of_no_item_answered_with_nothing(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="genrec_prefix is no list"):
        server.items(PROMPTS[0], genrec_prefix=[-1])
    with pytest.raises(openai.BadRequestError, match="unknown argument 'genrec_prefex'"):
        server.items(PROMPTS[0], genrec_prefex=[0])
    with pytest.raises(openai.BadRequestError, match="genrec_allow is no list"):
        server.items(PROMPTS[0], genrec_prefix=[], genrec_allow=["x" * 1001 + "=y"])
    assert server.items(PROMPTS[0], genrec_prefix=[17]) == [None]
    assert server.items(PROMPTS[0], genrec_prefix=[], genrec_exclude=list(range(6))) == [None]


def test_a_new_version_of_the_catalogue_is_served_without_a_restart(server: Server) -> None:
    new = ItemTrie.build(CODES, (4, 4), live=np.arange(6) == 3)
    new.save(server.folder / "run" / "trie")
    sampled = {"temperature": 2, "n": 20}
    assert set(server.items(PROMPTS[0], options=sampled, genrec_prefix=[])) == {3}
    assert len(set(server.items(PROMPTS[0], options=sampled, genrec_prefix=[], genrec_version=server.trie.version))) > 1
    assert server.items(PROMPTS[0], genrec_prefix=[], genrec_version="0" * 12) == [None]
