from __future__ import annotations

import configparser
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import lookup_loader
from rendering import BOOKWORM, ROOT, Role

ETC = "host/etc"
UNIT = f"{ETC}/systemd/system/grafana-server.service.d/60-rackhand.conf.j2"


def role(**variables: Any) -> Role:
    return Role("grafana", BOOKWORM, grafana_admin_password="secret", **variables)


def ini(**variables: Any) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read_string(role(**variables).render(f"{ETC}/grafana/grafana.ini.j2"))
    return found


def drop_in(**variables: Any) -> dict[str, str]:
    lines = role(**variables).render(UNIT).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[:1] not in "#[")


def test_it_is_on_loopback_and_open_to_nobody_without_a_password() -> None:
    found = ini(grafana_port=3001)
    assert (found["server"]["http_addr"], found["server"]["http_port"]) == ("127.0.0.1", "3001")
    assert found["auth.anonymous"]["enabled"] == "false"
    assert found["users"]["allow_sign_up"] == "false"
    unit = drop_in()
    assert (unit["IPAddressDeny"], unit["IPAddressAllow"]) == ("any", "localhost")


def test_the_password_is_a_credential_and_in_no_file_of_grafanas() -> None:
    folder = role().folder / "templates"
    for path in folder.rglob("*.j2"):
        assert "secret" not in role().render(str(path.relative_to(folder))), path
    name = ini()["security"]["admin_password"]
    assert name == "$__file{/run/credentials/grafana-server.service/admin_password}"
    key, _, path = drop_in()["LoadCredential"].partition(":")
    assert name.endswith(f"/{key}}}")
    tasks = yaml.safe_load((role().folder / "tasks/main.yml").read_text())
    files = [file for task in tasks for file in task.get("rackhand.host.tree", {}).get("files", [])]
    (credential,) = [
        file for file in files if isinstance(file, dict) and file.get("sensitive") is True
    ]
    assert (credential["mode"], role().evaluate(credential["path"].strip("{} "))) == ("0600", path)


def test_what_is_provisioned_reads_prometheus_and_the_committed_dashboards() -> None:
    made = role(grafana_scrape_interval_s=30)
    provisioning = f"{ETC}/grafana/provisioning"
    (source,) = yaml.safe_load(made.render(f"{provisioning}/datasources/rackhand.yml.j2"))[
        "datasources"
    ]
    assert (source["uid"], source["url"]) == ("rackhand-prometheus", "http://127.0.0.1:9090")
    assert (source["jsonData"]["timeInterval"], source["editable"]) == ("30s", False)
    (provider,) = yaml.safe_load(made.render(f"{provisioning}/dashboards/rackhand.yml.j2"))[
        "providers"
    ]
    assert provider["options"]["path"] == made.value("__grafana_dashboards_folder")
    assert provider["allowUiUpdates"] is False


def test_every_committed_dashboard_is_laid_down() -> None:
    tasks = (ROOT / "roles/grafana/tasks/main.yml").read_text()
    for path in (ROOT / "roles/grafana/files/dashboards").iterdir():
        assert f"copy: dashboards/{path.name}" in tasks


# -- where it cannot be had ---------------------------------------------------------------------


def why(found: str, key: str = "KEY", monkeypatch: pytest.MonkeyPatch | None = None) -> str:
    made = role(__grafana_found={"stdout": found})
    made.variables["__grafana_key"] = key
    return str(made.value("__grafana_why"))


def test_the_reason_is_one_line_or_nothing() -> None:
    assert why("installed", key="") == ""
    assert why("reachable") == ""
    assert why("reachable", key="") == (
        "the key of https://apt.grafana.com cannot be had, or has another fingerprint"
    )
    assert why("unreachable: E: no route") == (
        "https://apt.grafana.com is out of reach, E: no route"
    )


def test_a_key_that_cannot_be_had_is_none_and_no_error(tmp_path: Path) -> None:
    assert lookup_loader.get("rackhand.host.nvidia_repository_key")
    made = role(grafana_repo_key_url=(tmp_path / "none").as_uri(), grafana_keys_dir=str(tmp_path))
    assert made.value("__grafana_key") == ""


def look(folder: Path, url: str, **programs: str) -> str:
    """Run the look as a host does, with programs of the test's in place of apt's."""
    folder.mkdir(exist_ok=True)
    script = str(role().value("__grafana_look"))
    for name, body in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    script = script.replace("/usr/lib/apt/apt-helper", "apt-helper")
    done = subprocess.run(
        ["env", f"PATH={folder}:/usr/bin:/bin", f"url={url}", "patience=2", "sh", "-c", script],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_look_tells_installed_reachable_and_why_not(tmp_path: Path) -> None:
    absent = "exit 1"
    assert look(tmp_path, "x", dpkg_query="echo installed", apt_helper="exit 9") == "installed"
    assert look(tmp_path, "x", dpkg_query="echo config-files", apt_helper="exit 0") == "reachable"
    fails = "echo Err:1 http://x; echo 'E: Failed to fetch http://x  Could not resolve'; exit 100"
    assert look(tmp_path, "x", dpkg_query=absent, apt_helper=fails) == (
        "unreachable: E: Failed to fetch http://x  Could not resolve"
    )
    slow = "sleep 30"
    assert look(tmp_path, "x", dpkg_query=absent, apt_helper=slow) == (
        "unreachable: no answer within 4 seconds"
    )
