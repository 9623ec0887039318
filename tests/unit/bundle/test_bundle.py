"""A bundle's signature, its repository and its use, without network."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ops.bundle import create, locks, repository, serve, site, wheels
from ops.bundle.apt import Deb
from ops.bundle.distributions import find
from ops.bundle.signing import Signer, signer
from ops.bundle.verification import KEY, MANIFEST, SIGNATURE, verify
from ops.errors import InputError, OpsError
from ops.fleet import load

MOMENT = 1_790_000_000


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    with signer(tmp_path_factory.mktemp("s")) as made:
        yield made.at(max(made.moment, MOMENT))


@dataclass
class Fake:
    """An archive whose packages came."""

    packages: Path
    distribution = find("debian12")

    def moment(self) -> int:
        return MOMENT


def build(folder: Path, name: str) -> Deb:
    root = folder / f"root-{name}"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: T <t@example.com>\n"
    (root / "DEBIAN/control").write_text(f"{control}Description: {name}\n")
    file = folder / f"{name}_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", root, file], check=True, capture_output=True)
    shutil.rmtree(root)
    return Deb(
        name, "1.0", file.name, f"http://archive.example/{file.name}", file.stat().st_size, ""
    )


@pytest.fixture
def bundle(tmp_path: Path, key: Signer) -> Path:
    """A bundle of one package, one model and one wheel."""
    folder = tmp_path / "bundle"
    archive = Fake(tmp_path / "archives")
    archive.packages.mkdir()
    deb = build(archive.packages, "rackhand-test")
    repository.lay_out(archive, [deb], folder / "apt/debian12", key)  # type: ignore[arg-type]
    (folder / "models/m/r1").mkdir(parents=True)
    (folder / "models/m/r1/config.json").write_text("{}")
    (folder / "wheels").mkdir()
    (folder / "wheels/index.html").write_text("<a href='x'>x</a>")
    (folder / KEY).write_text(key.public())
    sign(folder, key, deb)
    return folder


def sign(folder: Path, key: Signer, *debs: Deb) -> None:
    contents = SimpleNamespace(
        items=[],
        sites=[SimpleNamespace(folder="apt/debian12", debs=debs)],
        mirrors=[],
        left_out=[],
        needs=SimpleNamespace(
            hosts={"h1": "debian12"},
            weights=[SimpleNamespace(name="m", revision="r1", source="hf://o/m")],
            untold=set(),
        ),
    )
    made = create.describe(contents, folder)  # type: ignore[arg-type]
    (folder / MANIFEST).write_text(json.dumps(made))
    key.apart(folder / MANIFEST, folder / SIGNATURE)


def test_a_whole_bundle_is_proved_by_its_keys_fingerprint(bundle: Path, key: Signer) -> None:
    proved = verify(bundle, key.fingerprint)
    assert (proved.fingerprint, proved.known, proved.faults) == (key.fingerprint, True, ())
    assert not verify(bundle).known


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
def test_every_change_is_named(bundle: Path, packed: bool, tmp_path: Path) -> None:
    victim = next(bundle.glob("apt/debian12/*.deb"))
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(bytes(content))
    (bundle / "models/m/r1/config.json").unlink()
    (bundle / "wheels/extra.whl").write_text("x")
    (bundle / "wheels/index.html").write_text("longer than it was, and another")
    place = bundle
    if packed:
        place = tmp_path / "bundle.tar"
        create.pack(bundle, place)
    faults = "\n".join(verify(place).faults)
    assert f"apt/debian12/{victim.name}: another content" in faults
    assert "models/m/r1/config.json: missing" in faults
    assert "wheels/extra.whl: not in the manifest" in faults
    assert "wheels/index.html: 31 bytes instead of" in faults


def test_a_link_is_no_file_of_a_bundle(bundle: Path) -> None:
    target = bundle / "models/m/r1/config.json"
    target.unlink()
    target.symlink_to("/etc/hostname")
    assert any("config.json" in fault for fault in verify(bundle).faults)


def test_a_manifest_of_another_key_or_without_signature_is_refused(
    bundle: Path, tmp_path: Path, key: Signer
) -> None:
    with signer(tmp_path / "other") as other:
        with pytest.raises(OpsError, match="is signed by"):
            verify(bundle, other.fingerprint)
        (tmp_path / "key").write_text(other.public())
        with pytest.raises(OpsError, match="signature does not hold"):
            verify(bundle, str(tmp_path / "key"))
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace("debian12", "debian13"))
    with pytest.raises(OpsError, match="signature does not hold"):
        verify(bundle, key.fingerprint)
    (bundle / SIGNATURE).unlink()
    with pytest.raises(InputError, match="no complete bundle"):
        verify(bundle)


def test_the_same_inputs_give_the_same_bytes(bundle: Path, key: Signer, tmp_path: Path) -> None:
    parts = ["apt/debian12/InRelease", "apt/debian12/Packages.gz"]
    before = [(bundle / part).read_bytes() for part in parts]
    archive = Fake(tmp_path / "archives")
    deb = Deb("rackhand-test", "1.0", "rackhand-test_1.0_all.deb", "", 0, "")
    repository.lay_out(archive, [deb], bundle / "apt/debian12", key)  # type: ignore[arg-type]
    assert [(bundle / part).read_bytes() for part in parts] == before
    assert create.tree() == create.tree()


def test_apt_itself_takes_the_repository_by_its_key_and_no_other(
    bundle: Path, tmp_path: Path, key: Signer
) -> None:
    assert "rackhand-test" in apt_policy(bundle, bundle / KEY, tmp_path / "good")
    with signer(tmp_path / "other") as other:
        (tmp_path / "other.asc").write_text(other.public())
    assert "rackhand-test" not in apt_policy(bundle, tmp_path / "other.asc", tmp_path / "bad")


def apt_policy(bundle: Path, key: Path, root: Path) -> str:
    for name in ("lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True)
    (root / "status").touch()
    (root / "sources.list").write_text(f"deb [signed-by={key}] file:{bundle}/apt/debian12 /\n")
    values = {
        "Dir::Etc::sourcelist": root / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": root,
        "Dir::State::status": root / "status",
        "Dir::State::lists": root / "lists",
        "Dir::Cache": root / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [f"-o{name}={value}" for name, value in values.items()]
    subprocess.run(["apt-get", *options, "-qq", "update"], capture_output=True, check=False)
    command = ["apt-cache", *options, "pkgnames"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    folder = tmp_path / "inventory"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "hosts.yml").write_text(
        "all: {hosts: {h1: {}}, children: {gpu: {hosts: {h1: {}}}}}\n"
    )
    (folder / "group_vars/all.yml").write_text(
        "---\ndomain: a.example\nagent_app_find_links: [/mine]\nmodels:\n"
        "  - name: m  # ours\n    source: hf://o/m\n    revision: r1\n"
    )
    return folder


def test_an_inventory_uses_the_bundle_for_packages_wheels_and_weights(
    bundle: Path, inventory: Path, key: Signer
) -> None:
    fleet = load(inventory)
    site.install(bundle, key.fingerprint, fleet, "http://10.0.0.1:8480")
    host = load(inventory).host("h1").variables
    assert host["agent_app_find_links"] == ["http://10.0.0.1:8480/wheels/index.html"]
    assert all(host[f"{role}_offline"] for role in ("agent_app", "engine", "gpu_exporter"))
    source = host["base_apt_repositories"][0]
    assert source["url"] == "http://10.0.0.1:8480/apt/debian12"
    assert source["fingerprint"] == key.fingerprint
    assert host["models"][0]["source"] == f"file://{bundle}/models/m/r1"
    assert "# ours" in (inventory / "group_vars/all.yml").read_text()
    assert site.install(bundle, key.fingerprint, load(inventory), "http://10.0.0.1:8480") == []


def test_a_damaged_bundle_leaves_the_inventory_alone(bundle: Path, inventory: Path) -> None:
    (bundle / "models/m/r1/config.json").write_text("[]")
    with pytest.raises(OpsError, match=r"models/m/r1/config\.json: another content"):
        site.install(bundle, "", load(inventory), "http://10.0.0.1:8480")
    assert not (inventory / site.FILE).exists()
    assert yaml.safe_load((inventory / "group_vars/all.yml").read_text())["models"][0][
        "source"
    ] == ("hf://o/m")


def test_only_what_hosts_need_is_served(bundle: Path) -> None:
    with serve.server(bundle, "127.0.0.1", 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{running.server_address[1]}"
        assert urllib.request.urlopen(f"{base}/apt/debian12/InRelease").status == 200
        for path in ("/models/m/r1/config.json", "/apt/", "/manifest.json", "/apt/../key.asc", "/"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{base}{path}")
        running.shutdown()


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="something else"):
        create.require_place(tmp_path)


def test_markers_and_tags_are_those_of_the_hosts_python_not_of_this_one() -> None:
    text = (
        "old==1 ; python_full_version < '3.12' \\\n    --hash=sha256:" + "a" * 64 + "\n"
        "new==2 ; python_full_version >= '3.12' \\\n    --hash=sha256:" + "b" * 64 + "\n"
        "win==3 ; sys_platform == 'win32' \\\n    --hash=sha256:" + "c" * 64 + "\n    # via new\n"
    )
    pins = locks.parse(text, "test")
    assert [pin.name for pin in locks.needed(pins, find("debian12"))] == ["old"]
    assert [pin.name for pin in locks.needed(pins, find("debian13"))] == ["new"]
    assert {pin.name for pin in locks.closure(pins, {"new"})} == {"new", "win"}
    ranks = wheels.tags(find("debian12"))
    assert "cp311-cp311-manylinux_2_28_x86_64" in ranks
    assert "cp39-abi3-manylinux2014_x86_64" in ranks
    assert ranks["cp311-cp311-manylinux_2_28_x86_64"] < ranks["py3-none-any"]
    assert not {"cp311-cp311-manylinux_2_39_x86_64", "cp312-cp312-manylinux_2_17_x86_64"} & set(
        ranks
    )


def test_a_pin_without_a_hash_is_no_lock() -> None:
    with pytest.raises(InputError, match="without a hash"):
        locks.parse("left-pad==1.0\n", "test")
    with pytest.raises(InputError, match="no hashed pin"):
        locks.parse("left-pad>=1.0\n", "test")
