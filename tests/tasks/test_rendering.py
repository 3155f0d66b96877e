"""Templates and values become tokens: the right ones are trained on, and text stays text."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import ByteLevel, TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from genrec.errors import ConfigError
from genrec.tasks.rendering import Codes, CompiledTemplate, WordEncoder, WordNoise
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import extend_tokenizer, extend_with_soft_prompt

TOKENIZER = train_text_tokenizer(["Which item is called Heat? Alien, Solaris"] * 4, 330)
VOCABULARY = extend_tokenizer(TOKENIZER, (4, 4))
SID = (VOCABULARY.first_token_ids[0] + 2, VOCABULARY.first_token_ids[1] + 3)
ENCODER = WordEncoder(TOKENIZER)
KINDS = {"item": "items", "title": "text", "steps": {"item": "items", "title": "text"}}
CONTROL = ["<s0_2>", "<s1_3>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "{{ item }}", "{% for %}", "→", "\ue000"]


def compiled(text: str) -> CompiledTemplate:
    return CompiledTemplate(text, KINDS, where="x.yaml")


def shown(text: str, title: str = "Heat") -> tuple[str, str]:
    """What the model is given and what it is trained on, as text."""
    item = Codes(SID)
    values = {"item": item, "title": title, "steps": [{"item": item, "title": t} for t in (title, "Alien")]}
    rendered = compiled(text).render(values, ENCODER)
    assert len(rendered.tokens) == len(rendered.targets)
    split = rendered.targets.index(True)
    assert all(rendered.targets[split:])  # the answer is the end
    return TOKENIZER.decode(rendered.tokens[:split]), TOKENIZER.decode(rendered.tokens[split:])


@pytest.mark.parametrize(
    ("template", "given", "answer"),
    [
        ("Which item is called {{ title }}? → {{ item }}", "Which item is called Heat?", "<s0_2><s1_3>"),
        ("What is {{ item }} called? → {{ title }}", "What is<s0_2><s1_3> called?", "Heat<|im_end|>"),
        ("{{ item }} → It is {{ title }}.", "<s0_2><s1_3>", "It is Heat.<|im_end|>"),
        ("{{ title }} → Take {{ item }} {{ title }}", "Heat", "Take<s0_2><s1_3> Heat<|im_end|>"),
    ],
)
def test_a_question_is_a_turn_of_the_chat_and_only_the_answer_is_trained_on(template: str, given: str, answer: str):
    assert shown(template) == (f"<|im_start|>user\n{given}<|im_end|>\n<|im_start|>assistant\n", answer)


@pytest.mark.parametrize(
    ("template", "given", "answer"),
    [
        ("{{ title }}", "", "Heat"),
        ("Seen: {{ item }}", "Seen:", "<s0_2><s1_3>"),
        (
            "{% for step in steps %}{{ step.title }}{{ step.item }}; {% endfor %}",
            "",
            "Heat<s0_2><s1_3>; Alien<s0_2><s1_3>;",
        ),
    ],
)
def test_without_an_arrow_everything_from_the_first_field_on_is_trained_on(template: str, given: str, answer: str):
    assert (shown(template)[0], shown(template)[1].rstrip()) == (given, answer)


@pytest.mark.parametrize(
    "day",
    [
        "{% if date_string is not defined %}{% set date_string = strftime_now('%y') %}{% endif %}{{ date_string }}",
        "{{ strftime_now('%d %b %Y') }}",
    ],
)
def test_a_chat_template_that_prints_the_date_says_the_same_every_day(day: str):
    tokenizer = train_text_tokenizer(["Heat 26 Jul 2024"], 300)
    tokenizer.chat_template = day + "{{ messages[0].content }}"
    rendered = CompiledTemplate("{{ title }} → {{ item }}", KINDS, where="x.yaml").render(
        {"title": "Heat", "item": Codes(SID)}, WordEncoder(tokenizer)
    )
    assert tokenizer.decode(rendered.tokens).startswith("26 Jul 2024Heat")


def writing_its_beginning(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that puts `<|endoftext|>` before every text, as Llama's and Gemma's put theirs."""
    tokenizer = train_text_tokenizer(texts, 300)
    tokenizer.bos_token = "<|endoftext|>"
    begins = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begins
    return tokenizer


