"""Metrics of explanations against scores worked out by hand, and against published figures where the data is."""

from __future__ import annotations

import gzip
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from genrec.errors import DataError
from genrec.text_metrics import (
    WordOverlap,
    bert_score,
    bleu,
    derangement,
    document_shares,
    feature_coverage,
    feature_diversity,
    feature_match,
    feature_recall,
    features_of,
    frequent_features,
    rare_word_precision,
    rare_word_recall,
    rouge_l,
    shuffle_gap,
    unique_sentence_ratio,
)

RECIPE = Path(__file__).resolve().parents[1] / "eval" / "explanations.py"
REFERENCES = ["the cold ship", "the warm rain", "the cold rain", "the toys"]


def test_shares_count_texts_not_words() -> None:
    assert document_shares(["a a b", "A"]) == {"a": 1.0, "b": 0.5}


def test_precision_and_recall_look_at_rare_words_alone() -> None:
    texts = ["the ship and the storm", "the rain", "the the", "the cold toys"]
    precision = WordOverlap(document_shares(REFERENCES), 0.0, 0.25, of_text=True)
    # Rare: ship, warm, toys, and what no reference says (and, storm). The third text says nothing rare.
    assert precision(texts, REFERENCES).tolist() == pytest.approx([1 / 3, 0, 0, 1])
    recall = WordOverlap(document_shares(REFERENCES), 0.0, 0.25, of_text=False)
    assert recall(texts, REFERENCES).tolist() == pytest.approx([1, 0, 0, 1])


def test_features_match_cover_and_are_shared() -> None:
    features = ("cold", "rain", "ship", "toys")
    texts = ["cold ship", "cold rain", "cold", "nothing"]
    assert feature_recall(features)(texts, REFERENCES).tolist() == pytest.approx([1, 1, 0.5, 0])
    assert feature_coverage(texts, features) == 3 / 4
    assert feature_diversity(texts, features) == pytest.approx(3 / 6)  # three of six pairs share `cold`
    by_pairs = [len(set(a.split()) & set(b.split()) & set(features)) for i, a in enumerate(texts) for b in texts[:i]]
    assert feature_diversity(texts, features) == pytest.approx(np.mean(by_pairs))
    assert unique_sentence_ratio(["a", "b", "a"]) == 2 / 3
    phrases = ("Battery life", "life", "cold ship")
    said = features_of(["The battery-life is short", "A long life; no battery.", "the COLD  ship sails"], phrases)
    assert said == [{"Battery life", "life"}, {"life"}, {"cold ship"}]
    assert frequent_features(REFERENCES, least=0.5, most=0.5) == ("cold", "rain")


def test_a_row_matches_where_its_text_says_its_own_feature_whatever_else_the_reference_says() -> None:
    texts = ["a cold ship", "rain and toys", "the ship", "TOYS, toys"]
    found = feature_match(["ship", "cold", "rain", "toys"])(texts, ["cold ship rain toys"] * 4)
    assert found.tolist() == [1, 0, 0, 1]
    assert feature_match(["Wi-Fi", "4K"])(["the wi-fi is slow", "in 4k!"], ["", ""]).tolist() == [1, 1]
    with pytest.raises(ValueError, match="shorter"):  # a feature per row, or it is not this metric
        feature_match(["ship"])(texts, REFERENCES)


