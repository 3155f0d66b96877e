"""An exported model is one plain folder that gives the run's logits and reads every semantic ID."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from genrec import pipeline
from genrec.data.catalog import Catalog
from genrec.data.splits import evaluation_cases
from genrec.decoding.transformers_engine import TransformersEngine, _end_ids
from genrec.errors import ModelError, RunError
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds
from genrec.training.export import export, neutral_generation
from genrec.vocabulary import SidVocabulary, sid_token
from tests.training.test_adapters import settings

BaseFolder = Callable[[str], Path]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {"adapter": "lora", "lora": {"rank": 4, "dora": True}}),
    ("qwen3-untied", {"adapter": "lora", "lora": {"rank": 4, "rslora": True}, "row_epochs": 1}),
    ("llama", {"adapter": "qlora", "lora": {"rank": 4}}),
    ("gemma3", {"adapter": "lora", "lora": {"rank": 4}}),
    ("mistral", {"adapter": "prompt"}),
    ("gemma", {}),
]


@pytest.mark.parametrize(("family", "changes"), CASES, ids=[f"{name}-{kind.get('adapter')}" for name, kind in CASES])
def test_the_folder_is_the_same_model_without_anything_of_ours(
    family: str, changes: dict[str, Any], base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path
):
    run, out = Run(tiny_copy), tmp_path / "exported"
    pipeline.train(run, settings(base_folder(family), learning_rate=2e-2, **changes))
    report = export(run, out)
    assert report.facts["largest_logit_difference"] < 1e-3
    assert report.facts["adapter_merged"] == ("adapter" in changes)
    assert report.facts["num_items_round_tripped"] == 30

    # Read by transformers alone, it ranks as the run does.
    recommender = Recommender.load(tiny_copy)
    requests = [RankRequest(history) for history in list(evaluation_cases(run, "test").histories)[:6]]
    expected = recommender.rank(requests, 10)
    recommender.engine = TransformersEngine.load(out, vocabulary=SidVocabulary.load(out))
    for one, other in zip(expected, recommender.rank(requests, 10), strict=True):
        assert [item.item_index for item in one] == [item.item_index for item in other]
        np.testing.assert_allclose([item.score for item in one], [item.score for item in other], atol=1e-4)

    tokenizer = AutoTokenizer.from_pretrained(out)
    codes = SemanticIds.load(run, catalog=Catalog.load(run)).codes
    text = "".join(sid_token(level, code) for row in codes.tolist() for level, code in enumerate(row))
    ids = SidVocabulary.load(out).token_ids(codes).ravel().tolist()
    assert tokenizer.encode(text, add_special_tokens=False) == ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    said = json.loads((out / "generation_config.json").read_text())
    assert not {"top_k", "top_p", "temperature", "repetition_penalty"} & {k for k, v in said.items() if v is not None}
    assert not said.get("do_sample")
    assert not list(out.glob("adapter*"))
    assert json.loads((out / "config.json").read_text()).get("quantization_config") is None


def test_a_plain_run_is_exported_to_the_last_bit_and_again_over_itself(tiny_copy: Path, tmp_path: Path):
    for _ in range(2):
        report = export(Run(tiny_copy), tmp_path / "out")
    assert report.facts["largest_logit_difference"] == 0.0
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_copy / "model", tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_rows_of_words_are_those_of_the_base(base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path):
    pipeline.train(Run(tiny_copy), settings(base_folder("qwen3"), adapter="lora", row_epochs=1))
    export(Run(tiny_copy), tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(base_folder("qwen3")).get_input_embeddings().weight
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").get_input_embeddings().weight
    first = SidVocabulary.load(tmp_path / "out").first_token_ids[0]
    assert first > 300
    assert torch.equal(base[:first], merged[:first])


def test_a_folder_with_something_else_in_it_is_left_alone(tiny_copy: Path, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError, match="exists and is no exported model"):
        export(Run(tiny_copy), tmp_path)
    assert [path.name for path in tmp_path.glob("*.txt")] == ["thesis.txt"]


def test_a_run_is_never_written_over(tiny_copy: Path, tmp_path: Path):
    other = Path(shutil.copytree(tiny_copy, tmp_path / "other"))
    for folder in (tiny_copy / "model", other / "model", tiny_copy / "deeper" / "exported"):
        with pytest.raises(RunError, match=r"lies in the run .*Name a folder outside of any run"):
            export(Run(tiny_copy), folder)
    for run in (tiny_copy, other):
        Run(run).require("train")
    assert not (tiny_copy / "deeper").exists()


def test_weights_that_are_not_numbers_are_not_exported_and_a_folder_of_before_stays(tiny_copy: Path, tmp_path: Path):
    export(Run(tiny_copy), tmp_path / "out")
    proven = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    file = tiny_copy / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(RunError, match="checksum differs"):
        export(Run(tiny_copy), tmp_path / "out")
    record = Run(tiny_copy).path / "manifest.json"
    manifest = json.loads(record.read_text())
    from genrec.run import file_checksum

    manifest["stages"]["train"]["outputs"]["model/model.safetensors"] = file_checksum(file)
    record.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="does not give the logits of the run"):
        export(Run(tiny_copy), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == proven
    with pytest.raises(ModelError, match="does not give the logits of the run"):
        export(Run(tiny_copy), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_the_command_prints_the_proof(genrec: Callable[..., Any], tiny_copy: Path, tmp_path: Path):
    done = genrec("export", tiny_copy, "--out", tmp_path / "out", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["num_items_round_tripped"] == 30
    assert genrec("export", tiny_copy).status == 2


@pytest.mark.parametrize(("configured", "expected"), [(None, 2), (2, 2), (5, [5, 2]), ([7, 8], [7, 8, 2])])
def test_what_answers_are_trained_to_end_with_ends_a_text_beside_what_the_base_names(configured: Any, expected: Any):
    tokenizer: Any = SimpleNamespace(bos_token_id=None, eos_token_id=2, pad_token_id=0)
    model: Any = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=configured))
    assert neutral_generation(model, tokenizer).eos_token_id == expected
    assert _end_ids(model, tokenizer) == set(expected if isinstance(expected, list) else [expected])
