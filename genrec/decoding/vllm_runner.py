"""vLLM in this process: requests of any thread in, their outputs out, all of them batched together.

vLLM's `LLM.generate` belongs to one caller: it steps until *everything* is finished. Here every thread that waits
for an output takes a turn at stepping the engine for all, so ranking, text and streams of many threads share one
continuous batch, and no thread and no process of our own is needed. A thread whose output has come goes on while
another one steps. A step that fails ends every request under way, for nobody knows whose fault it was.

Requests go to vLLM's engine core and outputs come from it as they are, which is what vLLM's own front ends are made
of. Their output processor is left out: it turns every log-probability into Python objects, a fifth of a search's time.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from vllm import LLM
from vllm.inputs import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreOutput

from genrec.errors import ModelError


@dataclass
class Ticket:
    """A request under way. `outputs` fills while somebody steps."""

    prompt: list[int]
    params: SamplingParams
    outputs: deque[EngineCoreOutput] = field(default_factory=deque)
    finished: bool = False
    error: Exception | None = None
    request_id: str = ""  # vLLM's, once it has the request


class Runner:
    """One vLLM engine for all threads of this process."""

    def __init__(self, llm: LLM, *, local: bool) -> None:
        """`local` says whether the worker is in this process as well: then `Scores` reach it."""
        self._engine: Any = llm.llm_engine
        self.local = local
        self._turn, self._is_stepping = threading.Condition(), False
        self._new = deque[tuple[Ticket, LoRARequest | None]]()
        self._numbers, self._tasks = itertools.count(), self._engine.get_supported_tasks()
        self.closed = False
        self._release = weakref.finalize(self, release_process)  # also where nobody closes
        self._tickets: dict[str, Ticket] = {}
        self._unwanted: deque[Ticket] = deque()
        # vLLM ranks log-probabilities in a compiled function: half a minute and a C++ compiler for nothing here.
        self._eager = llm.llm_engine.vllm_config.model_config.enforce_eager

    def submit(self, prompt: list[int], params: SamplingParams, lora: LoRARequest | None = None) -> Ticket:
        """Queue a prompt of token ids; it runs when somebody calls `outputs`."""
        ticket = Ticket(prompt, params)
        self._new.append((ticket, lora))
        return ticket

    def run(
        self, prompts: Sequence[list[int]], params: Sequence[SamplingParams], lora: LoRARequest | None = None
    ) -> list[EngineCoreOutput]:
        """The last output of each prompt, in order."""
        tickets = [self.submit(prompt, its, lora) for prompt, its in zip(prompts, params, strict=True)]
        try:
            return [list(self.outputs(ticket))[-1] for ticket in tickets]
        finally:
            for ticket in tickets:
                self.cancel(ticket)

    def outputs(self, ticket: Ticket) -> Iterator[EngineCoreOutput]:
        """Outputs of a request as they come. Raises what vLLM raised where it refused the request."""
        while not ticket.finished or ticket.outputs:
            if ticket.outputs:
                yield ticket.outputs.popleft()
            else:
                self._advance(ticket)
        if ticket.error is not None:
            raise ticket.error

    def cancel(self, ticket: Ticket) -> None:
        """Stop a request that nobody reads any more; harmless where it is finished."""
        if not ticket.finished:
            self._unwanted.append(ticket)

    def close(self) -> None:
        """Free the model. Requests that are under way are lost."""
        with self._turn:
            first, self.closed = not self.closed, True  # before it waits: no step begins from here on
            while self._is_stepping:
                self._turn.wait()
            if first:
                self._engine.engine_core.shutdown()
                self._release()

    def _advance(self, ticket: Ticket) -> None:
        """Step for all, or wait while another thread does and nothing has come for this ticket."""
        with self._turn:
            while self._is_stepping:
                self._turn.wait()
                if ticket.outputs or ticket.finished:
                    return
            self._is_stepping = True
        try:
            self._step()
        except Exception as error:  # of no request in particular; whoever asked may try them one by one
            self._fail_all(error)
        finally:
            with self._turn:
                self._is_stepping = False
                self._turn.notify_all()

    def _fail_all(self, error: Exception) -> None:
        under_way = list(self._tickets.values())
        while self._new:  # one by one: other threads submit meanwhile
            under_way.append(self._new.popleft()[0])
        with suppress(Exception):  # of an engine that is gone
            self._engine.engine_core.abort_requests(list(self._tickets))
        self._tickets.clear()
        for ticket in under_way:
            ticket.error, ticket.finished = error, True

    def _step(self) -> None:
        if self.closed:
            raise ModelError("the engine is closed.", "Load the recommender again.")
        while self._new:
            self._admit(*self._new.popleft())
        while self._unwanted:
            self._abort(self._unwanted.popleft())
        if not self._tickets:
            return
        with _without_compiling(self._eager):
            found = self._engine.engine_core.get_output()
        for output in found.outputs:
            ticket = self._tickets.get(output.request_id)
            if ticket is None:  # cancelled in the meantime
                continue
            ticket.outputs.append(output)
            if output.finished:
                self._finish(ticket)

    def _admit(self, ticket: Ticket, lora: LoRARequest | None) -> None:
        inputs, name = self._engine.input_processor, f"genrec-{next(self._numbers)}"
        try:
            request = inputs.process_inputs(
                name, tokens_input(ticket.prompt), ticket.params, supported_tasks=self._tasks, lora_request=lora
            )
            inputs.assign_request_id(request)
            self._engine.engine_core.add_request(request)
        except Exception as error:  # of this request alone: whoever waits for it gets it, others go on
            ticket.error, ticket.finished = error, True
            return
        ticket.request_id = request.request_id
        self._tickets[ticket.request_id] = ticket

    def _abort(self, ticket: Ticket) -> None:
        if ticket.request_id in self._tickets:
            self._engine.engine_core.abort_requests([ticket.request_id])
            self._finish(ticket)

    def _finish(self, ticket: Ticket) -> None:
        del self._tickets[ticket.request_id]
        ticket.finished = True


@contextmanager
def _without_compiling(eager: bool) -> Iterator[None]:
    with ExitStack() as stack:
        if eager:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


_held = threading.Lock()


def hold_process() -> None:
    """Take this process for one engine. Raises ModelError where another one is open."""
    if not _held.acquire(blocking=False):
        raise ModelError(
            "this process holds a vLLM engine already, and vLLM keeps much of an engine in global variables.",
            "Close it first, or use a second process. `with_score_mode` and `with_adapter` share one engine.",
        )


def release_process() -> None:
    """Give this process free for another engine."""
    _held.release()


@contextmanager
def in_this_process() -> Iterator[None]:
    """While an engine is made: keep it in this process, and undo what vLLM changes in the process for itself."""
    changed = ("VLLM_ENABLE_V1_MULTIPROCESSING", "LD_PRELOAD")
    before = {name: os.environ.get(name) for name in changed}
    set_num_threads = torch.set_num_threads  # the CPU worker replaces it by a warning
    states = random.getstate(), np.random.get_state()  # vLLM seeds everything
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_num_threads = set_num_threads
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
