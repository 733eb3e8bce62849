"""schemathesis over our own /openapi.json: no 5xx, and every answer has its documented shape."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sidecar.api.shapes import ANSWERS
from sidecar.shelf import ServedModel
from tests.api.asgi import EVERYTHING
from tests.fakes.live import Live, live_server

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
MODES = [
    (*route, mode)
    for route in ANSWERS
    for mode in GenerationMode
    if route[0] == "post" or mode is GenerationMode.POSITIVE
]


@pytest.fixture(scope="module")
def everything() -> Iterator[Live]:
    """A model that can do all, so that no route refuses for that."""
    with live_server(models=[EVERYTHING]) as server:
        yield server


@pytest.fixture
def server(path: str, everything: Live) -> Iterator[Live]:
    """One of its own for the routes that change what is served."""
    if not path.startswith("/models"):
        yield everything
        return
    with live_server(models=[EVERYTHING, ServedModel("other")]) as own:
        yield own


@pytest.mark.parametrize(
    ("method", "path", "mode"), MODES, ids=[f"{method} {path} {mode.value}" for method, path, mode in MODES]
)
def test_answers_are_as_documented(server: Live, method: str, path: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    examples = settings(
        max_examples=25 if method == "post" else 5,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with requests.Session() as session:

        @examples
        @given(schema[path][method].as_strategy(mode))
        def holds(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=server.url, session=session, checks=CHECKS)

        holds()


def test_every_route_is_documented(everything: Live) -> None:
    found = requests.get(f"{everything.url}/openapi.json", timeout=10).json()
    routes = {(method, path) for path, operations in found["paths"].items() for method in operations}
    assert routes == set(ANSWERS)
    text = str(found)
    for name in ("EmbeddingsBody", "ModelBody", "ChatBody"):
        assert f"#/components/schemas/{name}" in text
        assert name in found["components"]["schemas"]