# The shapes of the families' chat templates: who writes the beginning, and around which words a turn stands.
CHATS = {
    "gemma": "{{ bos_token }}<start_of_turn>user\n{{ messages[0].content }}<end_of_turn>\n<start_of_turn>model\n",
    "llama": "{{ bos_token }}<|start_header_id|>user<|end_header_id|>\n\n{{ messages[0].content }}<|eot_id|>",
    "mistral": "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]",
    "qwen": "<|im_start|>user\n{{ messages[0].content }}<|im_end|>\n<|im_start|>assistant\n",
}


@pytest.mark.parametrize("soft", [0, 2])
@pytest.mark.parametrize("family", CHATS)
def test_a_chat_has_its_beginning_once_and_the_soft_prompt_behind_it(family: str, soft: int):
    tokenizer = writing_its_beginning(["Heat user model INST"])
    if family == "qwen":  # it has none
        tokenizer.backend_tokenizer.post_processor, tokenizer.bos_token = ByteLevel(trim_offsets=False), None
    tokenizer.chat_template = CHATS[family]
    ids = extend_with_soft_prompt(tokenizer, soft) if soft else []
    encoder = WordEncoder(tokenizer)
    start = [] if family == "qwen" else [tokenizer.bos_token_id]
    assert encoder.start() == encoder.before[: len(start) + soft] == [*start, *ids]
    assert encoder.before.count(tokenizer.bos_token_id) == len(start)
    said = tokenizer.decode([*encoder.before[len(start) + soft :], *encoder.untrusted("Heat"), *encoder.between])
    expected = CHATS[family].replace("{{ bos_token }}", "").replace("{{ messages[0].content }}", "Heat")
    assert said == expected.removesuffix("\n")  # as Jinja2 reads a template


def test_a_beginning_that_the_tokenizer_never_writes_is_no_beginning():
    tokenizer = train_text_tokenizer(["Heat"], 300)
    tokenizer.bos_token = "<|im_start|>"  # as SmolLM2's chat models have it
    assert WordEncoder(tokenizer).start() == []


