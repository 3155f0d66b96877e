"""Whatever fits or does not fit the OpenAPI document: no answer is a 500."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck
from schemathesis import GenerationMode

from genrec.recommender import Recommender
from tests.server.conftest import Listening


@pytest.fixture(scope="module")
def document(tiny_run: Path, tiny_recommender: Recommender, tmp_path_factory: pytest.TempPathFactory):
    service = Listening(
        tiny_run, lambda: tiny_recommender, database=f"sqlite:///{tmp_path_factory.mktemp('api') / 'c.sqlite'}"
    )
    yield schemathesis.openapi.from_url(f"{service.address}/openapi.json")
    service.end()


def hold(operation) -> set[int]:
    """Requests that fit the document and requests that do not; the statuses of the answers."""
    statuses: set[int] = set()

    @hypothesis.given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @hypothesis.settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def one(case):
        answer = case.call(timeout=30)
        statuses.add(answer.status_code)
        assert answer.status_code < 500, answer.text

    one()
    return statuses


def test_no_request_makes_a_server_error(document):
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 15
    assert all(hold(operation) for operation in operations)


def test_the_document_names_every_route(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    assert len(paths) >= 15
