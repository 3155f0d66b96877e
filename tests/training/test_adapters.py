"""Adapters on tiny bases of real families: what learns, what stays as it was, and that all readers agree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from genrec import pipeline
from genrec.adapter import merge_adapter, output_layer, with_adapter
from genrec.config import LoraOptions, TrainConfig, build_config, load_config
from genrec.data.splits import evaluation_cases
from genrec.errors import ConfigError, ModelError
from genrec.preparation import resolve_base
from genrec.quantization import dequantized
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run
from genrec.training.adapters import (
    add_lora,
    remove_adapter,
    save_adapter,
    train_rows,
)
from genrec.training.model import load_base
from genrec.vocabulary import SidVocabulary, soft_prompt
from tests.training.conftest import BASES

BaseFolder = Callable[[str], Path]
NUM_ROWS = 16 + 30  # of tiny_files: two levels of eight codes, and the items
QUICK = {"epochs": 1, "batch_tokens": 512, "max_history_items": 6, "validation_users": 5, "precision": "float32"}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def settings(base: Path, **changes: Any) -> TrainConfig:
    return build_config(TrainConfig, {"base": str(base), "learning_rate": 5e-3, **QUICK, **changes}, source="test")


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def answers(recommender: Recommender, run: Run) -> tuple[list[list[int]], list[list[float]]]:
    cases = evaluation_cases(run, "test")
    ranked = recommender.rank([RankRequest(history) for history in list(cases.histories)[:8]], 10)
    return [[item.item_index for item in one] for one in ranked], [[item.score for item in one] for one in ranked]


def same_answers(one: Any, other: Any) -> bool:
    return one[0] == other[0] and all(np.allclose(a, b, atol=1e-4) for a, b in zip(one[1], other[1], strict=True))


@pytest.mark.parametrize("family", BASES)
def test_lora_keeps_the_base_and_its_rows_to_the_last_bit_and_every_reader_agrees(
    family: str, base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path
):
    run, base = Run(tiny_copy), weights(base_folder(family))
    before = answers(Recommender.load(tiny_copy), run)
    pipeline.train(run, settings(base_folder(family), adapter="lora", lora={"rank": 4}))
    kept = weights(tiny_copy / "model")
    assert kept.keys() == base.keys()
    first = SidVocabulary.load(tiny_copy / "model").first_token_ids[0]
    for name, weight in base.items():
        rows = first if name in (EMBEDDING, HEAD) else len(weight)
        assert torch.equal(kept[name][:rows], weight[:rows]), name
    trained = load_file(tiny_copy / "adapter" / "adapter_model.safetensors")
    assert any("lora_B" in name and weight.abs().max() > 0 for name, weight in trained.items())
    deltas = [weight for name, weight in trained.items() if "trainable_tokens" in name]
    assert [len(weight) for weight in deltas] == [NUM_ROWS] * (1 + (HEAD in base))
    loaded = answers(Recommender.load(tiny_copy), run)
    assert loaded != before
    model = AutoModelForCausalLM.from_pretrained(tiny_copy / "model", dtype=torch.float32)
    merged = weights_of(merge_adapter(model, tiny_copy / "adapter"))
    for name in {EMBEDDING, HEAD} & merged.keys():
        assert torch.equal(merged[name][:first], base[name][:first])
        assert not torch.equal(merged[name][first : first + NUM_ROWS], kept[name][first : first + NUM_ROWS])


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_a_live_adapter_ranks_as_the_merged_one(family: str, base_folder: BaseFolder, tiny_copy: Path):
    run = Run(tiny_copy)
    pipeline.train(run, settings(base_folder(family), adapter="lora", lora={"rank": 4, "rslora": True}))
    recommender = Recommender.load(tiny_copy)
    merged = answers(recommender, run)
    live = AutoModelForCausalLM.from_pretrained(tiny_copy / "model", dtype=torch.float32, attn_implementation="sdpa")
    with_adapter(live, tiny_copy / "adapter")
    recommender.engine._model = live
    assert same_answers(answers(recommender, run), merged)


def tiny_model(base_folder: BaseFolder, family: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(base_folder(family), dtype=torch.float32)


@pytest.mark.parametrize("family", ["qwen3", "qwen3-untied"])
def test_the_output_layer_of_a_wrapped_model_has_the_logits_of_the_merged_one(family: str, base_folder: BaseFolder):
    model = tiny_model(base_folder, family)
    rows = range(300, 310)
    adapted = train_rows(model, list(rows))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.normal_()
    hidden = torch.randn(3, 64)
    layer = output_layer(model)
    everything, part, others = layer(hidden), layer.logits(hidden, 302, 4), layer.logits(hidden, 5, 4)
    merged = adapted.merge_and_unload()
    expected = merged.get_output_embeddings()(hidden)
    torch.testing.assert_close(everything, expected)
    torch.testing.assert_close(part, expected[:, 302:306])
    torch.testing.assert_close(others, expected[:, 5:9])
    for gone in (slice(300, 310), slice(295, 305), slice(0, 304), slice(302, expected.shape[1])):
        kept = torch.cat([expected[:, : gone.start], expected[:, gone.stop :]], dim=1)
        torch.testing.assert_close(layer.logits_without(hidden, gone), kept)
    assert layer.out_features == expected.shape[1]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_qlora_trains_against_quantised_weights_and_leaves_plain_ones(
    quantization: str, base_folder: BaseFolder, tiny_copy: Path
):
    run, base = Run(tiny_copy), weights(base_folder("qwen3"))
    options = {"rank": 4, "quantization": quantization}
    report = pipeline.train(run, settings(base_folder("qwen3"), adapter="qlora", lora=options, row_epochs=1))
    kept = weights(tiny_copy / "model")
    assert kept.keys() == base.keys()
    assert "quantization_config" not in json.loads((tiny_copy / "model" / "config.json").read_text())
    first = SidVocabulary.load(tiny_copy / "model").first_token_ids[0]
    assert torch.equal(kept[EMBEDDING][:first], base[EMBEDDING][:first])
    linear = "model.layers.0.mlp.up_proj.weight"
    error = (kept[linear] - base[linear]).norm() / base[linear].norm()
    assert 0 < error < (0.1 if quantization == "nf4" else 0.01)
    assert len(answers(Recommender.load(tiny_copy), run)[0][0]) == 10
    assert report.facts["num_trained"] < 0.5 * report.facts["num_parameters"]


def test_directions_and_lengths_cannot_be_learned_beside_eight_bits(base_folder: BaseFolder):
    options = LoraOptions.model_validate({"rank": 4, "quantization": "int8", "dora": True})
    model, _ = load_base(settings(base_folder("llama"), adapter="qlora", lora=options.model_dump()), [])
    with pytest.raises(ConfigError, match=r"lora\.dora cannot learn beside int8.*nf4"):
        add_lora(model, options, rows=range(330, 340), seed=0)


@pytest.mark.parametrize(("quantization", "dora"), [("nf4", False), ("nf4", True), ("int8", False)])
def test_dequantised_weights_give_the_logits_of_the_quantised_model(
    quantization: str, dora: bool, base_folder: BaseFolder, tmp_path: Path
):
    options = LoraOptions.model_validate({"rank": 4, "quantization": quantization, "dora": dora})
    config = settings(base_folder("llama"), adapter="qlora", lora=options.model_dump())
    model, _ = load_base(config, [])
    adapted = add_lora(model, options, rows=range(330, 340), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "trainable_tokens_delta" in name:
                parameter.normal_(std=0.1)
    tokens = torch.arange(300, 340)[None]
    with torch.no_grad():
        expected = model.eval()(input_ids=tokens).logits
    save_adapter(adapted, tmp_path / "adapter")
    plain = dequantized(remove_adapter(adapted))
    assert {weight.dtype for weight in plain.state_dict().values()} == {torch.float32}
    with torch.no_grad():
        found = merge_adapter(plain, tmp_path / "adapter")(input_ids=tokens).logits
    # int8 also rounds what the layers read, which plain weights do not.
    torch.testing.assert_close(found, expected, atol=1e-4 if quantization == "nf4" else 0.05, rtol=1e-4)


def test_four_bits_of_rows_that_the_cpu_kernel_reads_wrongly_are_refused(base_folder: BaseFolder, tmp_path: Path):
    model = LlamaForCausalLM(LlamaConfig(vocab_size=400, hidden_size=96, intermediate_size=64, num_hidden_layers=1))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base_folder("llama")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"q_proj reads 96 numbers, and on a CPU .* multiple of 64"):
        load_base(settings(tmp_path, adapter="qlora"), [])
    load_base(settings(tmp_path, adapter="qlora", lora={"quantization": "int8"}), [])


def test_prompt_tuning_learns_rows_alone_and_every_prompt_begins_with_them(base_folder: BaseFolder, tiny_copy: Path):
    run, base = Run(tiny_copy), weights(base_folder("mistral"))
    report = pipeline.train(run, settings(base_folder("mistral"), adapter="prompt", prompt_tokens=5))
    tokenizer = AutoTokenizer.from_pretrained(tiny_copy / "model")
    soft = soft_prompt(tokenizer)
    assert tokenizer.convert_ids_to_tokens(soft) == [f"<soft_{number}>" for number in range(5)]
    recommender = Recommender.load(tiny_copy)
    assert recommender.prompt_tokens(np.array([1, 2], dtype=np.int32))[:6] == [tokenizer.bos_token_id, *soft]
    assert report.facts["num_trained"] == 2 * (NUM_ROWS + 5) * 64
    kept = weights(tiny_copy / "model")
    for name, weight in base.items():
        rows = soft[0] - NUM_ROWS if name in (EMBEDDING, HEAD) else len(weight)
        assert torch.equal(kept[name][:rows], weight[:rows]), name
    trained = load_file(tiny_copy / "adapter" / "adapter_model.safetensors")
    assert {tuple(weight.shape) for weight in trained.values()} == {(NUM_ROWS + 5, 64)}
    assert answers(recommender, run)[0][0]


def test_a_soft_prompt_is_trained_further_and_not_begun_anew(base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path):
    pipeline.train(Run(tiny_copy), settings(base_folder("qwen3"), adapter="prompt", prompt_tokens=4))
    other = Path(shutil.copytree(tiny_copy, tmp_path / "other"))
    still = {"learning_rate": 1e-12, "dropout": 0.0, "weight_decay": 0.0}
    pipeline.train(Run(other), settings(tiny_copy, adapter="prompt", prompt_tokens=4, **still))
    merged = []
    for folder in (tiny_copy, other):
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        merged.append(weights_of(merge_adapter(model, folder / "adapter"))[EMBEDDING])
    soft = soft_prompt(AutoTokenizer.from_pretrained(other / "model"))
    assert len(soft) == 4
    torch.testing.assert_close(merged[0][soft], merged[1][soft], atol=1e-6, rtol=0)


def test_full_training_changes_old_rows_and_removes_an_adapter_of_before(base_folder: BaseFolder, tiny_copy: Path):
    run, base = Run(tiny_copy), weights(base_folder("qwen3"))
    pipeline.train(run, settings(base_folder("qwen3"), adapter="lora", lora={"rank": 2}))
    assert (tiny_copy / "adapter").is_dir()
    pipeline.train(run, settings(base_folder("qwen3"), row_epochs=1))
    assert not (tiny_copy / "adapter").exists()
    kept = weights(tiny_copy / "model")
    assert all(not torch.equal(kept[name][: len(weight)], weight) for name, weight in base.items())
    run.require("train")


@pytest.mark.parametrize("named", ["run", "model"])
def test_a_run_with_an_adapter_as_the_base_starts_from_both(
    named: str, base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path, tiny_files: Path
):
    pipeline.train(Run(tiny_copy), settings(base_folder("qwen3"), adapter="lora", lora={"rank": 4}))
    other = Path(shutil.copytree(tiny_copy, tmp_path / "other"))
    path = tiny_copy if named == "run" else tiny_copy / "model"
    config, adapter = resolve_base(settings(path))
    assert (config.base, adapter) == (str(tiny_copy / "model"), tiny_copy / "adapter")
    pipeline.train(Run(other), settings(path, learning_rate=1e-9, adapter="lora"))
    assert same_answers(answers(Recommender.load(other), Run(other)), answers(Recommender.load(tiny_copy), Run(other)))
    with pytest.raises(ConfigError, match="has an adapter, which cannot be merged into quantised weights"):
        pipeline.train(Run(other), settings(path, adapter="qlora"))


def test_switches_change_what_is_learned(base_folder: BaseFolder):
    def trained(**options: Any) -> dict[str, Any]:
        model = tiny_model(base_folder, "llama")
        adapted = add_lora(model, LoraOptions.model_validate({"rank": 4, "alpha": 8, **options}), rows=[1], seed=0)
        names = {name for name, weight in model.named_parameters() if weight.requires_grad}
        layer = model.model.layers[0].self_attn.q_proj
        wrapped = {
            name
            for name, module in adapted.named_modules()
            if type(module).__name__ == "Linear" and "lora" in str(type(module))
        }
        return {"names": names, "scale": getattr(layer, "scaling", {}).get("default"), "wrapped": wrapped}

    plain, stable, dora = trained(), trained(rslora=True), trained(dora=True)
    assert (plain["scale"], stable["scale"]) == (2.0, 4.0)
    assert any("lora_magnitude_vector" in name for name in dora["names"] - plain["names"])
    few = trained(targets=["v_proj"])
    assert len(few["wrapped"]) == 2 < len(plain["wrapped"]) == 14
    with pytest.raises(ModelError, match="LoRA cannot be put into LlamaForCausalLM"):
        trained(targets=["nothing"])


@pytest.mark.parametrize("family", ["qwen3", "qwen3-untied"])
@pytest.mark.parametrize("target", ["embed_tokens", "lm_head", "model.embed_tokens"])
def test_lora_beside_the_embedding_or_the_output_is_refused(family: str, target: str, base_folder: BaseFolder):
    options = LoraOptions(rank=4, targets=("q_proj", target))
    with pytest.raises(ModelError, match=rf"lora\.targets names {target}: .* Name other linear layers"):
        add_lora(tiny_model(base_folder, family), options, rows=[1], seed=0)


def test_rows_have_a_rate_of_their_own(base_folder: BaseFolder, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch):
    from genrec.training.loop import _optimizer

    model = tiny_model(base_folder, "qwen3")
    add_lora(model, LoraOptions(), rows=[1, 2], seed=0)
    config = settings(Path("x"), learning_rate=1e-3, row_learning_rate=4e-3)
    shares = {tuple(group["params"][0].shape): group["share"] for group in _optimizer(model, config).param_groups}
    assert shares[(2, 64)] == pytest.approx(4.0)
    assert [share for shape, share in shares.items() if shape != (2, 64)] == [1.0]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"adapter": "lora"}, "adapter lora needs a trained base, and `scratch` is random"),
        ({"row_epochs": 1}, "row_epochs needs a trained base"),
        ({"base": "x", "adapter": "ia3"}, "adapter"),
        ({"base": "x", "lora": {"rank": 0}}, "rank"),
        ({"base": "x", "lora": {"quantization": "fp4"}}, "quantization"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        build_config(TrainConfig, values, source="options")


def test_an_output_layer_with_a_bias_is_refused():
    model = PhiForCausalLM(
        PhiConfig(vocab_size=320, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ModelError, match="the output layer of PhiForCausalLM has a bias"):
        train_rows(model, [1, 2])


def remove_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def cut_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "problem"), [(remove_config, "is not an adapter"), (cut_weights, "does not fit its model")]
)
def test_a_damaged_adapter_is_named(
    damage: Callable[[Path], None], problem: str, base_folder: BaseFolder, tmp_path: Path
):
    save_adapter(add_lora(tiny_model(base_folder, "qwen3"), LoraOptions(), rows=[1], seed=0), tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(ModelError, match=problem) as caught:
        with_adapter(tiny_model(base_folder, "qwen3"), tmp_path / "adapter")
    assert str(tmp_path / "adapter") in caught.value.message


def test_an_adapter_of_another_base_is_refused(base_folder: BaseFolder, tmp_path: Path):
    save_adapter(add_lora(tiny_model(base_folder, "qwen3"), LoraOptions(), rows=[310], seed=0), tmp_path)
    other = tiny_model(base_folder, "llama")
    other.resize_token_embeddings(200)
    with pytest.raises(ModelError, match="does not fit its model"):
        with_adapter(other, tmp_path)


def test_the_command_line_trains_an_adapter(
    genrec: Callable[..., Any], base_folder: BaseFolder, tiny_copy: Path, tiny_files: Path
):
    options: Sequence[Any] = ("--adapter", "lora", "--epochs", 1, "--row-epochs", 1, "--learning-rate", 0.001)
    done = genrec("train", tiny_copy, "--config", tiny_files / "train.yaml", "--base", base_folder("qwen3"), *options)
    assert done.status == 0, done.err
    stored = Run(tiny_copy).stages["train"]
    assert (stored.config["adapter"], stored.config["row_epochs"]) == ("lora", 1)
    assert "of them trained" in done.out
    assert "adapter/adapter_model.safetensors" in stored.outputs
    assert load_config(TrainConfig, tiny_files / "train.yaml").adapter == "none"
    assert genrec("evaluate", tiny_copy, "--config", tiny_files / "evaluate.yaml").status == 0
    refused = genrec("train", tiny_copy, "--config", tiny_files / "train.yaml", "--adapter", "lora")
    assert (refused.status, "needs a trained base" in refused.err) == (2, True)


def test_an_int8_base_whose_activations_are_large_can_be_trained(
    base_folder: BaseFolder, tiny_copy: Path, tmp_path: Path
):
    base = Path(shutil.copytree(base_folder("llama"), tmp_path / "base"))
    kept = weights(base)
    # Beyond 6 bitsandbytes reads whole columns in another way, and which ones depends on the batch.
    loud = {name: weight * 4 if "norm" in name else weight for name, weight in kept.items()}
    save_file(loud, base / "model.safetensors", {"format": "pt"})
    pipeline.train(Run(tiny_copy), settings(base, adapter="qlora", lora={"quantization": "int8"}))
    assert Recommender.load(tiny_copy).recommend(["i1"], k=3)
