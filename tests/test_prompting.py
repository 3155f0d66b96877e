"""Templates in, token ids out; bad templates are refused with their name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from genrec.errors import ConfigError
from genrec.prompting import (
    compile_history_prompt,
    default_prompts,
    load_templates,
    names_a_task,
    save_templates,
    task_files,
)
from genrec.run import Run
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import extend_tokenizer

TOKENIZER = train_text_tokenizer(["Items: seen so far"] * 4, 320)
VOCABULARY = extend_tokenizer(TOKENIZER, (4, 4))


def test_the_shipped_templates_compile_and_are_named_after_their_file():
    files = [file for file in sorted(default_prompts().glob("*.yaml")) if names_a_task(file)]
    assert "next_item" in [file.stem for file in files]
    for file in files:
        assert load_templates(file.parent, file.stem).task == file.stem
    for template in load_templates(default_prompts(), "next_item").templates:
        assert compile_history_prompt(template, TOKENIZER).before


@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_a_prompt_is_the_encoded_words_and_then_the_history(space: str):
    prompt = compile_history_prompt(f"<|im_start|>user\nItems:{space}{{{{ history }}}}\n", TOKENIZER)
    assert list(prompt.before) == TOKENIZER.encode("<|im_start|>user\nItems:", add_special_tokens=False)
    assert prompt.before[0] == TOKENIZER.convert_tokens_to_ids("<|im_start|>")  # our own words may be control tokens
    history = [VOCABULARY.first_token_ids[0] + 2, VOCABULARY.first_token_ids[1] + 3]
    assert TOKENIZER.decode(prompt.token_ids(history)) == "<|im_start|>user\nItems:<s0_2><s1_3>"
    assert prompt.token_ids([]) == list(prompt.before)


def test_the_beginning_of_sequence_token_comes_first_where_there_is_one():
    tokenizer = train_text_tokenizer(["Items:"], 300)
    without = compile_history_prompt("Items:{{ history }}", tokenizer).before
    tokenizer.bos_token = "<|endoftext|>"
    assert compile_history_prompt("Items:{{ history }}", tokenizer).before == without  # it never writes it
    begins = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begins
    assert compile_history_prompt("Items:{{ history }}", tokenizer).before == (tokenizer.bos_token_id, *without)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("Items:", "must hold words and then end in"),
        ("{{ history }}", "must hold words and then end in"),
        ("  \n{{ history }}", "must hold words and then end in"),
        ("Items:{{ history }} what is next?", "must hold words and then end in"),
        ("Items:{{ history }}{{ history }}", "must hold words and then end in"),
        ("Items:{{ histroy }}", "'histroy' is undefined"),
        ("Items:{{ history", "unexpected end of template"),
        ("Items:{{ history.__class__ }}", "unsafe"),
        ("{{ 1 / 0 }} Items:{{ history }}", "division by zero"),
        ("Items:{{ history + 1 }}", "can only concatenate"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: str, problem: str):
    with pytest.raises(ConfigError, match=problem) as caught:
        compile_history_prompt(template, TOKENIZER)
    assert repr(template) in caught.value.message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        (b"task: [", "is not valid YAML"),
        (b"task: \xff\xfe", "is not valid YAML"),
        (b"", "task: is missing"),
        (b"- a list", "expected keys with values"),
        (b"task: rank\ntemplates: []", "templates: found \\[\\], expected at least 1"),
        (b"task: rank\ntemplates: ['x']\nnotes: y", "notes: there is no such key"),
    ],
)
def test_a_template_file_that_is_wrong_is_named(tmp_path: Path, content: bytes | None, problem: str):
    if content is not None:
        (tmp_path / "rank.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        load_templates(tmp_path, "rank")
    assert str(tmp_path / "rank.yaml") in caught.value.message


def test_a_run_keeps_the_templates_it_was_trained_with(tmp_path: Path):
    run = Run.create(tmp_path / "run")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a.yaml", "b.yaml", "notes.txt"):
        (source / name).write_text(name)
    assert [path.name for path in save_templates(run, source)] == ["a.yaml", "b.yaml"]
    (source / "a.yaml").unlink()
    (source / "b.yaml").write_text("new")
    assert [path.read_text() for path in save_templates(run, source)] == ["new"]  # what is gone there is gone here


def test_files_in_other_layouts_are_no_tasks_and_what_cannot_be_read_is_loaded_to_say_why(tmp_path: Path):
    for name, content in (("words", "language: de"), ("task", "task: x"), ("list", "- a"), ("broken", "task: [")):
        (tmp_path / f"{name}.yaml").write_text(content)
    assert {path.stem for path in tmp_path.glob("*.yaml") if names_a_task(path)} == {"task", "list", "broken"}


def test_of_two_folders_the_last_one_wins_file_by_file(tmp_path: Path):
    first, last = tmp_path / "first", tmp_path / "last"
    for folder, names in ((first, "ab"), (last, "bc")):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.yaml").write_text(folder.name)
    assert [path.read_text() for path in task_files(first, last)] == ["first", "last", "last"]
    run = Run.create(tmp_path / "run")
    assert [path.read_text() for path in save_templates(run, first, last)] == ["first", "last", "last"]
