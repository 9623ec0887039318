"""Pictures of what a command draws: of its last whole frame, and fetching nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FRAMES = (
    "stty raw; for n in 1 2 3; do printf '\\033[Hframe\\033[1m %s\\033[0m\\033[K\\r\\n' $n; done; "
    "dd bs=1 count=1 status=none >/dev/null"
)


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("picture", ROOT / "scripts/picture.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_it_is_of_the_last_whole_frame(picture: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "docs/one.svg"
    words = ["--columns", "40", "--seconds", "1", "--title", "a title", str(out)]
    assert picture.main([*words, "sh", "-c", FRAMES]) == 0
    text = out.read_text().replace("&#160;", " ")
    assert "frame" in text
    assert " 2<" in text
    assert " 3<" not in text  # nobody knows whether it is whole
    assert "a title" in text
    assert "url(http" not in text.replace('"', "")


def test_the_picture_of_ops_top_is_linked_and_fetches_nothing() -> None:
    page = (ROOT / "docs/operate.md").read_text()
    for path in (ROOT / "docs/pictures").iterdir():
        assert f"](pictures/{path.name})" in page
        assert "url(http" not in path.read_text().replace('"', "")
