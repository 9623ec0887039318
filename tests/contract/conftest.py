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
