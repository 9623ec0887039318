"""`ops mirror`: a closed site's copy has what the inventory installs, and nothing unsigned."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from ops.bundle import contents, create, needs
from ops.bundle import site as site_of_bundle
from ops.fleet import load
from ops.lab.commands import run
from ops.lab.mirror import signing
from ops.lab.mirror.package import Package
from ops.mirror import manifest as copy
from ops.mirror.versions import satisfies, version_key

Ops = Callable[..., str]
EXACT = "580.178.04"


class Handler(SimpleHTTPRequestHandler):
    """A file server that can continue a download, and remembers who asked it to."""

    continued: ClassVar[list[str]] = []

    def send_head(self):  # type: ignore[no-untyped-def]
        start = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if not start:
            return super().send_head()
        self.continued.append(self.path)
        data = Path(self.translate_path(self.path)).read_bytes()[int(start) :]
        self.send_response(206)
        self.end_headers()
        return io.BytesIO(data)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


def is_needed(package: Package) -> bool:
    if package.repository == "ubuntu":
        return "580" in package.name or package.name.startswith(("linux-image", "linux-modules-6"))
    return "debian12" in package.repository or "container" in package.repository


@pytest.fixture(scope="module")
def site(build_mirror: Callable[[Callable[[Package], bool]], Path]) -> Iterator[str]:
    """Address of a mirror that the site can still reach."""
    folder = build_mirror(is_needed)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture
def inventory(site: str, tmp_path: Path) -> Callable[..., Path]:
    def write(state: str = "2026-11", **changes: object) -> Path:
        base = f"{site}/{state}"
        variables: dict[str, object] = {
            "domain": "agent.example.com",
            "nvidia_driver_version": EXACT,
            "nvidia_driver_ubuntu_repo_url": f"{base}/ubuntu",
            "nvidia_driver_ubuntu_repo_key_file": str(signing.public_key("ubuntu")),
            "nvidia_cuda_repo_url": f"{base}/cuda/debian12/x86_64/",
            "nvidia_cuda_repo_key_file": str(signing.public_key("cuda")),
            "nvidia_cuda_repo_key_fingerprint": signing.fingerprint("cuda"),
            "container_toolkit_runtime": "docker",
            "container_toolkit_version": "1.19.0-1",
            "container_toolkit_repo_url": f"{base}/libnvidia-container/stable/deb/$(ARCH)",
            "container_toolkit_repo_key_file": str(signing.keyring("container")),
        }
        hosts = {"all": {"vars": variables | changes, "children": {"gpu": {"hosts": {"h1": {}}}}}}
        path = tmp_path / "hosts.yml"
        path.write_text(yaml.safe_dump(hosts).replace("$(ARCH)", "amd64"))
        return path

    return write


def ops(*words: str | Path, code: int = 0) -> str:
    program = "from ops.cli.mirror import app; from ops.errors import OpsError\nimport sys\n"
    program += "try: app()\nexcept OpsError as e: sys.exit(print(e) or e.exit_code)"
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def versions(manifest: Path) -> dict[str, str]:
    content = json.loads(manifest.read_text())
    return {p["name"]: p["version"] for each in content["repositories"] for p in each["packages"]}


def test_the_manifest_names_exact_versions_with_all_that_comes_along(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    said = ops("manifest", "-i", inventory(), "-o", tmp_path / "m.json")
    found = versions(tmp_path / "m.json")
    assert found["nvidia-headless-no-dkms-580-server-open"] == f"{EXACT}-0ubuntu0.24.04.1"
    assert found["libnvidia-compute-580-server"] == f"{EXACT}-0ubuntu0.24.04.1"
    assert found["linux-modules-nvidia-580-server-open-6.8.0-94-generic"] == "6.8.0-94.96+1"
    assert "linux-image-6.8.0-94-generic" in found
    assert found["libnvidia-container1"] == "1.19.0-1"
    assert not {"nvidia-dkms-580-server-open", "xserver-xorg-core", "kmod"} & set(found)
    assert "kmod" in said


def test_debian_gets_the_branch_that_was_asked_for_although_a_newer_one_is_there(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    wanted = inventory(nvidia_driver_version="", nvidia_driver_branch="580")
    words = ["--distribution", "debian12", "-o", tmp_path / "m.json"]
    ops("manifest", "-i", wanted, *words)
    found = versions(tmp_path / "m.json")
    drivers = {name: version for name, version in found.items() if "container" not in name}
    assert drivers["nvidia-kernel-open-dkms"] == f"{EXACT}-1"
    assert set(drivers.values()) == {f"{EXACT}-1"}


def test_a_copy_is_complete_goes_on_where_it_stopped_and_shows_every_change(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    manifest, folder = tmp_path / "m.json", tmp_path / "copy"
    ops("manifest", "-i", inventory(), "-o", manifest)
    ops("sync", manifest, folder)
    assert "complete and unchanged" in ops("verify", folder)
    assert "; 0 files were downloaded" in ops("sync", manifest, folder)
    smi = next(folder.rglob("nvidia-utils-580-server_*.deb"))
    part = smi.with_name(f".{smi.name}.part")
    part.write_bytes(smi.read_bytes()[:100])
    smi.write_bytes(b"x")
    assert smi.name in ops("verify", folder, code=1)
    Handler.continued.clear()
    assert "; 1 files were downloaded" in ops("sync", manifest, folder)
    assert [Path(path).name for path in Handler.continued] == [smi.name]
    assert "complete and unchanged" in ops("verify", folder)


def test_apt_itself_takes_packages_from_the_copy(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    ops("manifest", "-i", inventory(), "-o", tmp_path / "m.json")
    ops("sync", tmp_path / "m.json", folder)
    root = next(path.parent for path in folder.rglob("dists"))
    for name in ("etc", "state/lists/partial", "cache/archives/partial"):
        (tmp_path / "apt" / name).mkdir(parents=True)
    (tmp_path / "apt/status").touch()
    (tmp_path / "apt/etc/sources.list").write_text(
        f"deb [arch=amd64 signed-by={signing.keyring('ubuntu')}] copy:{root} noble-updates "
        "main restricted\n"
    )
    options = {
        "Dir::Etc": tmp_path / "apt/etc",
        "Dir::State": tmp_path / "apt/state",
        "Dir::State::status": tmp_path / "apt/status",
        "Dir::Cache": tmp_path / "apt/cache",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    done = subprocess.run([*apt, "update"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [*apt, "download", "nvidia-utils-580-server"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("nvidia-utils-580-server_*.deb"))


def test_a_wrong_key_or_fingerprint_or_a_changed_index_stops_the_manifest(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["-o", tmp_path / "m.json"]
    wrong = inventory(nvidia_driver_ubuntu_repo_key_file=str(signing.public_key("cuda")))
    assert "signature" in ops("manifest", "-i", wrong, *words, code=1)
    debian = ["--distribution", "debian12", *words]
    other = inventory(nvidia_cuda_repo_key_fingerprint=signing.fingerprint("ubuntu"))
    assert "is signed by" in ops("manifest", "-i", other, *debian, code=2)
    missing = inventory(nvidia_cuda_repo_key_file="/none")
    assert "not there" in ops("manifest", "-i", missing, *debian, code=2)
    assert not (tmp_path / "m.json").exists()


def test_an_unknown_version_lists_those_there_are(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    wanted = inventory(nvidia_driver_version="580.1.1")
    said = ops("manifest", "-i", wanted, "-o", tmp_path / "m.json", code=2)
    assert f"{EXACT}-0ubuntu0.24.04.1" in said


def test_a_mirror_in_mid_sync_is_noticed_by_the_copy(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    ops("manifest", "-i", inventory("mid-sync"), "-o", tmp_path / "m.json")
    said = ops("sync", tmp_path / "m.json", tmp_path / "copy", code=1)
    assert "libnvidia-compute-580-server" in said
    assert "mid-sync" in said
    assert not (tmp_path / "copy" / copy.NAME).exists()


def test_a_manifest_that_leads_out_of_the_copy_is_refused(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = tmp_path / "m.json"
    ops("manifest", "-i", inventory(), "-o", manifest)
    content = json.loads(manifest.read_text())
    content["repositories"][0]["packages"][0]["file"]["path"] = "../../etc/passwd"
    manifest.write_text(json.dumps(content))
    assert "out of the copy" in ops("sync", manifest, tmp_path / "copy", code=2)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0a"),
        ("1.9", "1.10"),
        ("580.95.05-0ubuntu1", "580.178.04-0ubuntu1"),
        ("6.8.0-90.91", "6.8.0-90.91+1"),
        ("9.9-1", "1:1.0-1"),
        ("1.0-1", "1.0-1.1"),
    ],
)
def test_versions_are_ordered_as_dpkg_orders_them(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)
    assert satisfies(newer, ">>", older)
    assert not satisfies(newer, "<=", older)
    if shutil.which("dpkg"):
        assert subprocess.run(["dpkg", "--compare-versions", older, "lt", newer]).returncode == 0


def test_a_bundle_has_the_repositories_of_hosts_with_gpus_and_their_keys(
    inventory: Callable[..., Path], tmp_path: Path
) -> None:
    model = {"name": "m", "source": "hf://o/m", "revision": "r", "gpus": [0]}
    fleet = load(inventory(models=[model]))
    found = needs.Needs(hosts={"h1": "ubuntu2404"})
    mirrors, keys = contents.gpu_mirrors(fleet, found, lambda _words: None)
    made = contents.Contents(found, [], [], mirrors, "", [], keys)
    names = {p.name for each in mirrors[0].repositories for p in each.packages}
    assert {"nvidia-headless-no-dkms-580-server-open", "libnvidia-container1"} <= names
    create.keep_keys(made, tmp_path)
    manifest = {"repositories": create.repositories(made)}
    used = site_of_bundle.drivers(tmp_path, manifest, "http://10.0.0.1:8480")
    assert used["nvidia_driver_ubuntu_repo_url"].startswith("http://10.0.0.1:8480/mirror/")
    owners = {"nvidia_driver_ubuntu": "ubuntu", "container_toolkit": "container"}
    for prefix, owner in owners.items():
        shown = run(["gpg", "--show-keys", "--with-colons", used[f"{prefix}_repo_key_file"]]).stdout
        assert signing.fingerprint(owner) in shown
    assert contents.gpu_mirrors(load(inventory(models=[])), found, lambda _words: None) == ([], {})
