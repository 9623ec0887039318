"""Package sources of the control machine, as hosts and chambers are told them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ops.lab import control_machine, image, package_index, wheelhouse
from ops.lab.image import IMAGES


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A site with a proxy, an index of its own, and folders of this machine."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "pypi/simple").mkdir(parents=True)
    found = {
        "index-url": ["https://pypi.site.test/simple"],
        "extra-index-url": [f"file://{tmp_path}/pypi/simple"],
        "find-links": [f"{tmp_path}/wheels", "/no/such/folder"],
        "proxy": ["http://proxy.site.test:3128"],
    }
    monkeypatch.setattr(control_machine, "pip_settings", lambda: found)
    return tmp_path


def test_hosts_get_only_the_sources_that_they_can_reach(settings: Path) -> None:
    assert control_machine.remote_pip_settings() == {
        "index-url": ["https://pypi.site.test/simple"],
        "proxy": ["http://proxy.site.test:3128"],
    }


def test_a_chamber_sees_the_folders_and_uv_is_told_of_them(settings: Path) -> None:
    assert set(package_index.folders()) == {f"{settings}/wheels", f"{settings}/pypi"}
    uv = package_index.uv_environment()
    assert uv["UV_DEFAULT_INDEX"] == "https://pypi.site.test/simple"
    assert uv["UV_FIND_LINKS"] == f"{settings}/wheels"
    assert uv["UV_INDEX"] == f"file://{settings}/pypi/simple"
    assert uv["https_proxy"] == "http://proxy.site.test:3128"


def test_pytorchs_own_index_serves_where_there_is_no_wheel_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_machine, "pip_settings", dict)
    assert package_index.uv_environment()["UV_INDEX"] == package_index.TORCH_CPU_INDEX


def test_a_mirror_may_be_chosen_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKHAND_DEBIAN_MIRROR", "http://mirror.site.test/debian/")
    control_machine.debian_mirror.cache_clear()
    try:
        sources = control_machine.apt_sources_deb822("trixie")
    finally:
        control_machine.debian_mirror.cache_clear()
    assert "URIs: http://mirror.site.test/debian\nSuites: trixie-updates\n" in sources
    assert "URIs: http://mirror.site.test/debian-security\nSuites: trixie-security\n" in sources


def test_an_image_is_keyed_by_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = IMAGES["trixie"].folder
    content = yaml.safe_load(image.PACKAGES.read_text())
    content["installed"].append("hello")
    changed = tmp_path / "packages.yml"
    changed.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(image, "PACKAGES", changed)
    assert IMAGES["trixie"].folder != before
    assert IMAGES["trixie"].folder == IMAGES["ubuntu-24.04-facade"].folder


def test_the_wheelhouse_pins_uv_by_hash() -> None:
    pinned = wheelhouse._uv_requirement()
    assert pinned.startswith("uv==")
    assert pinned.count("--hash=sha256:") > 5
    assert "# via" not in pinned
