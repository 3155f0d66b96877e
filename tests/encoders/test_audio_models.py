"""Audio models as tiny real checkpoints in folders, loaded as a hub model is, on sounds that the test makes and on
real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from genrec.encoders.audio_models import AudioEncoder, mean_over_sound
from genrec.encoders.media import MediaFile
from genrec.encoders.pretrained import convolve_exactly
from genrec.encoders.sounds import SoundLimits, read_sound
from genrec.errors import ModelError

RATE = 16_000
LIMITS = SoundLimits()
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WAVES = {
    **SMALL,
    "conv_dim": (16, 16),
    "conv_kernel": (40, 16),
    "conv_stride": (40, 16),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def save_clap(folder: Path, *, fusion: bool) -> None:
    audio = ClapAudioConfig(
        spec_size=64,
        num_mel_bins=64,
        window_size=4,
        patch_embeds_hidden_size=8,
        hidden_size=16,
        depths=[1, 1],
        num_attention_heads=[1, 2],
        enable_fusion=fusion,
        num_hidden_layers=2,
    )
    text = ClapTextConfig(**SMALL, vocab_size=40, max_position_embeddings=20)
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    ClapModel(config).save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        sampling_rate=RATE,
        hop_length=320,
        max_length_s=1,
        frequency_max=8000,
        truncation="fusion" if fusion else "rand_trunc",
    )
    extractor.save_pretrained(folder)


def save_whisper(folder: Path) -> None:
    config = WhisperConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=50,
        num_mel_bins=16,
        max_source_positions=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)


def save_ast(folder: Path) -> None:
    ASTModel(ASTConfig(**SMALL, num_mel_bins=32, max_length=100)).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=100).save_pretrained(folder)


def save_wav2vec2(folder: Path) -> None:
    Wav2Vec2Model(Wav2Vec2Config(**WAVES, feat_extract_norm="layer")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def save_hubert(folder: Path) -> None:
    HubertModel(HubertConfig(**WAVES, feat_extract_norm="group")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)


def save_wav2vec2_bert(folder: Path) -> None:
    config = Wav2Vec2BertConfig(
        **SMALL, feature_projection_input_dim=160, conv_depthwise_kernel_size=3, left_max_position_embeddings=4
    )
    Wav2Vec2BertModel(config).save_pretrained(folder)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)


SAVERS: dict[str, Callable[[Path], None]] = {
    "clap": lambda folder: save_clap(folder, fusion=False),
    "clap-fused": lambda folder: save_clap(folder, fusion=True),
    "whisper": save_whisper,
    "ast": save_ast,
    "wav2vec2": save_wav2vec2,
    "hubert": save_hubert,
    "wav2vec2-bert": save_wav2vec2_bert,  # spectrograms of any length
}


@pytest.fixture(scope="session")
def audio_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small folder per model of SAVERS, of a few thousand random weights each."""
    folder = tmp_path_factory.mktemp("audio-models")
    torch.manual_seed(0)
    for name, save in SAVERS.items():
        save(folder / name)
    return folder


@pytest.fixture(params=sorted(SAVERS))
def encoder(request: pytest.FixtureRequest, audio_models: Path) -> AudioEncoder:
    """Each of the models in turn."""
    return AudioEncoder(str(audio_models / request.param), limits=LIMITS)


def sound(folder: Path, *, seconds: float, seed: int, channels: int = 1) -> MediaFile:
    """A file of noise that gets louder."""
    noise = np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))
    samples = (noise * np.linspace(0.05, 0.5, len(noise))).astype(np.float32)
    name = f"{seed}-{seconds}-{channels}.wav"
    soundfile.write(folder / name, np.stack([samples] * channels, axis=1), RATE, subtype="FLOAT")
    return MediaFile(folder, name)