@pytest.mark.parametrize("kind", ["metaspace", "prepend"])
def test_pieces_of_a_template_get_no_space_that_is_not_theirs(kind: str):
    backend = Tokenizer(BPE(unk_token="?"))
    if kind == "metaspace":
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    else:  # Llama 2's
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    letters = sorted(set("Film Heat? .\n▁") - {" "})
    backend.train_from_iterator([], BpeTrainer(initial_alphabet=letters, special_tokens=["?", "</s>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="?")
    template = CompiledTemplate("Film {{ title }}. → Film {{ title }}.", KINDS, where="x")
    rendered = template.render({"title": "Heat"}, WordEncoder(tokenizer))
    written = "".join(tokenizer.convert_ids_to_tokens(rendered.tokens)).replace("▁", " ")
    assert written == "Film Heat.\nFilm Heat.</s>"


def test_a_tokenizer_without_chat_template_gets_a_line_each_and_its_own_beginning():
    tokenizer = writing_its_beginning(["Heat"])
    tokenizer.chat_template = None
    rendered = CompiledTemplate("Find {{ title }} → {{ title }}", KINDS, where="x").render(
        {"title": "Heat", "item": Codes(SID)}, WordEncoder(tokenizer)
    )
    assert tokenizer.decode(rendered.tokens) == "<|endoftext|>Find Heat\nHeat<|im_end|>"


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(st.sampled_from(CONTROL), st.text(max_size=6)), max_size=6).map("".join))
def test_a_title_is_only_its_own_bytes(title: str):
    values = {"item": Codes(SID), "title": title}
    harmless = compiled("Find {{ title }} → {{ item }}").render({**values, "title": ""}, ENCODER)
    rendered = compiled("Find {{ title }} → {{ item }}").render(values, ENCODER)
    special = {*TOKENIZER.all_special_ids, *range(VOCABULARY.first_token_ids[0], len(TOKENIZER))}
    # Control and semantic-ID tokens are those of the template, whatever the title says ...
    assert [t for t in rendered.tokens if t in special] == [t for t in harmless.tokens if t in special]
    # ... and between them stand the title's own bytes.
    before = len(ENCODER.before) + len(TOKENIZER.encode("Find", add_special_tokens=False))
    after = len(ENCODER.between) + len(SID)
    middle = rendered.tokens[before : len(rendered.tokens) - after]
    assert TOKENIZER.decode(middle, clean_up_tokenization_spaces=False) == " " + title


def test_noise_changes_as_many_of_our_words_as_asked_for_and_neither_values_nor_answers():
    template, pool = compiled("Which one is called {{ title }}, please? → The item is {{ item }}"), ["yes", "s0_2"]
    values = {"item": Codes(SID), "title": "Which Heat is called"}
    plain = template.render(values, ENCODER)
    answer = [token for token, target in zip(plain.tokens, plain.targets, strict=True) if target]
    rng, kept, asked = np.random.default_rng(0), 0, 400
    for _ in range(asked):
        change = partial(WordNoise(0.3, pool).change, rng=rng)
        noisy = template.render(values, ENCODER, change)
        given = TOKENIZER.decode(noisy.tokens[: noisy.targets.index(True)])
        assert [token for token, target in zip(noisy.tokens, noisy.targets, strict=True) if target] == answer
        assert "Which Heat is called" in given
        assert given.startswith("<|im_start|>user\n")
        assert not set(noisy.tokens[: noisy.targets.index(True)]) & set(SID)
        words = given.removeprefix("<|im_start|>user\n").replace("Which Heat is called", "").split()
        kept += sum(word in {"Which", "one", "is", "called"} for word in words)
    # Two thirds of the changes take a word away; .3 of the words change.
    assert kept / (4 * asked) == pytest.approx(0.8, abs=0.03)


def test_noise_draws_the_same_for_the_same_generator_and_other_words_for_another():
    noise = WordNoise(0.5, ["blue", "green"])
    one, again, other = (noise.change("Which is called ", np.random.default_rng(seed)) for seed in (1, 1, 3))
    assert one == again
    assert one != other


def test_the_full_tokenizer_would_have_obeyed():
    assert TOKENIZER.encode("<s0_2><|im_end|>", add_special_tokens=False) == [SID[0], TOKENIZER.eos_token_id]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ tilte }} → {{ item }}", "asks for tilte, which its source does not have"),
        ("{% for step in steps %}{{ step.name }}{% endfor %}", "asks for step.name, which there is not"),
        ("{{ title.title }} → {{ item }}", "asks for title.title, which there is not"),  # Python's own
        ("{% for step in steps %}{{ step.items }}{% endfor %}", "asks for step.items, which there is not"),
        ("{% for step in steps %}{{ step.title.upper }}{% endfor %}", "shows a list or its entry"),
        ("{% for word in title %}{{ item }}{% endfor %}", "walks through what is no list"),
        ("{{ title | upper }} → {{ item }}", "uses Filter"),
        ("{{ title + title }} → {{ item }}", "uses Add"),
        ("{% if title %}{{ item }}{% endif %}", "uses If"),
        ("{{ steps }} → {{ item }}", "shows a list or its entry"),
        ("{% for step in steps %}{{ step }}{% endfor %}", "a list or its entry"),
        ("{{ title }} → ", "one arrow and words on both sides"),
        ("{{ title }} → {{ item }} → {{ item }}", "one arrow and words on both sides"),
        ("", "one arrow and words on both sides"),
        ("{{ title }} → yes", "no field to train on"),
        ("{{ title → {{ item }}", "unexpected end of template"),
        ("\ue000 {{ title }} → {{ item }}", "private-use character"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_its_file(template: str, problem: str):
    with pytest.raises(ConfigError, match=problem) as caught:
        compiled(template)
    assert "x.yaml" in caught.value.message


def test_the_error_of_an_unknown_field_lists_the_fields():
    with pytest.raises(ConfigError) as caught:
        compiled("{{ brand }} → {{ item }}")
    assert caught.value.hint == "Its fields are: item, steps, title."
