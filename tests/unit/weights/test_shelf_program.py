"""The host's own program, on a host that is a folder."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ops.weights.job import LOADER, make_job
from ops.weights.manifest import MANIFEST, describe, digest, seal
from ops.weights.shelf import read_shelf

DAY = 86_400.0


class HostFolder:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        running = "case $2 in engine@demo-blue.service) echo active;; *) echo inactive;; esac"
        (root / "bin/systemctl").write_text(f"#!/bin/sh\n{running}\n")
        (root / "bin/systemctl").chmod(0o755)
        for name in ("v1", "v2", "v3"):
            self.put(name)
        for name in ("0.31.0-cpu", "0.32.0-cpu"):
            self.write(f"opt/vllm/{name}/.complete", "x")
        self.write("etc/engine/demo-blue.env", self.settings("0.32.0-cpu", "v2"))
        fact = {"revision": "v2", "environment": "0.32.0-cpu", "standby": {"revision": "v1"}}
        self.write("etc/ansible/facts.d/engine.fact", json.dumps({"models": {"demo": fact}}))

    @staticmethod
    def settings(environment: str, revision: str) -> str:
        return (
            f"# managed\nENGINE_COMMAND=/opt/vllm/{environment}/bin/vllm\nENGINE_PORT=8100\n"
            f'ENGINE_ARGS="serve /srv/models/demo/{revision} --served-model-name demo"\n'
        )

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def put(self, revision: str) -> None:
        self.write(f"srv/models/demo/{revision}.staging/config.json", "{}" * 5000)
        folder = self.root / "srv/models/demo" / revision
        files = describe(f"{folder}.staging")
        seal(f"{folder}.staging", str(folder), "hf://a/b", files)

    def call(self, verb: str, *, status: int = 0, **values: Any) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", LOADER], capture_output=True, text=True,
            input=make_job("shelf_program.py", {"verb": verb, **values}),
            env={**os.environ, "RACKHAND_SHELF_ROOT": str(self.root),
                 "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if status == 0 else done.stderr

    def remove(self, *paths: str) -> Any:
        return self.call("remove", paths=list(paths), young=DAY)

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.root / "srv/models/demo").iterdir())


@pytest.fixture
def host(tmp_path: Path) -> HostFolder:
    return HostFolder(tmp_path)


def test_a_survey_tells_what_lies_there_and_who_uses_it(host: HostFolder) -> None:
    host.write("srv/models/demo/v4.staging/part", "x" * 10_000)
    shelf = read_shelf("gpu1", host.call("survey", sizes=True))
    found = {r.name: r for r in shelf.models["demo"]}
    assert [r.whole for r in found.values()] == [True, True, True, False]
    assert found["v2"].size == 10_000
    assert found["v2"].digest == digest(describe(str(host.root / "srv/models/demo/v2")))
    assert shelf.staged_bytes("demo", "v4") >= 10_000
    assert [e.name for e in shelf.environments] == ["0.31.0-cpu", "0.32.0-cpu"]
    assert all(e.complete and e.ours for e in shelf.environments)
    assert shelf.slots[0].runs
    assert shelf.slots[0].path == "/srv/models/demo/v2"
    assert shelf.slots[0].environment == "0.32.0-cpu"
    assert shelf.free > 0


def test_a_host_without_anything_has_an_empty_shelf(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    bare = HostFolder.__new__(HostFolder)
    bare.root = tmp_path / "bare"
    shelf = read_shelf("gpu1", bare.call("survey"))
    assert not shelf.models
    assert not shelf.slots


def test_what_is_named_goes_and_the_bytes_are_told(host: HostFolder) -> None:
    said = host.remove("/srv/models/demo/v3", "/opt/vllm/0.31.0-cpu")
    assert said["freed"] >= 10_000
    assert said["kept"] == {}
    assert host.names() == ["v1", "v2"]
    assert not (host.root / "opt/vllm/0.31.0-cpu").exists()


def test_what_is_needed_after_all_stays_whatever_ops_says(host: HostFolder) -> None:
    host.write("srv/models/demo/v4.staging/part", "x")
    host.write("etc/engine/demo-blue.env", host.settings("0.32.0-cpu", "v3"))
    names = ("v1", "v2", "v3", "v4.staging")
    said = host.remove(*(f"/srv/models/demo/{n}" for n in names), "/opt/vllm/0.32.0-cpu")
    assert said["kept"] == {
        "/srv/models/demo/v1": "is the way back",
        "/srv/models/demo/v2": "serves",
        "/srv/models/demo/v3": "runs in slot demo-blue",
        "/srv/models/demo/v4.staging": "is being staged",
        "/opt/vllm/0.32.0-cpu": "serves",
    }
    assert host.names() == [*names]


def test_a_staging_folder_that_nothing_moved_in_for_a_day_goes(host: HostFolder) -> None:
    part = host.write("srv/models/demo/v0.staging/part", "x")
    for path in (part, part.parent):
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    assert not host.remove("/srv/models/demo/v0.staging")["kept"]
    assert "v0.staging" not in host.names()


def test_a_removal_that_was_killed_in_the_middle_is_finished(host: HostFolder) -> None:
    folder = host.root / "srv/models/demo"
    (folder / "v3").rename(folder / "v3.removing")
    (folder / "v3.removing" / MANIFEST).unlink()
    host.remove("/srv/models/demo/v3")  # a resume knows it by its own name
    assert host.names() == ["v1", "v2"]
    assert host.remove("/srv/models/demo/v3") == {"freed": 0, "kept": {}}


def test_a_fact_that_cannot_be_read_removes_nothing(host: HostFolder) -> None:
    host.write("etc/ansible/facts.d/engine.fact", "{broken")
    host.call("remove", status=1, paths=["/srv/models/demo/v3"], young=DAY)
    assert host.names() == ["v1", "v2", "v3"]


@pytest.mark.parametrize("path", ["/etc/engine", "/srv/models/demo", "/srv/models/a/..", "/"])
def test_nothing_else_can_be_removed(host: HostFolder, path: str) -> None:
    host.call("remove", status=1, paths=[path], young=DAY)


def test_a_folder_of_the_host_is_weighed_without_what_is_no_weights(host: HostFolder) -> None:
    host.write("nfs/model/config.json", "12345")
    host.write("nfs/model/.git/pack", "x" * 100)
    assert host.call("folder", path=str(host.root / "nfs/model")) == {"size": 5}
    assert host.call("folder", path=str(host.root / "nfs/none")) == {"size": -1}


def test_a_hub_that_does_not_tell_is_no_error(host: HostFolder) -> None:
    said = host.call("hub", repository="a/b", revision="main", endpoint="http://127.0.0.1:9",
                     token_file="", ca_file="")  # fmt: skip
    assert said["size"] == 0
    assert "does not tell" in said["why"]
