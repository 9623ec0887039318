"""A mirror of few packages, built for real and once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.lab.mirror import build, catalogue, makers, signing
from ops.lab.mirror.package import Package


@pytest.fixture(scope="module")
def build_mirror(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Callable[[Package], bool]], Path]]:
    """Build the mirror with those packages alone that a test is about."""
    cache = tmp_path_factory.mktemp("m")
    whole = catalogue.load()
    with pytest.MonkeyPatch.context() as patch:

        def made(wanted: Callable[[Package], bool]) -> Path:
            few = dataclasses.replace(whole, packages=tuple(filter(wanted, whole.packages)))
            patch.setattr(signing, "CACHE", cache)
            patch.setattr(build, "CACHE", cache)
            patch.setattr(catalogue, "load", lambda: few)
            library = b"\x7fELF\x02\x01\x01 library"
            patch.setattr(makers, "_driver", lambda: (library, b"#!/bin/sh\n"))
            return build.ensure()

        yield made
