"""Reports: what they say in words, that they are well-formed, and that nothing slips through unescaped."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from genrec.baselines_of_run import BASELINES
from genrec.report import (
    Comparison,
    Estimate,
    EvaluationResult,
    MethodResult,
    figure,
    html_report,
    markdown_report,
    terminal_lines,
    verdicts,
)
from genrec.report_plots import bar_chart, group_chart, recall_curves


def method(name: str, ndcg: float) -> MethodResult:
    estimate = Estimate(ndcg, ndcg - 0.01, ndcg + 0.01)
    return MethodResult(
        name=name,
        metrics={f"{metric}@{k}": estimate for k in (5, 10) for metric in ("recall", "ndcg", "mrr")},
        coverage=0.5,
        gini=None,
        tail_share=0.25,
        group_recall={"head": (0.2, 30), "mid": (0.1, 50), "tail": (0.05, 20), "cold": (None, 0)},
        recall_curve=[ndcg * k / 10 for k in range(1, 11)],
        seconds=1.25,
    )


def result(**changes: object) -> EvaluationResult:
    values: dict[str, object] = {
        "split": "test",
        "num_cases": 100,
        "num_items": 1234,
        "num_repeats": 0,
        "headline": 10,
        "cutoffs": (5, 10),
        "seed": 0,
        "bootstrap_samples": 1000,
        "methods": [method("popularity", 0.02), method("model", 0.05), method("hybrid", 0.07)],
        "comparisons": [
            Comparison("popularity", Estimate(0.03, 0.02, 0.04)),
            Comparison("hybrid", Estimate(-0.0123, -0.02, -0.01)),
            Comparison("sasrec", Estimate(0.001, -0.01, 0.012)),
        ],
    }
    return EvaluationResult(**(values | changes))  # type: ignore[arg-type]


def test_the_verdicts_say_who_is_ahead_worst_comparison_first() -> None:
    assert verdicts(result()) == [
        "NDCG: the model is below hybrid by 0.0123 (95 % interval of the difference -0.0200 to -0.0100).",
        "NDCG: the model and sasrec cannot be told apart on these users "
        "(95 % interval of the difference -0.0100 to +0.0120).",
        "NDCG: the model is above popularity by 0.0300 (95 % interval of the difference +0.0200 to +0.0400).",
    ]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_where_evidence_was_fitted_is_said(split: str) -> None:
    rows = [method(name, 0.05) for name in ("model", "model alone", "evidence")]
    said = [line for line in verdicts(result(methods=rows, split=split)) if "fitted on validation users" in line]
    assert len(said) == 1
    assert ("figures of model and evidence say little" in said[0]) is (split == "validation")
    assert not any("fitted" in line for line in verdicts(result(split=split)))


def test_a_share_of_new_items_is_named_wherever_the_figures_are_read() -> None:
    shared = result(new_share=0.125)
    for text in (" ".join(terminal_lines(shared)), markdown_report(shared, title="t"), html_report(shared, title="t")):
        assert "--new-share 0.125" in text
    assert (shared.facts["new_share"], shared.as_json["new_share"]) == (0.125, 0.125)
    assert "new_share" not in result().facts
    assert not any("share" in line for line in verdicts(result()))


def test_what_is_missing_is_said() -> None:
    alone = result(
        methods=[method("popularity", 0.02)],
        comparisons=[],
        skipped={"hybrid": "no vectors."},
        num_repeats=3,
    )
    lines = " ".join(verdicts(alone))
    assert "No model was evaluated" in lines
    assert "hybrid was left out: no vectors." in lines
    assert "3 of 100 targets are already in the history" in lines


def test_the_terminal_table_is_aligned_and_sorted_by_ndcg() -> None:
    lines = terminal_lines(result())
    rows = lines[2:5]
    assert [row.split()[0] for row in rows] == ["hybrid", "model", "popularity"]
    assert {len(row) for row in lines[1:5]} == {len(lines[1])}


def test_every_markdown_table_has_equally_long_rows() -> None:
    text = markdown_report(result(), title="Evaluation")
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1


def test_a_hostile_title_is_escaped_everywhere() -> None:
    title = "<script>alert('x')</script> | a"
    assert "<script" not in html_report(result(), title=title)
    assert "&lt;script&gt;" in html_report(result(), title=title)
    assert "# &lt;script>alert('x')&lt;/script> \\| a" in markdown_report(result(), title=title)


def test_the_page_is_self_contained_and_its_plots_take_the_pages_colour() -> None:
    page = html_report(result(), title="Evaluation")
    assert page.count("<svg") == 3
    assert "currentColor" in page
    assert "#010203" not in page
    assert "<script" not in page
    assert "<link" not in page
    assert "src=" not in page
    assert "below hybrid" in page
    assert page == html_report(result(), title="Evaluation")


@pytest.mark.parametrize(
    "plot",
    [
        bar_chart(["a & <b>", "model"], {"NDCG@10": [(0.1, 0.05, 0.15), (0.2, 0.1, 0.3)]}),
        group_chart({"a & <b>": {"head": 0.1, "cold": None}}),
        recall_curves({"a & <b>": [0.1, 0.2]}),
    ],
    ids=["bars", "groups", "curves"],
)
def test_plots_are_well_formed_and_name_their_methods(plot: str) -> None:
    texts = "".join(ET.fromstring(plot).itertext())
    assert "a & <b>" in texts


def test_json_and_facts_survive_a_round_trip() -> None:
    data = json.loads(json.dumps(result().as_json, allow_nan=False))
    assert data["methods"][2]["metrics"]["ndcg@10"]["value"] == 0.07
    assert data["cutoffs"] == [5, 10]
    facts = json.loads(json.dumps(result().facts, allow_nan=False))
    assert facts["methods"]["model"] == {"recall@10": 0.05, "ndcg@10": 0.05, "mrr@10": 0.05}


def test_figures_have_four_places_and_a_dash_for_none() -> None:
    assert (figure(None), figure(0.12345), figure(0.5, sign=True)) == ("–", "0.1235", "+0.5000")


def test_the_model_has_one_colour_in_every_plot_and_shares_it_with_nobody() -> None:
    names = ["hybrid", "transitions", "item-knn", "sasrec", "model", "dense-knn", "popularity"]
    marked = "#d55e00"
    bars = bar_chart(names, {"NDCG@10": [(0.1, 0.05, 0.2)] * 7})
    groups = group_chart({name: {"head": 0.1} for name in names})
    curves = recall_curves({name: [0.1, 0.2] for name in names})
    assert marked in bars
    without = [name for name in names if name != "model"]
    for drawn, draw in (
        (groups, lambda kept: group_chart({name: {"head": 0.1} for name in kept})),
        (curves, lambda kept: recall_curves({name: [0.1, 0.2] for name in kept})),
    ):
        assert marked in drawn
        assert marked not in draw(without)


def test_no_two_methods_of_a_full_evaluation_share_a_colour() -> None:
    names = [*BASELINES, "model", "model alone"]
    drawn = re.findall(r"fill: (#[0-9a-f]{6})", group_chart({name: {"head": 0.1} for name in names}))
    assert len({colour for colour in drawn if colour != "#ffffff"}) >= len(names)
