from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from ansible.errors import AnsibleError
from rendering import BOOKWORM, JAMMY, TRIXIE, Role

PASSWORDS = {"postgres_owner_password": "owner-secret", "postgres_agent_app_password": "app-secret"}


def postgres(facts: dict[str, str] = BOOKWORM, **variables: Any) -> Role:
    return Role("postgres", facts, **PASSWORDS, **variables)


def scram_verifier(password: str, role: str) -> str:
    return str(
        postgres().evaluate(
            "password | rackhand.host.scram_verifier(role)", password=password, role=role
        )
    )


def test_the_version_is_the_one_that_the_distribution_packages() -> None:
    assert [postgres(facts).value("postgres_version") for facts in (BOOKWORM, TRIXIE, JAMMY)] == [
        15, 17, 14,
    ]  # fmt: skip


def test_an_unknown_distribution_names_the_variable_to_set() -> None:
    facts = {"distribution": "Debian", "distribution_major_version": "99"}
    with pytest.raises(AnsibleError, match="set postgres_version"):
        postgres(facts).value("postgres_version")


def test_hosts_of_the_fleet_enter_over_tls_only() -> None:
    rules = postgres(postgres_client_addresses=["10.0.0.1", "10.1.0.0/16", "fd00::1"]).render(
        "pg_hba.conf.j2"
    )
    lines = [line.split() for line in rules.splitlines() if not line.startswith("#")]
    remote = [line for line in lines if "127.0.0.1/32" not in line and "::1/128" not in line][1:]
    assert [line[3] for line in remote] == ["10.0.0.1/32", "10.1.0.0/16", "fd00::1/128"]
    assert {line[0] for line in remote} == {"hostssl"}
    assert lines[0] == ["local", "all", "postgres", "peer"]
    assert {line[-1] for line in lines[1:]} == {"scram-sha-256"}


def test_a_new_certificate_changes_the_configuration() -> None:
    one, two = (
        postgres(postgres_tls_enabled=True, postgres_tls_certificate=text).render("tls.conf.j2")
        for text in ("one", "two")
    )
    assert one != two


def test_no_clear_password_reaches_the_host() -> None:
    state = postgres().render("state.sql.j2")
    assert "secret" not in state
    assert state.count("SCRAM-SHA-256$4096:") == 4


def test_the_app_can_only_add_to_and_read_the_audit() -> None:
    state = postgres().render("state.sql.j2")
    grants = [line for line in state.splitlines() if "SCHEMA audit GRANT" in line]
    assert any("GRANT INSERT, SELECT ON TABLES" in line for line in grants)
    assert not any("UPDATE" in line or "DELETE" in line for line in grants)


def test_pgvector_is_wanted_where_it_is_packaged_unless_told_otherwise() -> None:
    assert "EXTENSION vector" not in postgres(BOOKWORM).render("state.sql.j2")
    assert "EXTENSION vector" in postgres(TRIXIE).render("state.sql.j2")
    assert "EXTENSION vector" in postgres(BOOKWORM, postgres_pgvector="true").render("state.sql.j2")
    assert "EXTENSION vector" not in postgres(TRIXIE, postgres_pgvector="false").render(
        "state.sql.j2"
    )


def test_pgvector_comes_from_an_own_repository_where_the_distribution_has_none() -> None:
    forced = postgres(BOOKWORM, postgres_pgvector="true")
    assert forced.value("__postgres_pgvector_package") == "postgresql-15-pgvector"
    assert not forced.value("__postgres_packages_pgvector")
    assert postgres(TRIXIE).value("__postgres_packages_pgvector")


def test_settings_are_quoted() -> None:
    text = postgres(postgres_settings={"cluster_name": "it's"}).render("settings.conf.j2")
    assert "cluster_name = 'it''s'" in text


def test_a_verifier_proves_its_password_and_stays_the_same() -> None:
    verifier = scram_verifier("correct horse", "agent_app")
    assert verifier == scram_verifier("correct horse", "agent_app")
    assert verifier != scram_verifier("correct horse", "rackhand_owner")
    _, parameters, keys = verifier.split("$")
    iterations, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac(
        "sha256", b"correct horse", base64.b64decode(salt), int(iterations)
    )
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert base64.b64decode(keys.split(":")[0]) == hashlib.sha256(client_key).digest()


@pytest.mark.parametrize("password", ["", "pässword", "tab\there"])
def test_a_password_that_postgresql_would_normalise_is_refused(password: str) -> None:
    with pytest.raises(AnsibleError, match="role agent_app"):
        scram_verifier(password, "agent_app")


def test_a_database_that_was_killed_comes_back_however_often() -> None:
    unit = postgres().render("host/etc/systemd/system/postgresql@.service.d/60-rackhand.conf.j2")
    before, service = unit.split("[Service]")
    assert "StartLimitIntervalSec=0" in before
    assert "Restart=on-failure\nRestartSec=2s\n" in service
