"""A small mirror, built for real: signatures, hashes, damaged states, equal files shared."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.lab.mirror import build, catalogue, package, signing
from ops.lab.mirror.package import Package

KEPT = {
    *("nvidia-utils-580-server", "libnvidia-compute-580-server", "cuda-keyring"),
    *("linux-modules-nvidia-580-server-open-6.8.0-90-generic", "nvidia-container-toolkit-base"),
    *("datacenter-gpu-manager-4-core", "dkms", "libnvidia-ml1"),
}


@pytest.fixture(scope="module")
def mirror(build_mirror: Callable[[Callable[[Package], bool]], Path]) -> Path:
    """The catalogue's repositories with a few of their packages."""
    return build_mirror(lambda each: each.name in KEPT)


def releases(mirror: Path) -> list[tuple[Path, str]]:
    everything = catalogue.load()
    found = []
    for state in everything.state_names:
        for path, repository in everything.repositories.items():
            folders = [f"dists/{suite}" for suite in repository.suites] or ["."]
            found += [(mirror / state / path / folder, repository.key) for folder in folders]
    return found


def test_each_release_is_signed_by_its_owner_both_ways(mirror: Path) -> None:
    found = releases(mirror)
    assert len(found) == len(catalogue.load().state_names) * (3 + 2 + 4)
    for folder, owner in found:
        gpgv = ["gpgv", "--quiet", "--keyring", str(signing.keyring(owner))]
        for words in ([folder / "InRelease"], [folder / "Release.gpg", folder / "Release"]):
            done = subprocess.run([*gpgv, *words], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        other = signing.keyring("container" if owner != "container" else "cuda")
        refused = ["gpgv", "--quiet", "--keyring", other, folder / "InRelease"]
        assert subprocess.run(refused, capture_output=True).returncode != 0


def test_each_index_is_the_one_its_release_names(mirror: Path) -> None:
    for folder, _ in releases(mirror):
        section = (folder / "Release").read_text().partition("\nSHA256:\n")[2]
        named = re.findall(
            r"^ ([0-9a-f]{64}) +(\d+) (\S+)$", section.partition("\nSHA512")[0], re.M
        )
        assert any(path.endswith("Packages") for *_, path in named)
        for digest, size, path in named:
            data = (folder / path).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), str(len(data))) == (digest, size), path


def entries(root: Path) -> Iterator[tuple[str, int, str]]:
    for index in root.rglob("Packages"):
        for stanza in filter(None, index.read_text().split("\n\n")):
            fields = dict(re.findall(r"^(Filename|Size|SHA256): (.*)$", stanza, re.M))
            yield fields["Filename"], int(fields["Size"]), fields["SHA256"]


@pytest.mark.parametrize("state", list(catalogue.load().states))
def test_each_listed_file_is_there_and_is_what_the_index_says(mirror: Path, state: str) -> None:
    for path in catalogue.load().repositories:
        root = mirror / state / path
        for name, size, digest in entries(root):
            assert (root / name).stat().st_size == size
            assert package.sha256(root / name) == digest


def test_a_mirror_in_mid_sync_has_a_file_of_another_size_under_a_valid_index(mirror: Path) -> None:
    found = {
        name: (mirror / "mid-sync/ubuntu" / name).stat().st_size != size
        for name, size, _ in entries(mirror / "mid-sync/ubuntu")
    }
    assert [Path(name).name.split("_")[0] for name, differs in found.items() if differs] == [
        "libnvidia-compute-580-server"
    ]
    release = "ubuntu/dists/noble-updates/InRelease"
    today = (mirror / "2026-11" / release).read_bytes()
    assert (mirror / "mid-sync" / release).read_bytes() == today


def test_a_version_that_is_gone_is_listed_and_missing(mirror: Path) -> None:
    root = mirror / "gone/ubuntu"
    missing = {Path(name).name for name, *_ in entries(root) if not (root / name).exists()}
    assert "nvidia-utils-580-server_580.126.09-0ubuntu0.24.04.1_amd64.deb" in missing
    assert "linux-modules-nvidia-580-server-open-6.8.0-90-generic_6.8.0-90.91_amd64.deb" in missing
    assert len(missing) == 3


def test_states_share_the_files_that_are_equal(mirror: Path) -> None:
    name = "datacenter-gpu-manager-4-core_4.5.2-1_amd64.deb"
    copies = [mirror / state / "cuda/debian12/x86_64" / name for state in ("2026-06", "2026-11")]
    assert copies[0].stat().st_ino == copies[1].stat().st_ino


def test_the_same_package_is_built_bit_for_bit_again(mirror: Path, tmp_path: Path) -> None:
    everything = catalogue.load()
    one = next(p for p in everything.packages if p.name.startswith("linux-modules-nvidia"))
    package.build(one, everything.contents, tmp_path / "scratch", tmp_path / "again.deb")
    built = mirror / "pool/ubuntu" / one.path
    assert package.sha256(tmp_path / "again.deb") == package.sha256(built)


def test_a_second_build_finds_the_first_one(mirror: Path) -> None:
    before = mirror.stat().st_ctime_ns
    assert build.ensure(pytest.fail) == mirror
    assert mirror.stat().st_ctime_ns == before
