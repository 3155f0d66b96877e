"""A model that was taught on H1 and H2 proposes: found by `auto`, demanded by `on`, served together, kept by replay."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec import Recommender, pipeline
from genrec.chat import ChatState, Dialogue
from genrec.chat.proposal_measuring import count_proposals, faults, make_cases, understand
from genrec.chat.replay import Said, markdown, plain, replay
from genrec.chat.speaker import as_proposals, taught
from genrec.config import TrainConfig, load_config
from genrec.errors import ConfigError
from genrec.run import Run
from genrec.server.monitoring import Monitor
from genrec.server.work import Turn
from genrec.server.worker import BatchWorker
from genrec.tasks.data import load_task_data
from genrec.tasks.messages import Messages
from genrec.tasks.reply_source import MESSAGES, REPLY_WORDS
from tests.chat.speaking import speaking

MESSAGES_OF_USERS = ["I loved “Film 3”", "a western please", "no comedies", "why?", "surprise me", "Film 4 was boring"]


@pytest.fixture(scope="module")
def taught_run(tiny_run: Path, tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run, trained for a moment on the tasks of conversations too."""
    path = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("taught") / "run"))
    config = load_config(TrainConfig, tiny_files / "train.yaml")
    tasks = {"A1": 0.4, "H1": 0.4, "H2": 0.2}
    pipeline.train(Run(path), config.model_copy(update={"tasks": tasks, "epochs": 1, "example_tokens": 900}))
    return path


def test_auto_finds_out_whether_the_model_was_taught_and_on_demands_it(tiny_run: Path, taught_run: Path):
    assert set(taught(Run(taught_run))) == {MESSAGES, REPLY_WORDS}
    assert taught(Run(tiny_run)) == {}
    there, plain_one = Recommender.load(taught_run), Recommender.load(tiny_run)
    assert Dialogue.over(there).speaker is not None
    assert Dialogue.over(there, proposals="off").speaker is None
    assert Dialogue.over(plain_one).speaker is None
    with pytest.raises(ConfigError, match="was not trained to read messages") as refused:
        Dialogue.over(plain_one, proposals="on")
    assert "train/configs/chat.yaml" in str(refused.value)
    with pytest.raises(ConfigError, match="'yes'"):
        as_proposals("yes")


def test_a_model_that_has_learned_little_changes_nothing_that_was_read(taught_run: Path):
    dialogue = Dialogue.over(Recommender.load(taught_run), proposals="on")
    without = Dialogue.over(dialogue.recommender, proposals="off")
    state = ChatState()
    for message in MESSAGES_OF_USERS:
        turn, alone = dialogue.turn(state, message), without.turn(state, message)
        assert turn.trace[0].startswith("the model proposed")
        assert (turn.act, turn.item_ids) == (alone.act, alone.item_ids)
        assert sum(faults(dialogue, turn).values()) == 0
        state = turn.state


def test_turns_of_many_users_are_those_of_each_alone_with_few_calls(taught_run: Path):
    recommender = Recommender.load(taught_run)
    dialogue = Dialogue.over(recommender)
    alone = [dialogue.turn(ChatState(), message) for message in MESSAGES_OF_USERS]
    worker = BatchWorker(lambda: recommender, Monitor(), proposals="on")
    calls: list[int] = []
    generate = recommender.engine.generate

    def counted(prompts, **options):
        calls.append(len(prompts))
        return generate(prompts, **options)

    recommender.engine.generate = counted  # type: ignore[method-assign]
    worker.start()
    assert worker.loaded.wait(60)

    async def together():
        return await asyncio.gather(*(worker.run(Turn(ChatState(), message)) for message in MESSAGES_OF_USERS))

    assert asyncio.run(together()) == alone
    worker.stop(seconds=30)
    assert calls[0] <= len(MESSAGES_OF_USERS)
    assert len(calls) <= 4  # proposals, then words, of one or two batches


def test_a_wish_that_a_proposal_added_outlives_a_conversation_kept_elsewhere(film_dialogue: Dialogue):
    there, engine = speaking(film_dialogue, lambda _: "act: recommend\nwant: Western", about=(MESSAGES,))
    state, said = ChatState(), []
    for message in ("a wetsern please", "more"):
        turn = there.turn(state, message)
        state = turn.state
        said += [Said("user", message), Said("assistant", plain(markdown(turn.segments)))]
    before = engine.calls
    assert there.alone(replay(there, ChatState(), said)) == state
    assert state.constraints.wanted[0].values == ("Western",)
    assert engine.calls == before  # the answers of then


def test_cases_are_what_lessons_mean_and_the_reading_understands_many(taught_run: Path):
    dialogue = Dialogue.over(Recommender.load(taught_run), proposals="on")
    assert dialogue.speaker is not None
    data = load_task_data(Run(taught_run), dialogue.recommender.item_tokens)
    cases = make_cases(dialogue.index, Messages(dialogue.speaker.phrases, data), count=12, seed=0)
    assert not [case for case in cases if "[" in case.message]
    found = understand(dialogue, cases)
    counts = count_proposals(found)
    assert counts["read alone right, together wrong"] == 0
    assert sum(counts[name] for name in ("accepted", "in part", "left out", "unreadable")) == 12


def test_the_command_takes_the_option_and_shows_the_proposal(
    genrec: Callable, taught_run: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("a western\n\n"))
    done = genrec("chat", taught_run, "--proposals", "on", "--trace")
    assert done.status == 0, done.err
    assert "  · the model proposed" in done.out
    done = genrec("chat", tiny_run, "--proposals", "on")
    assert (done.status, "was not trained to read messages" in done.err) == (2, True)
    assert genrec("chat", tiny_run, "--proposals", "maybe").status == 2
    assert "--proposals" in genrec("serve", "--help").out
