"""What the engines of a GPU host promise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Host
from ops.fleet.model import LOOPBACK
from ops.verify.probes import ask, assert_access, assert_listens_only_at, assert_unit_runs

GROUPS = ("gpu",)

MANIFEST_PROBE = """
import hashlib, json, pathlib, sys
root = pathlib.Path(sys.argv[1])
files = json.loads((root / ".manifest.json").read_text())["files"]
found = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} - {".manifest.json"}
wrong = [f"{name}: not in the manifest" for name in sorted(found - files.keys())]
for name, wanted in files.items():
    path = root / name
    if not path.is_file():
        wrong.append(f"{name}: missing")
    elif path.stat().st_size != wanted["size"]:
        wrong.append(f"{name}: {path.stat().st_size} bytes, not {wanted['size']}")
    else:
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != wanted["sha256"]:
                wrong.append(f"{name}: its checksum differs")
print(json.dumps(wrong))
"""


@pytest.fixture(scope="module")
def active(host: Connection) -> dict[str, Any]:
    """What the host's fact file says of each model."""
    text = host.run("cat /etc/ansible/facts.d/engine.fact")
    assert text.rc == 0, "the fact file /etc/ansible/facts.d/engine.fact is missing"
    return dict(json.loads(text.stdout)["models"])


def test_the_fact_file_names_what_the_inventory_wants(target: Host, active: dict[str, Any]) -> None:
    found = {name: entry["revision"] for name, entry in active.items()}
    assert found == {model.name: model.revision for model in target.models}


def test_the_active_slots_run_and_come_back_after_a_reboot(
    host: Connection, target: Host, active: dict[str, Any]
) -> None:
    for model in target.models:
        assert_unit_runs(host, f"engine@{model.name}-{active[model.name]['active']}.service")


def test_slots_listen_on_loopback_only(
    host: Connection, target: Host, active: dict[str, Any]
) -> None:
    for model in target.models:
        port = model.slot_port(active[model.name]["active"])
        assert_listens_only_at(host, port, {LOOPBACK})


def test_settings_of_a_slot_are_for_root_and_the_engine(
    host: Connection, target: Host, active: dict[str, Any]
) -> None:
    for model in target.models:
        path = f"/etc/engine/{model.name}-{active[model.name]['active']}.env"
        assert_access(host, path, "root", "engine", 0o640)


def test_weights_are_what_their_manifest_says(host: Connection, target: Host) -> None:
    for model in target.models:
        result = host.run("python3 -c %s %s", MANIFEST_PROBE, str(model.weights))
        assert result.rc == 0, f"{model.weights}: {result.stderr.strip().splitlines()[-1]}"
        wrong = json.loads(result.stdout)
        assert not wrong, f"{model.weights}: {'; '.join(wrong)}"


def test_the_environment_is_complete(
    host: Connection, target: Host, active: dict[str, Any]
) -> None:
    for model in target.models:
        marker = f"/opt/vllm/{active[model.name]['environment']}/.complete"
        assert host.file(marker).exists, f"{marker} is missing: the environment is half-built"


def test_engines_do_not_run_as_root(host: Connection, target: Host, active: dict[str, Any]) -> None:
    for model in target.models:
        unit = f"engine@{model.name}-{active[model.name]['active']}.service"
        pid = ask(host, "systemctl show -p MainPID --value %s", unit)
        assert ask(host, "stat -c %%U /proc/%s", pid) == "engine"