def test_lines_that_all_name_a_feature_are_scored_by_it_and_others_by_words_of_their_references(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair_rows = runpy.run_path(str(RECIPE))["pair_rows"]
    lines = [{"pred": f"f{n} and f9", "ref": f"f{n} or f8", "feature": f"F{n if n else 7}"} for n in range(8)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = pair_rows(file, "constant")
    assert rows.match(rows.texts, rows.references).tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    assert rows.features == tuple(f"f{n}" for n in range(1, 8))
    file.write_text(
        "".join(json.dumps({**line, "feature": line["feature"] if n else ""}) + "\n" for n, line in enumerate(lines))
    )
    rows = pair_rows(file, "constant")
    assert rows.named is None
    assert rows.features == ()  # no word of some references, and not of most
    assert "1 of 8 lines have no feature; it is not used" in capsys.readouterr().err


def test_rouge_and_bleu_are_one_for_equal_texts_and_rouge_is_what_its_definition_says() -> None:
    long = ["the quick brown fox jumps", "over the lazy dog again"]
    assert rouge_l(long, long).tolist() == [1, 1]
    assert bleu(long, long) == pytest.approx(1)
    # Longest common subsequence "the fox": precision 2/2, recall 2/5.
    assert rouge_l(["the fox"], long[:1]).tolist() == pytest.approx([2 * (1 * 2 / 5) / (1 + 2 / 5)])


@pytest.mark.parametrize("size", [2, 3, 10, 101])
def test_nobody_stays_where_texts_are_shuffled(size: int) -> None:
    for seed in range(5):
        order = derangement(size, np.random.default_rng(seed))
        assert sorted(order) == list(range(size))
        assert not (order == np.arange(size)).any()
    with pytest.raises(DataError, match="cannot be shuffled"):
        derangement(1, np.random.default_rng(0))


def test_one_sentence_for_everybody_has_no_gap_and_the_references_themselves_the_largest() -> None:
    references = [f"words {chr(97 + n)}x {chr(97 + n)}y" for n in range(20)]
    metric = rare_word_recall(references, most=0.05)
    constant = shuffle_gap(metric, ["words ax"] * 20, references, seed=0, samples=50)
    assert (constant.gap, constant.low, constant.high) == (0, 0, 0)
    perfect = shuffle_gap(metric, references, references, seed=0, samples=50)
    assert (perfect.real, perfect.shuffled, perfect.gap) == (1, 0, 1)
    half = shuffle_gap(metric, [*references[:10], *["words"] * 10], references, seed=0)
    assert half.gap == pytest.approx(0.5)
    assert half.low < 0.5 < half.high


def test_a_bert_score_of_equal_texts_is_one(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = {token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    BertTokenizerFast(tokenizer_object=words, model_max_length=32).save_pretrained(tmp_path)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(tmp_path)
    scores = bert_score(["a b c", "d e"], ["a b c", "f a"], model=tmp_path)
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert scores[1] < scores[0]
    with pytest.raises(DataError, match="not a model folder"):
        bert_score(["a"], ["a"], model=tmp_path / "nowhere")


@pytest.mark.benchmark_data
@pytest.mark.parametrize(
    ("name", "published", "shuffled", "constant"), [("google", 32.6, 30.6, 35.7), ("amazon", 32.7, 30.6, 35.7)]
)
def test_published_texts_score_as_measured_before_and_content_beats_shuffled(
    data_folder: Path, name: str, published: float, shuffled: float, constant: float
) -> None:
    path = data_folder / "xrec_explanations" / f"{name}_xrec_pred_vs_ref.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 3000
    texts, references = [row["pred"] for row in rows], [row["ref"] for row in rows]
    sentence = runpy.run_path(str(RECIPE))["CONSTANTS"][name]
    others = [texts[row] for row in derangement(len(texts), np.random.default_rng(0))]
    for told, expected in ((texts, published), (others, shuffled), ([sentence] * len(texts), constant)):
        assert 100 * rouge_l(told[::3], references[::3]).mean() == pytest.approx(expected, abs=0.5)
    assert unique_sentence_ratio(others) == unique_sentence_ratio(texts) > 0.99
    for metric in (
        rare_word_precision(references),
        rare_word_recall(references),
        feature_recall(frequent_features(references)),
    ):
        gap = shuffle_gap(metric, texts, references, seed=0, shuffles=1, samples=200)
        assert gap.real > gap.shuffled
        assert gap.low > 0
