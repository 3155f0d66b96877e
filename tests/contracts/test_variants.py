"""What every engine promises of the variants of a search: widths per level, and draws without replacement."""

from __future__ import annotations

import numpy as np
import pytest

from genrec.errors import ConfigError
from genrec.evidence import Evidence
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from tests.contracts.cases import PROMPTS, Case, exhaustive, random_codes
from tests.contracts.spelling import SIZES


def kept_by_hand(
    case: Case, prompt: list[int], leaves: set[tuple[int, ...]], widths: tuple[int, ...]
) -> set[tuple[int, ...]]:
    """Beam search over explicit prefixes: the leaves under what each level keeps."""
    beams: dict[tuple[int, ...], float] = {(): 0.0}
    for level, width in enumerate((*widths, len(leaves))):
        below = {}
        for prefix, score in beams.items():
            values = case.oracle(tuple(prompt), prefix)
            codes = sorted({leaf[level] for leaf in leaves if leaf[:level] == prefix})
            if case.score_mode == "renormalised":
                values = values - np.log(np.exp(values[codes]).sum())
            below |= {(*prefix, code): score + float(values[code]) for code in codes}
        beams = dict(sorted(below.items(), key=lambda pair: -pair[1])[:width])
    return set(beams)


@pytest.mark.parametrize("widths", [(5, 2), (1, 3), (2, 9)])
def test_each_level_keeps_as_many_prefixes_as_it_was_given(engine_case: Case, widths: tuple[int, int]) -> None:
    codes = np.unique(random_codes(7, 50), axis=0)
    trie = ItemTrie.build(codes, SIZES)
    mask = np.arange(len(codes)) % 4 > 0
    allowed, leaves = ItemFilter.allowing(trie, mask), {tuple(row) for row in codes[mask].tolist()}
    k = min(widths)
    found = engine_case.engine.rank(PROMPTS, trie, beam_width=widths, k=k, allowed=[allowed] * len(PROMPTS))
    for prompt, answer in zip(PROMPTS, found, strict=True):
        scores = exhaustive(engine_case, prompt, codes, mask)
        np.testing.assert_allclose([one.score for one in answer], [scores[one.item_index] for one in answer], atol=2e-4)
        if engine_case.items is None:  # items' own tokens bring in items that no prefix led to
            kept = kept_by_hand(engine_case, prompt, leaves, widths)
            best = sorted((item for item in scores if tuple(codes[item].tolist()) in kept), key=lambda i: -scores[i])
            assert [one.item_index for one in answer] == best[:k]


def test_widths_of_another_number_of_levels_are_refused(engine_case: Case) -> None:
    trie = ItemTrie.build(random_codes(4, 10), SIZES)
    for widths in ((5,), (5, 5, 5), (5, 0)):
        with pytest.raises(ConfigError, match="width"):
            engine_case.engine.rank(PROMPTS, trie, beam_width=widths, k=1)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_draws_come_in_the_order_of_score_and_noise_and_say_what_the_model_said(
    engine_case: Case, temperature: float
) -> None:
    codes = random_codes(8, 40)  # some items share an ID
    trie = ItemTrie.build(codes, SIZES)
    mask = np.arange(40) % 3 > 0
    draws = [Evidence.drawing(trie, np.random.default_rng(user), temperature=temperature) for user in range(3)]
    found = engine_case.engine.rank(
        PROMPTS,
        trie,
        beam_width=40,
        k=12,
        allowed=[ItemFilter.allowing(trie, mask)] * len(PROMPTS),
        evidence=[*draws, None],  # beside somebody for whom nothing is drawn
    )
    for number, (prompt, answer) in enumerate(zip(PROMPTS, found, strict=True)):
        scores = exhaustive(engine_case, prompt, codes, mask)
        noise = np.zeros(40)
        if number < len(draws):
            noise[trie.items] = draws[number].noise
        best = sorted(scores, key=lambda item: (-scores[item] - noise[item], item))[:12]
        assert [one.item_index for one in answer] == best
        np.testing.assert_allclose([one.model_score for one in answer], [scores[item] for item in best], atol=2e-4)
    plain = engine_case.engine.rank(PROMPTS, trie, beam_width=40, k=12, allowed=[ItemFilter.allowing(trie, mask)] * 4)
    assert found[-1] == plain[-1]
    assert found[0] != plain[0]
