"""The stages together, on a small run: what they make, what becomes stale, and the model against plain PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from genrec import Recommender, pipeline
from genrec import quickstart as quickstart_module
from genrec.cli.whole import print_quickstart
from genrec.config import EvaluateConfig, IngestConfig, TokenizeConfig, TrainConfig, load_config
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.data.splits import evaluation_cases
from genrec.errors import DataError
from genrec.run import Run, file_checksum
from genrec.vocabulary import SidVocabulary


def exhaustive_scores(run: Path, history: list[int], *, max_items: int) -> np.ndarray:
    """Scores (I,) of all items in mode `level`: one plain forward pass over prompt and semantic ID for each, one over
    the prompt of items' own tokens, and the two probabilities of an item mixed."""
    model = AutoModelForCausalLM.from_pretrained(run / "model").eval()
    vocabulary = SidVocabulary.load(run / "model")
    codes = np.load(run / "semantic_ids" / "codes.npy")
    tokens = vocabulary.token_ids(codes)
    recommender = Recommender.load(run)
    prompt = recommender.prompt_tokens(np.array(history, dtype=np.int32))
    assert prompt[-tokens.shape[1] * min(len(history), max_items) :] == tokens[history[-max_items:]].ravel().tolist()
    rows = torch.tensor([[*prompt, *item] for item in tokens.tolist()])
    with torch.no_grad():
        logits = model(rows).logits[:, len(prompt) - 1 : -1].float()
    scores = torch.zeros(len(codes))
    for level, (first, size) in enumerate(zip(vocabulary.first_token_ids, vocabulary.codebook_sizes, strict=True)):
        values = torch.log_softmax(logits[:, level, first : first + size], dim=-1)
        scores += values[torch.arange(len(codes)), torch.from_numpy(codes[:, level].astype(np.int64))]
    with torch.no_grad():
        own = model(torch.tensor([recommender.item_prompt(np.array(history, dtype=np.int32))])).logits[0, -1]
    first, size = vocabulary.groups[-1]
    values = torch.full((len(codes),), -torch.inf)
    values[list(vocabulary.item_rows)] = torch.log_softmax(own[first : first + size], dim=-1)
    share = torch.tensor(vocabulary.item_share)
    return torch.logaddexp(torch.log(1 - share) + scores, torch.log(share) + values).numpy()


@pytest.mark.parametrize("history", [[3], [0, 3, 6, 9], list(range(12))])
def test_recommendations_equal_scoring_every_item_with_the_model_alone(tiny_run: Path, history: list[int]) -> None:
    scores = exhaustive_scores(tiny_run, history, max_items=6)
    recommender = Recommender.load(tiny_run, beam_width=30)
    answer = recommender.recommend([f"i{item}" for item in history], k=30)
    wanted = [item for item in range(30) if item not in history]
    assert sorted(item.item_id for item in answer) == sorted(f"i{item}" for item in wanted)
    expected = {f"i{item}": scores[item] for item in wanted}
    for item, best in zip(answer, sorted(expected.values(), reverse=True), strict=True):
        assert item.score == pytest.approx(expected[item.item_id], abs=1e-4)
        assert item.score == pytest.approx(best, abs=1e-4)


