from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rendering import BOOKWORM, ROOT, Role

from ops.gpu_exporter.main import PORT
from ops.gpu_exporter.owners import KNOWN_UNITS

UNIT = "host/etc/systemd/system/gpu_exporter.service.j2"


def unit(**variables: Any) -> dict[str, list[str]]:
    text = Role("gpu_exporter", BOOKWORM, playbook_dir=str(ROOT / "playbooks"), **variables)
    found: dict[str, list[str]] = {}
    for line in text.render(UNIT).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def arguments(**variables: Any) -> list[str]:
    (line,) = unit(**variables)["ExecStart"]
    return shlex.split(line)[1:]


def test_the_command_says_what_the_variables_say() -> None:
    words = arguments(gpu_exporter_expected=8, gpu_exporter_listen_address="10.0.0.11")
    assert words[:4] == ["--address", "10.0.0.11", "--port", "9835"]
    assert words[words.index("--expected") + 1] == "8"
    assert "--dcgm" not in words
    assert "--dcgm" in arguments(gpu_exporter_dcgm_names=True)


def test_the_roles_defaults_are_the_programs_own() -> None:
    role = Role("gpu_exporter", BOOKWORM)
    assert tuple(role.value("gpu_exporter_known_units")) == KNOWN_UNITS
    assert role.value("gpu_exporter_port") == PORT


def test_only_the_fleet_may_ask() -> None:
    assert unit()["IPAddressAllow"] == ["localhost"]
    found = unit(gpu_exporter_allowed_addresses=["10.0.0.14", "10.0.0.11"])
    assert found["IPAddressAllow"] == ["localhost 10.0.0.14 10.0.0.11"]
    assert found["IPAddressDeny"] == ["any"]


def test_it_may_open_nvidias_devices_and_see_all_processes() -> None:
    found = unit()
    assert (found["DevicePolicy"], found["DeviceAllow"]) == (["closed"], ["char-nvidia* rw"])
    # The last setting of a key holds.
    assert [found[key][-1] for key in ("PrivateDevices", "ProtectProc", "ProcSubset")] == [
        "false",
        "default",
        "all",
    ]
    assert found["DynamicUser"] == ["true"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = Role("gpu_exporter", BOOKWORM, playbook_dir=str(ROOT / "playbooks")).render(UNIT)
    file = tmp_path / "gpu_exporter.service"
    file.write_text(text.replace("/opt/gpu_exporter/current/bin/gpu-exporter", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True
    )
    assert "gpu_exporter.service" not in done.stderr, done.stderr
