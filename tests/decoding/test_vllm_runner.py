"""Many threads, one engine: who steps, who waits, and what a step that fails does. vLLM's core is played here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from genrec.errors import ModelError

pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")

POISON = 13
STEP_SECONDS = 0.002


class Core:
    """As vLLM's engine core seen from outside: every step gives each request a token, the last one finishes it.

    A request is a prompt `[steps, …]`; one that holds `POISON` makes every step fail while it is there.
    """

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.poisoned: set[str] = set()
        self.steps = 0
        self.vllm_config = SimpleNamespace(model_config=SimpleNamespace(enforce_eager=False))
        self.engine_core = self.input_processor = self

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def process_inputs(self, name: str, prompt: Any, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(request_id=name, tokens=prompt["prompt_token_ids"])

    def assign_request_id(self, request: Any) -> None:
        pass

    def add_request(self, request: Any) -> None:
        self.left[request.request_id] = request.tokens[0]
        if POISON in request.tokens:
            self.poisoned.add(request.request_id)

    def abort_requests(self, names: list[str]) -> None:
        for name in names:
            self.left.pop(name, None)
            self.poisoned.discard(name)

    def get_output(self) -> Any:
        time.sleep(STEP_SECONDS)
        self.steps += 1
        if self.poisoned:
            raise RuntimeError("poison")
        outputs = []
        for name in list(self.left):
            self.left[name] -= 1
            finished = not self.left[name]
            outputs.append(SimpleNamespace(request_id=name, finished=finished))
            if finished:
                del self.left[name]
        return SimpleNamespace(outputs=outputs)

    def shutdown(self) -> None:
        pass


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def runner(core: Core) -> Any:
    from genrec.decoding.vllm_runner import Runner, hold_process

    hold_process()
    made = Runner(SimpleNamespace(llm_engine=core), local=False)  # type: ignore[arg-type]
    yield made
    made.close()


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def test_a_short_request_does_not_wait_for_the_long_one_of_a_thread_that_steps_without_a_break(
    core: Core, runner: Any
) -> None:
    long, _ = in_thread(lambda: runner.run([[400]], [None]))
    while not core.steps:
        time.sleep(STEP_SECONDS)
    for _ in range(4):  # the levels of a search
        before = core.steps
        assert len(runner.run([[1, 1], [2, 2]], [None, None])) == 2
        assert core.steps - before < 20
    assert long.is_alive()
    long.join()


def test_a_step_that_fails_ends_what_is_under_way_and_nothing_that_comes_later(core: Core, runner: Any) -> None:
    innocent, found = in_thread(lambda: runner.run([[100], [100]], [None, None]))
    while not core.steps:
        time.sleep(STEP_SECONDS)
    with pytest.raises(RuntimeError, match="poison"):
        runner.run([[5, POISON], [5]], [None, None])
    innocent.join()
    assert isinstance(found[0], RuntimeError)
    assert not core.left  # the engine is empty: one by one, those that are right succeed
    assert len(runner.run([[3]], [None])) == 1


def test_requests_are_withdrawn_where_nobody_waits_for_them(core: Core, runner: Any) -> None:
    tickets = [runner.submit([steps], None) for steps in (2, 50)]
    assert len(list(runner.outputs(tickets[0]))) == 2
    runner.cancel(tickets[1])
    runner.run([[1]], [None])
    assert not core.left


def test_whoever_waits_while_an_engine_is_closed_is_told(core: Core, runner: Any) -> None:
    waiting, found = in_thread(lambda: runner.run([[10_000]], [None]))
    while not core.steps:
        time.sleep(STEP_SECONDS)
    runner.close()
    waiting.join(10)
    assert isinstance(found[0], ModelError)
