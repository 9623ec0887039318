from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.engines import Engine, started

KINDS = [pytest.param("stand-in"), pytest.param("vllm", marks=pytest.mark.lab)]


@pytest.fixture(scope="session", params=KINDS)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Each engine in turn, one process for all tests that leave it running."""
    with started(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def unhurried(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Each engine in turn, slow enough that a test can look while it works."""
    folder = tmp_path_factory.mktemp(request.param)
    with started(request.param, folder, unhurried=True) as running:
        yield running


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kinds of engines, for tests that end theirs."""
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the ends of real vLLM that take a minute each to the long run."""
    for item in items:
        if item.name in (
            "test_when_the_time_is_over_an_error_event_ends_the_stream[vllm]",
            "test_without_time_the_stream_is_aborted[vllm]",
        ):
            item.add_marker(pytest.mark.long)
