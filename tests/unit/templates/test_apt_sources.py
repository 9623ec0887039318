"""A closed site's apt repositories: role base hands them over, and they are the only ones."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from rendering import BOOKWORM, Role

from ops.bundle.signing import signer

MODULE = "ansible_collections.rackhand.host.plugins.modules.apt_sources"
DEB822 = """\
# Debian's own
Types: deb
URIs: http://archive.example/debian
Suites: bookworm

Types: deb
Enabled: yes
URIs: http://archive.example/debian-security
Suites: bookworm-security
"""


@pytest.fixture
def apt_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = importlib.import_module(MODULE)
    monkeypatch.setattr(module, "SOURCES_FOLDER", str(tmp_path))
    return module


def test_other_entries_are_switched_off_and_not_removed(apt_sources: Any) -> None:
    off = apt_sources.stanzas_off(DEB822)
    assert off.count("Enabled: no\nTypes: deb") == 2
    assert "Enabled: yes" not in off
    assert "URIs: http://archive.example/debian-security" in off
    assert apt_sources.stanzas_off(off) == off
    lines = "# mine\ndeb http://a.example stable main\n deb-src http://a.example stable main\n"
    once = apt_sources.one_lines_off(lines)
    assert [line for line in once.splitlines() if not line.startswith("#")] == []
    assert "deb http://a.example stable main" in once
    assert apt_sources.one_lines_off(once) == once


def test_files_of_other_roles_and_foreign_keys_stay(apt_sources: Any, tmp_path: Path) -> None:
    for name in ("debian.sources", "rackhand-nvidia-cuda.sources"):
        (tmp_path / name).write_text(DEB822)
    repository = {"name": "rackhand-bundle", "url": "http://c.example", "suites": "/", "key": "KEY"}
    files = apt_sources.wanted_files([repository], True)
    assert "Enabled: no" in files[str(tmp_path / "debian.sources")]
    assert str(tmp_path / "rackhand-nvidia-cuda.sources") not in files
    assert str(tmp_path / "debian.sources") not in apt_sources.wanted_files([repository], False)
    keys = [path for path in files if path.endswith(".asc")]
    assert list(files).index(keys[0]) == 0


def test_role_base_hands_over_the_key_only_of_the_wanted_fingerprint(tmp_path: Path) -> None:
    with signer(tmp_path) as key:
        (tmp_path / "key.asc").write_text(key.public())
        found = key.fingerprint
    entry = {"name": "b", "url": "http://c.example", "suites": "/", "version": "1"}
    entry |= {"key_file": str(tmp_path / "key.asc"), "fingerprint": found}
    given = Role("base", BOOKWORM, base_apt_repositories=[entry]).value("__base_apt_repositories")
    assert given[0]["key"].startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    wrong = Role("base", BOOKWORM, base_apt_repositories=[entry | {"fingerprint": "0" * 40}])
    with pytest.raises(Exception, match="has fingerprint"):
        wrong.value("__base_apt_repositories")
