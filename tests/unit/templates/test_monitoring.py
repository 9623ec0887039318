"""The units and configurations of exporters, Prometheus, and what roles let them see."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import BOOKWORM, JAMMY, ROOT, Role

EVERYTHING: dict[str, Any] = {
    "exporters_postgres_enabled": True,
    "exporters_redis_urls": ["redis://127.0.0.1:6379", "redis://127.0.0.1:6380"],
    "exporters_redis_password": "secret",
    "exporters_nginx_status_port": 8500,
    "exporters_probed_name": "agent.example.com",
}
EXPORTERS = ("node", "postgres", "redis", "nginx", "blackbox")
UNITS = {
    "prometheus.service": (
        "prometheus",
        "host/etc/systemd/system/prometheus.service.d/60-rackhand.conf.j2",
    ),
    "prometheus-alertmanager.service": (
        "alertmanager",
        "host/etc/systemd/system/prometheus-alertmanager.service.d/60-rackhand.conf.j2",
    ),
    "rackhand-facts.service": (
        "exporters",
        "host/etc/systemd/system/rackhand-facts.service.j2",
    ),
}


def drop_ins(**variables: Any) -> dict[str, str]:
    role = Role("exporters", BOOKWORM, **variables)
    return {
        str(item["name"]): role.render("exporter.conf.j2", item=item)
        for item in role.value("__exporters_here")
    }


def command(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=/")]
    return line


def test_a_host_has_the_exporters_of_what_is_on_it() -> None:
    assert set(drop_ins()) == {"prometheus-node-exporter"}
    assert set(drop_ins(**EVERYTHING)) == {f"prometheus-{name}-exporter" for name in EXPORTERS}


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.11"])
def test_none_of_them_listens_to_the_world(address: str) -> None:
    for name, text in drop_ins(exporters_listen_address=address, **EVERYTHING).items():
        wanted = "127.0.0.1" if "blackbox" in name else address
        assert f"--web.listen-address={wanted}:91" in command(text)
        assert text.count("ExecStart=") == 2  # the package's own is taken back


def test_only_the_fleet_may_ask() -> None:
    texts = drop_ins(exporters_allowed_addresses=["10.0.0.14"], **EVERYTHING)
    for text in texts.values():
        assert "IPAddressDeny=any\nIPAddressAllow=localhost 10.0.0.14\n" in text


def test_no_password_stands_in_a_unit() -> None:
    assert "secret" not in "".join(drop_ins(**EVERYTHING).values())
    passwords = Role("exporters", BOOKWORM, **EVERYTHING).value("__exporters_redis_passwords")
    assert json.loads(json.dumps(passwords))["redis://monitor@127.0.0.1:6380"] == "secret"
    assert passwords["redis://127.0.0.1:6379"] == "secret"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    texts = {f"{name}.service": text for name, text in drop_ins(**EVERYTHING).items()}
    texts |= {unit: Role(role, BOOKWORM).render(path) for unit, (role, path) in UNITS.items()}
    for unit, text in texts.items():
        path = tmp_path / unit
        program = command(text).split()[0]
        path.write_text(text.replace(program, "ExecStart=/bin/true").replace("$$", ""))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True
        )
        assert unit not in done.stderr, done.stderr


@pytest.mark.skipif(
    not shutil.which("prometheus-blackbox-exporter"), reason="the lab proves it on a host"
)
def test_the_probe_is_one_that_its_exporter_takes(tmp_path: Path) -> None:
    text = Role("exporters", BOOKWORM, **EVERYTHING).render("host/etc/rackhand/blackbox.yml.j2")
    (tmp_path / "blackbox.yml").write_text(text)
    words = ["--config.check", f"--config.file={tmp_path / 'blackbox.yml'}"]
    done = subprocess.run(["prometheus-blackbox-exporter", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_probe_asks_by_the_edges_name() -> None:
    text = Role("exporters", BOOKWORM, **EVERYTHING).render("host/etc/rackhand/blackbox.yml.j2")
    http = yaml.safe_load(text)["modules"]["edge"]["http"]
    assert http["headers"] == {"Host": "agent.example.com"}
    assert http["tls_config"]["server_name"] == "agent.example.com"


def test_prometheus_cannot_be_stopped_over_http() -> None:
    text = Role("prometheus", BOOKWORM).render(UNITS["prometheus.service"][1])
    assert "--web.enable-lifecycle" not in command(text)
    assert "--web.listen-address=127.0.0.1:9090" in command(text)
    assert "--storage.tsdb.retention.size=10GB" in command(text)


# -- what other roles let them see --------------------------------------------------------------


def test_redis_has_a_user_that_sees_no_key_and_only_where_somebody_watches() -> None:
    def acl(facts: dict[str, str], **more: Any) -> str:
        return Role(
            "redis", facts, redis_agent_app_password="a", redis_reloader_password="r", **more
        ).render("users.acl.j2")

    assert "monitor" not in acl(BOOKWORM)
    line = acl(BOOKWORM, redis_monitor_password="secret").splitlines()[-1]
    assert line.startswith("user monitor on #")
    assert "secret" not in line
    assert "-@all +ping +info" in line
    assert "~" not in line
    # Redis 6.0 has no rules for channels.
    assert "resetchannels" not in acl(JAMMY, redis_monitor_password="secret")


def test_postgres_lets_the_exporters_account_in_without_a_password_and_nobody_else() -> None:
    passwords = {"postgres_owner_password": "a", "postgres_agent_app_password": "b"}
    watched = Role("postgres", BOOKWORM, postgres_monitor_enabled=True, **passwords)
    assert "local   postgres  monitor" in watched.render("pg_hba.conf.j2")
    assert "monitor  prometheus  monitor" in watched.render("pg_ident.conf.j2")
    assert "GRANT pg_monitor TO monitor" in watched.render("state.sql.j2")
    alone = Role("postgres", BOOKWORM, **passwords)
    for template in ("pg_hba.conf.j2", "pg_ident.conf.j2", "state.sql.j2"):
        assert "monitor" not in alone.render(template)


def test_nginx_tells_its_figures_on_loopback_only_and_by_choice() -> None:
    path = "host/etc/nginx/nginx.conf.j2"
    assert "stub_status" not in Role("nginx", BOOKWORM).render(path)
    assert "listen 127.0.0.1:8500;" in Role("nginx", BOOKWORM, nginx_status_port=8500).render(path)


def test_the_engine_proxy_shows_both_slots_metrics_to_the_fleet_alone() -> None:
    text = Role(
        "engine_proxy",
        BOOKWORM,
        engine_proxy_metrics_port=8501,
        engine_proxy_listen_address="10.0.0.11",
        engine_proxy_tls_enabled=True,
        engine_proxy_models=[{"name": "chat"}, {"name": "embed"}],
        engine_proxy_allowed_addresses=["10.0.0.14"],
    ).render("host/etc/nginx/engine_proxy.d/metrics.conf.j2")
    assert "listen 10.0.0.11:8501 ssl;" in text
    assert "allow 10.0.0.14;\n    deny all;" in text
    for path, port in (("chat/blue", 8100), ("chat/green", 8101), ("embed/green", 8103)):
        at = text.index(f"location = /{path}/metrics")
        assert f"proxy_pass http://127.0.0.1:{port}/metrics;" in text[at : at + 120]
    assert "drained" not in text


def test_packages_of_the_watch_are_in_the_labs_image() -> None:
    downloaded = yaml.safe_load((ROOT / "ops/lab/packages.yml").read_text())["downloaded"]["all"]
    wanted = {f"prometheus-{name}-exporter" for name in EXPORTERS}
    assert wanted | {"prometheus", "prometheus-alertmanager"} <= set(downloaded)
