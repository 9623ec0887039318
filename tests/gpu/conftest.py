"""These tests are for a machine with an NVIDIA GPU; elsewhere they say so."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _a_gpu() -> None:
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"no NVIDIA GPU here: {error}")
