"""Repositories as files, and keys that are known by their fingerprints."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from ansible_collections.rackhand.host.plugins.filter.gpu_repository import gpu_repository_files
from ansible_collections.rackhand.host.plugins.lookup.nvidia_repository_key import armored
from ansible_collections.rackhand.host.plugins.module_utils.driver_repository import (
    fingerprint,
    sources_text,
    without_doubles,
)

BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, bytes]]:
    """Two keys as gpg makes them: their fingerprint, armored and binary form."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    found = {}
    for name, kind in {"a": "rsa2048", "b": "ed25519"}.items():
        subprocess.run([*gpg, "--quick-gen-key", f"{name}@test", kind, "sign", "never"], check=True)
        listed = subprocess.run(
            [*gpg, "--with-colons", "--fingerprint", f"{name}@test"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        print_ = next(line.split(":")[9] for line in listed.splitlines() if line[:3] == "fpr")
        text = subprocess.run([*gpg, "--armor", "--export", f"{name}@test"], check=True,
                              capture_output=True, text=True).stdout  # fmt: skip
        data = subprocess.run(
            [*gpg, "--export", f"{name}@test"], check=True, capture_output=True
        ).stdout
        found[name] = (print_, text, data)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    return found


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_fingerprint_is_the_one_that_gpg_tells(
    name: str, keys: dict[str, tuple[str, str, bytes]]
) -> None:
    print_, text, data = keys[name]
    assert fingerprint(text) == print_
    assert fingerprint(armored(data)) == print_


@pytest.mark.parametrize(
    "text", ["", "no key", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!\n-----END"]
)
def test_what_is_no_key_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="OpenPGP"):
        fingerprint(text)


def look(file: Path | str, **options: str) -> str:
    plugin = lookup_loader.get("rackhand.host.nvidia_repository_key")
    found: list[str] = plugin.run([str(file)], variables={}, **options)
    return found[0]


def test_a_key_of_the_wanted_fingerprint_is_taken(
    tmp_path: Path, keys: dict[str, tuple[str, str, bytes]]
) -> None:
    print_, text, _ = keys["a"]
    (tmp_path / "key.asc").write_text(text)
    assert look(tmp_path / "key.asc", fingerprint=print_) == text
    spaced = " ".join(print_[i : i + 4] for i in range(0, 40, 4)).lower()
    assert look(tmp_path / "key.asc", fingerprint=spaced) == text


def test_another_key_is_refused(tmp_path: Path, keys: dict[str, tuple[str, str, bytes]]) -> None:
    (tmp_path / "key.asc").write_text(keys["a"][1])
    with pytest.raises(AnsibleError, match=f"has fingerprint {keys['a'][0]}, wanted is"):
        look(tmp_path / "key.asc", fingerprint=keys["b"][0])


def test_a_key_is_fetched_once_and_kept_by_its_fingerprint(
    tmp_path: Path, keys: dict[str, tuple[str, str, bytes]]
) -> None:
    print_, _, data = keys["a"]
    (tmp_path / "served.pub").write_bytes(data)
    url = (tmp_path / "served.pub").as_uri()
    options = {"fingerprint": print_, "url": url, "cache": str(tmp_path / "keys")}
    first = look("", **options)
    (tmp_path / "served.pub").unlink()
    assert look("", **options) == first
    assert fingerprint(first) == print_


def test_a_fetched_key_of_another_fingerprint_is_not_kept(
    tmp_path: Path, keys: dict[str, tuple[str, str, bytes]]
) -> None:
    (tmp_path / "served.pub").write_bytes(keys["a"][2])
    url = (tmp_path / "served.pub").as_uri()
    with pytest.raises(AnsibleError, match="has not the fingerprint"):
        look("", fingerprint=keys["b"][0], url=url, cache=str(tmp_path / "keys"))
    assert not (tmp_path / "keys").exists()


def test_a_repository_without_a_way_to_its_key_says_what_to_write() -> None:
    with pytest.raises(AnsibleError, match="_key_file"):
        look("")


def test_a_flat_repository_has_no_components_and_its_own_key() -> None:
    text = sources_text({"name": "cuda", "url": "http://m/cuda/", "suites": "/"})
    assert "Suites: /\n" in text
    assert "Components" not in text
    assert "Signed-By: /etc/apt/keyrings/cuda.asc\n" in text


def test_keys_are_laid_down_before_the_sources_that_name_them() -> None:
    repository = {"name": "u", "url": "http://m/u", "suites": "n", "components": "main", "key": "K"}
    entries = gpu_repository_files([repository])
    assert [entry["path"] for entry in entries] == [
        "/etc/apt/keyrings",
        "/etc/apt/keyrings/u.asc",
        "/etc/apt/sources.list.d/u.sources",
    ]
    assert "Components: main\n" in entries[2]["content"]


FLAT = {"name": "ours", "url": "http://m/cuda", "suites": "/"}
POOLED = {"name": "ubuntu", "url": "http://m/u/", "suites": "noble noble-updates",
          "components": "main restricted"}  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] http://m/cuda/ /\n",
        "deb http://m/cuda ./\n",
        "deb [trusted=yes] http://m/u noble restricted\n",
    ],
)
def test_a_line_that_names_our_repository_is_switched_off(line: str) -> None:
    text = f"deb http://other/ /\n{line}"
    found = without_doubles(text, True, [FLAT, POOLED])
    assert found.startswith("deb http://other/ /\n# stands in /etc/apt/sources.list.d/")
    assert found.endswith(line)
    assert without_doubles(found, True, [FLAT, POOLED]) == found


@pytest.mark.parametrize(
    "line",
    [
        "deb http://m/cuda/debian12 /\n",
        "deb http://m/u noble universe\n",
        "deb http://m/u jammy main\n",
        "# deb http://m/cuda /\n",
    ],
)
def test_a_line_that_offers_something_else_stays(line: str) -> None:
    assert without_doubles(line, True, [FLAT, POOLED]) == line


def test_a_stanza_that_names_our_repository_is_switched_off_and_its_neighbours_stay() -> None:
    ours = "Types: deb\nURIs: http://m/cuda/\nSuites: /\nSigned-By: /other.gpg\n"
    other = "Types: deb\nURIs: http://m/u\nSuites: noble\nComponents: main universe\n"
    found = without_doubles(f"{other}\n{ours}", False, [FLAT, POOLED])
    assert found == f"{other}\nEnabled: no\n{ours}"
    assert without_doubles(found, False, [FLAT, POOLED]) == found
    switched_on = f"{ours}Enabled: yes\n"
    assert without_doubles(switched_on, False, [FLAT]) == f"Enabled: no\n{ours}"
