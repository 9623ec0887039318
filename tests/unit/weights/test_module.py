"""Module `rackhand.host.weights` on this machine: the same format and the same way into place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rendering import ROOT

from ops.weights.manifest import MANIFEST, describe


def stage(source: str, target: Path) -> str:
    arguments = {"path": str(target), "source": source, "revision": "v1"}
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible", "-i", "localhost,", "-c", "local", "all",
         "-e", f"ansible_python_interpreter={sys.executable}",
         "-m", "rackhand.host.weights", "-a", json.dumps(arguments)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git/pack").write_text("no weights")
    (folder / "config.json").write_text("{}")
    (folder / "sub/model.safetensors").write_bytes(b"x" * 5000)
    return folder


@pytest.mark.parametrize("scheme", ["host", "file"])
def test_what_an_earlier_run_left_is_gone_on_with(
    source: Path, tmp_path: Path, scheme: str
) -> None:
    staging, target = tmp_path / "v1.staging", tmp_path / "v1"
    (staging / "sub").mkdir(parents=True)
    (staging / "sub/model.safetensors").write_bytes(b"x" * 100)
    (staging / "of another source.bin").write_bytes(b"y")
    said = stage(f"{scheme}://{source}", target)
    assert "CHANGED" in said, said
    assert not staging.exists()
    found = json.loads((target / MANIFEST).read_text())
    assert found == {"source": f"{scheme}://{source}", "files": describe(str(source))}
    assert describe(str(target)) == describe(str(source))
    assert (target / "config.json").stat().st_mode & 0o777 == 0o444
    assert "SUCCESS" in stage(f"{scheme}://{source}", target)
