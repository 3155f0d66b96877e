"""Lessons are what `genrec explain` will ask, answered with what the check lets pass."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer

from genrec import Recommender, pipeline
from genrec.config import TrainConfig, load_config
from genrec.decoding.scripted import ScriptedEngine
from genrec.errors import ConfigError
from genrec.explanation.checking import Checker
from genrec.explanation.evidence import Subject
from genrec.explanation.explainer import Draft, Explainer, ExplainRequest, Wording
from genrec.explanation.facts import Facts
from genrec.explanation.language import load_language
from genrec.explanation.lessons import Lessons, lesson_sources, taught_languages
from genrec.explanation.loading import knows_words, languages_known, model_version
from genrec.explanation.model_text import EngineText
from genrec.prompting import default_prompts
from genrec.run import Run
from genrec.tasks.data import load_task_data
from genrec.tasks.loading import SOURCES, load_mixture
from genrec.vocabulary import SidVocabulary
from tests.explanation.conftest import ALIEN, BLADE, NOTHING


def lessons_of(path: Path) -> Lessons:
    vocabulary = SidVocabulary.load(path / "model")
    data = load_task_data(Run(path), vocabulary.token_ids(np.load(path / "semantic_ids" / "codes.npy")))
    source = lesson_sources(Run(path), [default_prompts()])["explanations_en"](data)
    assert isinstance(source, Lessons)
    return source


def test_every_language_of_the_templates_is_a_source_and_a_task_is_no_language(tiny_run: Path):
    assert set(lesson_sources(Run(tiny_run), [default_prompts()])) == {"explanations_de", "explanations_en"}


def test_a_lesson_asks_token_for_token_what_the_writer_asks(tiny_run: Path):
    lessons, english = lessons_of(tiny_run), load_language(default_prompts(), "en")
    tokenizer = AutoTokenizer.from_pretrained(tiny_run / "model")
    mixture = load_mixture(
        Run(tiny_run),
        TrainConfig(tasks={"E3": 1.0}, example_tokens=2000),
        folders=[default_prompts()],
        tokenizer=tokenizer,
        item_tokens=np.zeros((30, 2), dtype=np.int64),
        sources={**SOURCES, **lesson_sources(Run(tiny_run), [default_prompts()])},
    )
    writer = EngineText(ScriptedEngine(lambda prompt, codes: np.zeros(8)), tokenizer)
    asked: set[str] = set()
    wordings = list(product(english.styles, english.tones))
    for key in range(len(lessons)):
        record = lessons.record(key, np.random.default_rng(key), 6)
        if record is None:
            continue
        evidence, told = record.values["evidence"], record.values["told"]
        assert isinstance(evidence, str)
        style, tone = next(one for one in wordings if english.around_evidence(*one)[0] == record.values["before"])
        template = mixture.tasks["E3"].templates[0]
        draft = Draft(evidence, style, 0, tone)
        assert template.question(record.values, mixture.encoder) == writer.prompt(english, draft)
        rendered = template.render(record.values, mixture.encoder)
        answer = [token for token, target in zip(rendered.tokens, rendered.targets, strict=True) if target]
        assert tokenizer.decode(answer, skip_special_tokens=True) == told
        assert not told.startswith("Why") or tone == "plain"  # an opening of another tone was not asked for
        assert "have a look at it" not in told or tone == "warm"
        asked.add(tone)
    assert asked == set(english.tones)


def test_half_of_the_lessons_have_other_titles_in_evidence_and_answer_alike(tiny_run: Path):
    lessons = lessons_of(tiny_run)
    known = {f"“{title}”" for title in lessons._data.catalog.titles}
    records = [lessons.record(key, np.random.default_rng(key), 6) for key in range(len(lessons))]
    told = [
        (one.user, *(set(re.findall("“[^”]*”", str(one.values[name]))) for name in ("evidence", "told")), one)
        for one in records
        if one
    ]
    assert 0.3 < np.mean([user < 0 for user, *_ in told]) < 0.7
    for user, evidence, answer, record in told:
        named = {f"“{lessons._data.catalog.titles[item]}”" for item in record.items}
        assert answer & known <= evidence | named
        assert evidence & known <= named  # so the check for leaks hears of all of them
        if user < 0:
            assert record.user == -1


ASKED = {
    "en": {
        "line": "Say in English, in one sentence, why this person may choose the item.",
        "for-whom": "Say in English, by saying for whom it is, why this person may choose the item.",
        "taste": "Say in English, in one short paragraph, what the items that this person chose have in common.",
        "headline": "Say in English, as a headline, what the item is.",
        "description": "Say in English, as a short description, what the item is.",
    },
    "de": {
        "paragraph": "Sage auf Deutsch, in einem kurzen Absatz, warum diese Person den Artikel wählen könnte.",
        "taste": "Sage auf Deutsch, in einem kurzen Absatz, was die Artikel gemeinsam haben, die diese Person gewählt",
        "headline": "Sage auf Deutsch, als Überschrift, was der Artikel ist.",
    },
}


@pytest.mark.parametrize(("code", "style"), [(code, style) for code, asked in ASKED.items() for style in asked])
def test_a_request_asks_for_what_texts_of_the_style_are_about(code: str, style: str):
    before, _ = load_language(default_prompts(), code).around_evidence(style)
    assert before.startswith(ASKED[code][style])


def test_a_language_may_have_one_request_for_all_and_none_is_left_out(tmp_path: Path):
    file = tmp_path / "explanation_en.yaml"
    values = yaml.safe_load((default_prompts() / "explanation_en.yaml").read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**values, "request": "Say {{ style }}: {{ evidence }}"}))
    english = load_language(tmp_path, "en")
    assert [english.around_evidence(style)[0] for style in ("line", "taste")] == [
        "Say in one sentence: ",
        "Say in one short paragraph: ",
    ]
    file.write_text(yaml.safe_dump({**values, "request": {"reasons": "{{ evidence }}"}}))
    with pytest.raises(ConfigError, match="request lacks record, taste"):
        load_language(tmp_path, "en")


@pytest.mark.parametrize("style", ["line", "paragraph", "bullets", "for-whom", "headline", "description"])
def test_what_is_learned_is_supported_and_its_evidence_was_given(facts: Facts, english: object, style: str):
    explainer = Explainer(facts, default_prompts())
    lesson = explainer.lesson(ExplainRequest((ALIEN,), BLADE), Wording(style))
    assert lesson is not None
    language = load_language(default_prompts(), "en")
    verdicts = [s.verdict for s in Checker(language, facts, Subject((ALIEN,), BLADE)).check(lesson.text)]
    assert "supported" in verdicts
    assert "unsupported" not in verdicts
    if style == "description":  # the record's own words are in the request, not only in the answer
        assert "A policeman hunts machines in the rain." in lesson.draft.evidence
        assert "A policeman hunts machines in the rain." in lesson.text


def test_nothing_is_learned_where_nothing_speaks_for_the_item(facts: Facts):
    assert Explainer(facts, default_prompts()).lesson(ExplainRequest((ALIEN,), NOTHING)) is None


def test_a_run_from_scratch_knows_words_only_after_lessons(tiny_run: Path, tiny_copy: Path, tiny_files: Path):
    assert not knows_words(Run(tiny_run))
    config = load_config(TrainConfig, tiny_files / "train.yaml")
    tasks = {"A1": 0.5, "B2": 0.25, "E3": 0.25}
    run = Run(tiny_copy)
    pipeline.train(run, config.model_copy(update={"tasks": tasks, "epochs": 1, "example_tokens": 600}))
    assert run.stages["train"].report["too_long"] == {}
    assert taught_languages(run) == {"en"}
    assert knows_words(run)
    recommender = Recommender.load(tiny_copy)
    items = recommender.catalog.indices(["i0", "i3", "i6"]).tolist()
    [told] = recommender.explainer("auto").explain([ExplainRequest((items[0], items[1]), items[2])])
    assert told.attempts > 0  # the model was asked
    request = ExplainRequest((items[0], items[1]), items[2])
    [german] = recommender.explainer("auto").explain([request], Wording(language="de"))
    assert (german.attempts, german.source) == (0, "template")  # it was taught English alone
    [insisted] = recommender.explainer("model").explain([request], Wording(language="de"))
    assert insisted.attempts > 0


def changed(run: Path, folder: Path, *, outputs: dict[str, str] | None = None, **settings: object) -> Run:
    """A copy of a run whose record of the training says something else."""
    copy = Path(shutil.copytree(run, folder))
    manifest = json.loads((copy / "manifest.json").read_text())
    record = manifest["stages"]["train"]
    record["config"] |= settings
    record["outputs"] |= outputs or {}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return Run(copy)


def test_a_run_trained_further_knows_the_words_of_the_run_that_it_was_made_from(tiny_run: Path, tmp_path: Path):
    taught = changed(tiny_run, tmp_path / "taught", tasks={"A1": 0.5, "E3": 0.5})
    for number, (base, known) in enumerate(
        [(tiny_run, set()), (tiny_run / "model", set()), (taught.path, {"en"}), (taught.path / "model", {"en"})]
    ):
        further = changed(tiny_run, tmp_path / f"further-{number}", base=str(base))
        assert languages_known(further) == known
        furthest = changed(tiny_run, tmp_path / f"furthest-{number}", base=str(further.path / "model"))
        assert languages_known(furthest) == known
    own = changed(tiny_run, tmp_path / "own", base=str(tmp_path / "own" / "model"))
    assert languages_known(own) is None  # what it began as is not on record


def test_two_adapters_beside_one_base_are_two_versions(tiny_run: Path, tmp_path: Path):
    file = "adapter/adapter_model.safetensors"
    versions = [model_version(changed(tiny_run, tmp_path / name, outputs={file: name * 64})) for name in ("e", "f")]
    assert len({*versions, model_version(Run(tiny_run))}) == 3
    assert {len(version) for version in versions} == {12}


@pytest.mark.parametrize(("task", "writes"), [("B2", False), ("E2", False), ("E3", True)])
def test_titles_and_reasons_do_not_teach_to_write_and_lessons_do(
    tiny_run: Path, tmp_path: Path, task: str, writes: bool
):
    assert knows_words(changed(tiny_run, tmp_path / "run", tasks={"A1": 0.5, task: 0.5})) is writes
