"""Nothing reaches a host unsigned, unhashed or under a licence that nobody allowed."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from ops.bundle import locks
from ops.places import ROOT

FORBIDDEN = re.compile(
    r"trusted\s*[=:]\s*(yes|true)|apt-key|apt_key|allow[-_]unauthenticated|AllowInsecureRepositories"
    r"|allow-insecure|--force-yes|validate_certs:\s*(no|false)|disable_gpg_check",
    re.IGNORECASE,
)
FOLDERS = ("roles", "playbooks", "collections", "templates", "inventories", "ops", "scripts")
#: Names settings that this machine's administrator made, to carry them to lab hosts.
CARRIES = {"ops/lab/control_machine.py"}


def texts() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", *FOLDERS], capture_output=True, text=True, check=True
    ).stdout.split()
    found = {}
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".yml", ".j2", ".sh", ".md", ""}:
            found[name] = path.read_text(errors="replace")
    return found


def test_no_repository_is_trusted_without_a_signature() -> None:
    for name, text in texts().items():
        found = FORBIDDEN.search(text)
        assert not found or name in CARRIES, f"{name}: {found and found[0]}"


def test_every_apt_source_names_its_key() -> None:
    for name, text in texts().items():
        for line in text.splitlines():
            if re.match(r"\s*deb (\[|http|file:|copy:)", line):
                assert "signed-by=" in line.lower(), f"{name}: {line}"
        if re.search(r"^\s*Types: deb", text, re.MULTILINE):
            assert re.search(r"^\s*Signed-By:", text, re.MULTILINE), name


def test_every_repository_of_a_role_is_known_by_the_fingerprint_of_its_key() -> None:
    """Ubuntu's own archive alone is known by the keyring that the host was installed with."""
    own = {"nvidia_driver_ubuntu_repo_url"}
    asked = 0
    for path in sorted((ROOT / "roles").glob("*/defaults/main.yml")):
        names = yaml.safe_load(path.read_text()) or {}
        for name in names:
            if name.endswith("_repo_url") and name not in own:
                asked += 1
                assert f"{name.removesuffix('_url')}_key_fingerprint" in names, f"{path}: {name}"
    assert asked >= 4


@pytest.mark.parametrize("lock", locks.all_locks(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_line_of_a_lock_is_hashed(lock: Path) -> None:
    pins = locks.read(lock)
    assert pins
    assert all(pin.hashes for pin in pins)


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences_script", ROOT / "scripts/licences.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["licences_script"] = module
    spec.loader.exec_module(module)
    return module


def test_licences_are_recorded_allowed_and_listed(licences: ModuleType) -> None:
    rules = yaml.safe_load(licences.RULES.read_text())
    recorded = json.loads(licences.RECORD.read_text())
    assert list(licences.check(licences.pinned(), recorded, rules)) == []
    assert licences.PAGE.read_text() == licences.page(licences.pinned(), recorded, rules)


def test_a_licence_that_nobody_allowed_is_named(licences: ModuleType) -> None:
    rules = yaml.safe_load(licences.RULES.read_text())
    recorded = json.loads(licences.RECORD.read_text())
    each = next(name for name in recorded if name.startswith("torch=="))
    wrong = recorded | {each: "SSPL-1.0"}
    said = "\n".join(licences.check(licences.pinned(), wrong, rules))
    assert f"{each} (roles/engine/files/cuda.lock): 'SSPL-1.0' is not on the allow-list" in said
    del wrong[each]
    assert f"{each} (" in "\n".join(licences.check(licences.pinned(), wrong, rules))