def one(encoder: AudioEncoder, file: MediaFile) -> NDArray[np.float32]:
    return encoder.encode([encoder.read(file)])[0]


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Equal up to what bfloat16 rounds differently in another batch, where the CPU has it."""
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(found, expected, atol=3e-2 * scale)


def test_a_batch_of_sounds_of_all_lengths_encodes_like_each_alone(encoder: AudioEncoder, tmp_path: Path) -> None:
    files = [sound(tmp_path, seconds=seconds, seed=seed) for seed, seconds in enumerate((0.5, 1.0, 2.5, 0.001, 12))]
    batch = encoder.encode([encoder.read(file) for file in files])
    assert batch.shape == (5, encoder.width)
    assert batch.dtype == np.float32
    for vector, file in zip(batch, files, strict=True):
        assert_close(vector, one(encoder, file))
    spread = np.linalg.norm(batch - batch.mean(axis=0), axis=1)
    assert (spread > 0).all()


def test_the_same_sound_gives_the_same_vector_every_time(encoder: AudioEncoder, tmp_path: Path) -> None:
    # The extractor of fused CLAP models marks a sound of the batch at random.
    files = [sound(tmp_path, seconds=0.5, seed=seed) for seed in range(6)]
    decoded = [encoder.read(file) for file in files]
    first = encoder.encode(decoded)
    for _ in range(3):
        np.testing.assert_array_equal(encoder.encode(decoded), first)


def test_two_equal_channels_are_one(encoder: AudioEncoder, tmp_path: Path) -> None:
    mono, stereo = (sound(tmp_path, seconds=0.8, seed=1, channels=channels) for channels in (1, 2))
    np.testing.assert_array_equal(one(encoder, mono), one(encoder, stereo))


def test_a_sound_longer_than_a_window_is_the_mean_of_its_windows(audio_models: Path, tmp_path: Path) -> None:
    for name in ("clap", "whisper"):  # windows of one second
        encoder = AudioEncoder(str(audio_models / name), limits=LIMITS)
        whole = sound(tmp_path, seconds=3.0, seed=7)
        samples = read_sound(whole.locate(), rate=RATE, limits=LIMITS)
        parts = []
        for second in range(3):
            soundfile.write(tmp_path / "part.wav", samples[second * RATE :][:RATE], RATE, subtype="FLOAT")
            parts.append(one(encoder, MediaFile(tmp_path, "part.wav")))
        assert_close(one(encoder, whole), np.mean(parts, axis=0))


def test_the_vector_of_whispers_encoder_is_the_one_computed_by_hand(audio_models: Path, tmp_path: Path) -> None:
    folder = audio_models / "whisper"
    file = sound(tmp_path, seconds=0.6, seed=3)
    samples, _ = soundfile.read(file.locate(), dtype="float32")
    features = WhisperFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        hidden = WhisperModel.from_pretrained(folder).encoder(features.input_features).last_hidden_state
    assert hidden.shape == (1, 50, 16)
    assert_close(one(AudioEncoder(str(folder), limits=LIMITS), file), hidden[0, :30].mean(dim=0).numpy())


def test_the_vector_of_clap_is_its_audio_features(audio_models: Path, tmp_path: Path) -> None:
    folder = audio_models / "clap"
    file = sound(tmp_path, seconds=1.0, seed=4)
    samples, _ = soundfile.read(file.locate(), dtype="float32")
    features = ClapFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = ClapModel.from_pretrained(folder).get_audio_features(**features).pooler_output[0].numpy()
    vector = one(AudioEncoder(str(folder), limits=LIMITS), file)
    assert_close(vector, expected)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-2)


def test_padding_does_not_count(audio_models: Path, tmp_path: Path) -> None:
    folder = audio_models / "wav2vec2"
    file = sound(tmp_path, seconds=0.8, seed=5)
    samples, _ = soundfile.read(file.locate(), dtype="float32")
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = Wav2Vec2Model.from_pretrained(folder)(features.input_values).last_hidden_state.mean(dim=1)[0]
    assert_close(one(AudioEncoder(str(folder), limits=LIMITS), file), expected.numpy())


def test_the_mean_over_a_sound_takes_its_share_of_the_positions() -> None:
    hidden = torch.arange(20.0).reshape(2, 10, 1)
    means = mean_over_sound(hidden, torch.tensor([16_000, 6_400]), num_samples=16_000)
    assert means[:, 0].tolist() == [4.5, 11.5]
    assert mean_over_sound(hidden, torch.tensor([1, 1]), num_samples=16_000)[:, 0].tolist() == [0, 10]


def test_silence_is_a_sound(encoder: AudioEncoder, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    assert np.isfinite(one(encoder, MediaFile(tmp_path, "silence.wav"))).all()


def test_a_model_folder_is_known_by_its_contents(audio_models: Path) -> None:
    first, again, other = (
        AudioEncoder(str(audio_models / name), limits=LIMITS) for name in ("clap", "clap", "clap-fused")
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.model == "clap"


def test_what_is_no_audio_model_is_refused_with_what_to_give(audio_models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'no-such/model' cannot be loaded.*folder or a hub name"):
        AudioEncoder("no-such/model", limits=LIMITS)
    save_whisper(tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="feature extractor of the audio encoder"):
        AudioEncoder(str(tmp_path / "bare"), limits=LIMITS)


def test_a_checkpoint_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_whisper(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.conv1.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights, encoder\.conv1\.weight"):
        AudioEncoder(str(tmp_path), limits=LIMITS)


@pytest.mark.benchmark_data
def test_real_recordings_give_vectors_that_differ(audio_models: Path, data_folder: Path) -> None:
    encoder = AudioEncoder(str(audio_models / "clap"), limits=LIMITS)
    files = sorted((data_folder / "esc10").glob("*/1-*.ogg"))[::16]
    assert len(files) == 5
    decoded = [encoder.read(MediaFile(data_folder / "esc10", str(f.relative_to(data_folder / "esc10")))) for f in files]
    vectors = encoder.encode(decoded)
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors.round(4), axis=0)) == 5


def test_convolutions_along_time_are_right_under_autocast_on_every_cpu() -> None:
    # In bfloat16, a shape that oneDNN computes wrongly on CPUs with AMX.
    convolution = torch.nn.Conv1d(16, 16, 16, stride=16)
    samples = torch.randn(2, 16, 320)
    expected = convolution(samples)
    convolve_exactly(torch.nn.Sequential(convolution))
    with torch.autocast("cpu", torch.bfloat16):
        found = convolution(samples.bfloat16())
        assert torch.is_autocast_enabled("cpu")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)
