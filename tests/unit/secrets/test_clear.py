"""Secrets in clear in an inventory are named with their file; vaulted ones are not."""

from pathlib import Path

from ops.places import ROOT
from ops.secrets.clear import in_clear, secret_variables


def test_roles_say_which_of_their_variables_are_secret() -> None:
    found = secret_variables()
    assert {"alertmanager_slack_url", "agent_app_credentials", "redis_agent_app_password"} <= found
    assert "alertmanager_email_to" not in found


def test_a_secret_in_clear_is_found_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "group_vars/agent").mkdir(parents=True)
    (tmp_path / "hosts.yml").write_text(
        "all:\n  vars: {alertmanager_email_password: abc}\n  hosts: {one: {}}\n"
    )
    (tmp_path / "group_vars/all.yml").write_text(
        "domain: example.com\nalertmanager_slack_url: https://hooks.example/x\n"
        "alertmanager_webhook_token: '{{ vault_token }}'\nalertmanager_pagerduty_routing_key: ''\n"
        "redis_agent_app_password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  616263\n"
    )
    (tmp_path / "group_vars/agent/vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n616263\n")
    (tmp_path / "group_vars/agent/main.yml").write_text("agent_app_credentials: {hub: hf_abc}\n")
    found = {(one.name, str(one.path.relative_to(tmp_path))) for one in in_clear(tmp_path)}
    assert found == {
        ("alertmanager_email_password", "hosts.yml"),
        ("alertmanager_slack_url", "group_vars/all.yml"),
        ("agent_app_credentials", "group_vars/agent/main.yml"),
    }


def test_our_own_inventories_have_none() -> None:
    assert not in_clear(ROOT / "inventories/example")
    assert not in_clear(ROOT / "inventories/fleet")
