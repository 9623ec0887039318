"""The agent app's units: their secrets, and the timer of retention."""

from __future__ import annotations

import re

from rendering import BOOKWORM, ROOT, Role

UNITS = "host/etc/systemd/system"


def agent_app() -> Role:
    return Role("agent_app", BOOKWORM, __agent_app_release={"version": "0.1.0-abc"})


def secrets_of(text: str) -> set[str]:
    return set(
        re.findall(r"LoadCredential=([a-z_]+):/etc/rackhand/credentials/agent_app/\1\b", text)
    )


def test_every_reader_of_the_audit_has_its_secret() -> None:
    command = agent_app().render("host/usr/local/bin/agent-app.j2")
    assert "audit_secret" in secrets_of(command)
    assert '--setenv=AGENT_APP_OPERATOR="${SUDO_USER:-${USER:-root}}"' in command
    text = (ROOT / "roles/agent_app/templates" / UNITS / "agent_app@.service.j2").read_text()
    assert "audit_secret" in secrets_of(text)


def test_retention_gets_the_one_secret_it_needs_and_the_same_walls() -> None:
    text = (
        ROOT / "roles/agent_app/templates" / UNITS / "agent_app_retention.service.j2"
    ).read_text()
    assert secrets_of(text) == {"database_password"}
    assert "{% include 'systemd/hardening.j2' %}" in text
    assert "Type=oneshot" in text


def test_the_timer_is_daily_and_makes_up_for_a_host_that_was_off() -> None:
    text = agent_app().render(f"{UNITS}/agent_app_retention.timer.j2")
    assert "OnCalendar=*-*-* 03:30:00\n" in text
    assert "Persistent=true" in text
    assert "WantedBy=timers.target" in text
