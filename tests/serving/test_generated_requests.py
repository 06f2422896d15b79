"""Bodies that schemathesis makes of /openapi.json, good and bad: no failure, no answer that is not
described. What is asked without a body is asked in test_openapi.py.

Always the same requests, so that a run says what the one before it said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.servers import Running, echo_config, serving

#: These change what a server is: each has tests of its own.
LEFT_OUT = ["/internal/drain", "/internal/echo"]
JUDGED = [
    checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: Requests for each operation, of each kind.
MANY = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest_asyncio.fixture(
    params=["chat", "embedding", "transcription", "image"], scope="module", loop_scope="package"
)
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    """An echo server for each task."""
    config = echo_config(model={"task": request.param})
    async with serving(tmp_path_factory.mktemp(request.param), config) as running:
        yield running


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_request_gets_an_answer_that_is_described(
    server: Running, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked = 0
    for found in schema.include(method="POST").exclude(path=LEFT_OUT).get_all_operations():
        operation = found.ok()

        @MANY
        @given(case=operation.as_strategy(generation_mode=mode))
        def judged(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(checks=JUDGED)

        judged()
    assert asked >= MANY.max_examples