def test_equal_seeds_make_equal_runs_to_the_last_bit(tiny_run: Path, tiny_copy: Path, tiny_files: Path) -> None:
    run = Run(tiny_copy)
    pipeline.tokenize(run, load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    report = pipeline.train(run, load_config(TrainConfig, tiny_files / "train.yaml"))
    for name in ("semantic_ids/codes.npy", "model/model.safetensors", "model/tokenizer.json"):
        assert file_checksum(tiny_copy / name) == file_checksum(tiny_run / name)
    facts = Run(tiny_run).stages["train"].report
    assert report.facts["final_loss"] == facts["final_loss"]
    assert report.facts["epochs"] == 2
    assert report.facts["num_items"] == 30


def test_a_trained_run_holds_what_it_needs_and_no_leftovers(tiny_run: Path) -> None:
    run = Run(tiny_run)
    for stage in run.stages:
        run.require(stage)
    assert (tiny_run / "prompts" / "next_item.yaml").is_file()
    assert not (tiny_run / "training" / "checkpoint").exists()
    assert not [path for path in tiny_run.rglob("*") if path.suffix in {".pkl", ".pt", ".bin", ".tmp"}]
    assert json.loads((tiny_run / "manifest.json").read_text())["stages"]["train"]["seconds"] > 0


def test_a_new_model_makes_its_evaluation_stale_and_new_codes_the_model(tiny_copy: Path, tiny_files: Path) -> None:
    run = Run(tiny_copy)
    evaluation = load_config(EvaluateConfig, tiny_files / "evaluate.yaml")
    training = load_config(TrainConfig, tiny_files / "train.yaml")
    report = pipeline.evaluate(run, evaluation)
    assert set(report.facts["methods"]) == {"model", "popularity"}
    assert "evaluate:test" in run.stages
    pipeline.train(run, training)
    assert "evaluate:test" in run.stages  # the same model again
    pipeline.train(run, training.model_copy(update={"seed": 4}))
    assert "evaluate:test" not in run.stages
    tokens = load_config(TokenizeConfig, tiny_files / "tokenize.yaml")
    pipeline.tokenize(run, tokens.model_copy(update={"levels": 3}))
    assert list(run.stages) == ["ingest", "embed", "tokenize", "trie"]


def test_validation_counts_the_cases_whose_target_is_recommended(tiny_run: Path) -> None:
    recommender = Recommender.load(tiny_run)
    index = Catalog.load(Run(tiny_run)).index
    answers = [index[item.item_id] for item in recommender.recommend(["i0"], k=30)]
    targets = [answers[0], answers[1], answers[20]]  # rank 1, rank 2, beyond the cutoff
    cases = EvaluationCases(Sequences.from_lists(["a", "b", "c"], [[0]] * 3), np.array(targets, dtype=np.int32))
    values = pipeline.validation_metrics(recommender, cases)
    assert values["recall@10"] == pytest.approx(2 / 3)
    assert values["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 3)


def test_data_without_validation_cases_is_refused_before_training(
    tiny_copy: Path, tiny_files: Path, tmp_path: Path
) -> None:
    pairs = "".join(f"u{user},i{item}\n" for user in range(30) for item in (user, (user + 1) % 30))
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n" + pairs)
    run = Run(tiny_copy)
    ingest(run, "tables", [tiny_files / "items.jsonl", tmp_path / "interactions.csv"], IngestConfig(min_interactions=1))
    pipeline.tokenize(run, load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    with pytest.raises(DataError, match="no validation cases"):
        pipeline.train(run, load_config(TrainConfig, tiny_files / "train.yaml"))


def test_the_three_people_of_the_quickstart_are_users_of_the_test_split(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tiny_run)
    people = quickstart_module.three_people(run)
    cases = evaluation_cases(run, "test")
    titles = Catalog.load(run).titles
    assert len({person.user_id for person in people}) == 3
    for person in people:
        case = cases.user_ids.index(person.user_id)
        assert person.history == [titles[item] for item in cases.histories[case]][-5:]
        assert person.next_title == titles[cases.targets[case]]
        assert len(person.recommendations) == 5
        assert not {item.title for item in person.recommendations} & set(person.history)
    report = pipeline.StageReport("evaluate:test", {}, ["the table"])
    print_quickstart(quickstart_module.QuickstartResult(run, people, report, 12.3))
    out = capsys.readouterr().out
    assert all(f"User {person.user_id} watched last: {'; '.join(person.history)}" in out for person in people)
    assert out.index("the table") < out.index("Done in 12 s") < out.index(f"genrec inspect {tiny_run}")
