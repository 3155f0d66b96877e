"""A judge behind a real local server and behind an engine: what it fails to answer is missing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from genrec.decoding.scripted import ScriptedEngine
from genrec.errors import ConfigError
from genrec.explanation_judge import ask_address, ask_engine, judge

CUT_OFF = "an answer of which half arrives"
ANSWERS = ["5", " 2\n", "four", "7", "3.5", "", "1 because it is bad", None, CUT_OFF, "4."]
EXPECTED = [5, 2, np.nan, np.nan, np.nan, np.nan, 1, np.nan, np.nan, 4]


class Server(BaseHTTPRequestHandler):
    """Answers in order; None is an error of the server."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = self.server.seen  # type: ignore[attr-defined]
        answer = ANSWERS[len(seen)]
        seen.append((self.path, self.headers.get("Authorization"), asked))
        body = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        self.send_response(200 if answer is not None else 500)
        self.send_header("Content-Length", str(2 * len(body) if answer == CUT_OFF else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_failed_answers_of_a_server_are_missing_and_the_mean_is_of_the_others(server: HTTPServer) -> None:
    ask = ask_address(f"http://127.0.0.1:{server.server_port}/v1", "m", api_key="k")
    found = judge(["a text"] * 10, ["a fact"] * 10, ask)
    np.testing.assert_array_equal(found.scores, EXPECTED)
    assert found.num_missing == 6
    assert found.mean == pytest.approx(3)
    path, key, asked = server.seen[0]  # type: ignore[attr-defined]
    assert (path, key, asked["model"]) == ("/v1/chat/completions", "Bearer k", "m")
    assert "a text" in asked["messages"][0]["content"]


def test_a_server_that_is_not_there_leaves_every_row_missing() -> None:
    found = judge(["t"], ["f"], ask_address("http://127.0.0.1:9/v1", "m", timeout_seconds=1))
    assert found.num_missing == 1
    assert np.isnan(found.mean)
    with pytest.raises(ConfigError, match="no address"):
        ask_address("localhost", "m")


NO_ANSWERS = ["1-5", "1 - 5", "1–5", "1 to 5", "between 1 and 5", "2 or 3", "3 oder 4", "4/5", "4 out of 5", "2 of 5"]
NO_ANSWERS += ["1.5", "1,5", "3 point five", "4½", "15", "-1", "5 (maybe 4)", "4%", "2, 3", "3\n4", "3rd", "0", "6"]


@pytest.mark.parametrize("answer", NO_ANSWERS)
def test_an_answer_that_leaves_a_choice_or_is_no_whole_number_is_missing(answer: str) -> None:
    assert np.isnan(judge(["t"], ["f"], lambda _: [answer]).scores[0])


@pytest.mark.parametrize("answer", ["4", " 4\n", "4.", "4!", "4 because it says so", "4, more or less"])
def test_an_answer_that_begins_with_one_number_and_holds_no_other_counts(answer: str) -> None:
    assert judge(["t"], ["f"], lambda _: [answer]).scores.tolist() == [4]


def test_a_row_that_is_too_long_for_the_engine_costs_that_row_alone(tiny_run: Path) -> None:
    from transformers import AutoTokenizer

    from genrec.decoding.transformers_engine import TransformersEngine
    from genrec.errors import ModelError
    from genrec.vocabulary import SidVocabulary

    engine = TransformersEngine.load(tiny_run / "model", vocabulary=SidVocabulary.load(tiny_run / "model"))
    ask = ask_engine(engine, AutoTokenizer.from_pretrained(tiny_run / "model"))
    questions = ["Which?", "Why? " * 5000, "Who?", "How? " * 5000, "Where?"]
    answers = ask(questions)
    assert [answer is None for answer in answers] == [False, True, False, True, False]
    assert answers[::2] == ask(questions[::2])
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        ask(questions)


def test_an_engine_judges_too(tiny_run: Path) -> None:
    from transformers import AutoTokenizer

    engine = ScriptedEngine(lambda prompt, codes: np.zeros(8), texts=["4", "x"])
    found = judge(["a", "b"], ["c", "d"], ask_engine(engine, AutoTokenizer.from_pretrained(tiny_run / "model")))
    np.testing.assert_array_equal(found.scores, [4, np.nan])
