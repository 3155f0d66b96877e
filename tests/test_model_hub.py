"""Models by name where the hub cannot be reached: an answer at once, and nothing is switched off where it can be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import socket

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from genrec.config import TrainConfig
from genrec.encoders.pretrained import load_model
from genrec.encoders.text import TextEncoder
from genrec.encoders.vision import VisionEncoder
from genrec.errors import ModelError
from genrec.model_hub import reaching_hub
from genrec.training.model import load_base

NAME = "nobody/no-such-model"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without HF_HUB_OFFLINE; a client that would try again must not wait."""

    def again(seconds: float) -> None:
        raise AssertionError(f"the hub was to be asked again in {seconds} s")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_http.time, "sleep", again)


@pytest.fixture
def nobody(online: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a hub that nobody listens at."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    return address


@pytest.fixture
def hub(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that answers every question with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "load",
    [
        lambda: load_base(TrainConfig(base=NAME), []),
        lambda: load_model(NAME, what="image encoder"),
        lambda: TextEncoder(NAME),
        lambda: VisionEncoder(NAME, max_megapixels=1.0),
    ],
    ids=["base", "model", "text", "image"],
)
def test_a_name_that_is_no_folder_fails_at_once_where_the_hub_cannot_be_reached(load, nobody: str):
    with pytest.raises(ModelError, match=rf"it is no folder, {nobody} cannot be reached, and no whole copy"):
        load()
    assert not constants.is_offline_mode()  # the next one asks again


def test_a_hub_that_answers_is_asked(hub: None):
    with reaching_hub(NAME):
        assert not constants.is_offline_mode()


def test_a_hub_that_cannot_be_reached_leaves_the_cache(nobody: str):
    with reaching_hub(NAME):
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()


def test_a_folder_is_loaded_without_asking_anybody(nobody: str, tmp_path: Path):
    with reaching_hub(str(tmp_path)):
        assert not constants.is_offline_mode()


def test_whoever_is_offline_by_choice_stays_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with reaching_hub(NAME):
        assert constants.is_offline_mode()
    assert constants.is_offline_mode()
