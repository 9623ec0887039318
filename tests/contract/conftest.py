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


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kinds of engines, for tests that end theirs."""
    return str(request.param)


#: On an idle machine the tiny model makes 1,000 tokens a second, which starves vLLM's own metrics
#: page, and vLLM loses its shutdown races at times: too unsure for every run.
RACES_OF_VLLM = (
    "test_more_requests_than_seats",
    "test_a_client_that_hangs_up",
    "test_when_the_time_is_over",
    "test_without_time",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave real vLLM's races to the long run."""
    for item in items:
        if "[vllm" in item.name and item.name.startswith(RACES_OF_VLLM):
            item.add_marker(pytest.mark.long)
