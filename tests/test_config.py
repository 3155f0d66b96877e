"""Configurations: YAML in, YAML out, every mistake named with its key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from genrec.config import (
    AlignConfig,
    Config,
    EmbedConfig,
    EvaluateConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
    build_config,
    dump_config,
    load_config,
)
from genrec.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]

KINDS = [IngestConfig, EmbedConfig, AlignConfig, TokenizeConfig, TrainConfig, EvaluateConfig]


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_survives_json_and_yaml(kind: type[Config], tmp_path: Path):
    values = dump_config(kind())
    assert kind.model_validate(json.loads(json.dumps(values))) == kind()
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_config(kind, path) == kind()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path):
    path = tmp_path / "train.yaml"
    path.write_text("epochs: 3\nscratch: {layers: 2}\n")
    config = load_config(TrainConfig, path)
    default = TrainConfig()
    assert (config.epochs, config.scratch.layers) == (3, 2)
    assert dump_config(config) | {"epochs": 0, "scratch": {}} == dump_config(default) | {"epochs": 0, "scratch": {}}
    assert config.scratch.hidden_size == default.scratch.hidden_size


def test_the_recipe_that_was_measured_is_what_training_does_without_a_file():
    assert load_config(TrainConfig, ROOT / "train" / "configs" / "default.yaml") == TrainConfig()


def test_an_empty_file_is_the_defaults(tmp_path: Path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(TrainConfig, tmp_path / "empty.yaml") == TrainConfig()


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ("epochen: 3", ["train.yaml: epochen: there is no such key."]),
        (
            "epochs: 0\nlearning_rate: fast",
            ["epochs: found 0, expected at least 1", "learning_rate: found 'fast', expected a number"],
        ),
        ("epochs: 2.5", ["epochs: found 2.5, expected a whole number"]),
        ("scratch: {layer: 2}", ["scratch.layer: there is no such key"]),
        ("scratch: 5", ["scratch: found 5, expected keys with values"]),
        ("lora: {targets: [1]}", ["lora.targets.0: found 1, expected text"]),
        ("tasks: {A1: 0}", ["tasks.A1: found 0, expected more than 0"]),
        ("precision: float16", ["precision: found 'float16', expected 'auto', 'bfloat16' or 'float32'"]),
        ("- epochs", ["train.yaml: found ['epochs'], expected keys with values"]),
        ("seed: -1", ["seed: found -1, expected at least 0"]),
        ("seed: 4294967296", ["seed: found 4294967296, expected less than 4294967296"]),
        ("adapter: lora", ["train.yaml: adapter lora needs a trained base"]),
        ("epochs: [", ["is not valid YAML"]),
        ("\x00", ["is not valid YAML"]),
    ],
)
def test_every_mistake_of_a_file_is_named(content: str, problems: list[str], tmp_path: Path):
    path = tmp_path / "train.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, path)
    assert str(path) in caught.value.message
    assert all(problem in caught.value.message for problem in problems)
    assert not re.search(r"pydantic|Config\b|Options|Input should|Value error", caught.value.message)
    assert caught.value.exit_status == 2
    known = "hidden_size" if "scratch: {" in content else "learning_rate"
    assert "valid YAML" in caught.value.message or known in caught.value.hint


def test_the_keys_that_are_known_are_those_of_the_place():
    with pytest.raises(ConfigError) as caught:
        build_config(TrainConfig, {"scratch": {"layer": 2}, "lora": {"rnak": 8}}, source="options")
    scratch, lora, *more = caught.value.hint.split("Known keys of ")[1:]
    assert scratch == "scratch: hidden_size, layers, heads, intermediate_size, text_vocabulary. "
    assert lora.startswith("lora: rank, alpha,")
    assert not more
    with pytest.raises(ConfigError) as caught:
        build_config(TrainConfig, {"scratch": {"layer": 2}, "epochz": 8}, source="options")
    assert "Known keys: base, scratch, tasks" in caught.value.hint
    assert "Known keys of scratch: hidden_size" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"codebook_size": "x"}, "codebook_size: found 'x', expected a whole number or a list"),
        ({"codebook_size": [1, 4]}, "codebook_size.0: found 1, expected at least 2"),
        ({"weights": 5}, "weights: found 5, expected keys with values or 'none'"),
        ({"weights": {"text": -1}}, "weights.text: found -1, expected more than 0"),
    ],
)
def test_a_value_of_several_kinds_is_refused_once_and_by_no_name_of_a_kind(values: dict[str, object], problem: str):
    with pytest.raises(ConfigError) as caught:
        build_config(TokenizeConfig, values, source="options")
    assert caught.value.message == f"options: {problem}."


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path):
    path = tmp_path / "train.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"train\.yaml (cannot be read|is not valid YAML)"):
        load_config(TrainConfig, path)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TokenizeConfig, {"levels": 9}),
        (TokenizeConfig, {"codebook_size": 1}),
        (TokenizeConfig, {"collisions": "ignore"}),
        (IngestConfig, {"min_interactions": 0}),
        (IngestConfig, {"test_fraction": 0.5}),
        (EvaluateConfig, {"cutoffs": []}),
        (EvaluateConfig, {"cutoffs": [5, 0]}),
        (EvaluateConfig, {"max_users": 0}),
        (TrainConfig, {"dropout": 1.0}),
        (TrainConfig, {"warmup": 1.0}),
        (TrainConfig, {"tasks": {}}),
    ],
)
def test_values_out_of_range_are_refused_by_key(kind: type[Config], values: dict[str, object]):
    with pytest.raises(ConfigError, match=rf"^--option: {next(iter(values))}"):
        build_config(kind, values, source="--option")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().epochs = 3


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_seed_is_one_for_all_generators(seed: int):
    config = TrainConfig(seed=seed)
    assert np.random.default_rng([config.seed, 3]).random() == np.random.default_rng([seed, 3]).random()
    assert torch.Generator().manual_seed(config.seed).initial_seed() == seed
