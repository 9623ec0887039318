"""The agent app's configuration and credentials, as a host gets them."""

from __future__ import annotations

from typing import Any

import yaml
from rendering import BOOKWORM, Role

from agent_app.config import Config, Jobs

CONFIG = "host/etc/agent_app/config.yml.j2"
UNIT = "host/etc/systemd/system/agent_app@.service.j2"
COMMAND = "host/usr/local/bin/agent-app.j2"
SECRETS = (
    "database_password",
    "database_owner_password",
    "redis_password",
    "key_secret",
    "audit_secret",
)
EMBED_SECRET = "sk-embed-7781"


def role(**variables: Any) -> Role:
    required: dict[str, Any] = {f"agent_app_{name}": f"secret-{name}" for name in SECRETS} | {
        "agent_app_engines": {"demo": {"endpoints": ["http://127.0.0.1:8000"], "model": {}}},
        "__agent_app_release": {"version": "0.1.0"},
    }
    return Role("agent_app", BOOKWORM, **required | variables)


def configuration(**variables: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(role(**variables).render(CONFIG))
    return document


def test_an_inventory_that_says_nothing_leaves_the_apps_own_defaults() -> None:
    document = configuration()
    assert "embeddings" not in document
    config = Config.model_validate(document)
    assert config == Config.model_validate({**document, "knowledge": {}})


def test_what_an_inventory_says_of_a_section_is_in_the_configuration() -> None:
    embeddings = {
        "endpoint": "http://10.0.0.5:8090", "model": "bge-m3", "dimensions": 1024,
        "credential": "embeddings_key",
    }  # fmt: skip
    document = configuration(
        agent_app_embeddings=embeddings, agent_app_knowledge={"language": "german"}
    )
    config = Config.model_validate(document)
    assert config.embeddings is not None
    assert (config.embeddings.dimensions, config.knowledge.language) == (1024, "german")


def test_every_section_that_the_app_will_know_can_be_set() -> None:
    names = ("knowledge", "embeddings", "cache", "routes", "jobs", "approvals", "retention",
             "telemetry")  # fmt: skip
    document = configuration(**{f"agent_app_{name}": {"a": name} for name in names})
    assert {name: document[name] for name in names} == {name: {"a": name} for name in names}


def test_a_further_credential_reaches_the_service_and_the_command_and_no_text() -> None:
    app = role(
        agent_app_credentials={"embeddings_key": EMBED_SECRET},
        agent_app_embeddings={"credential": "embeddings_key"},
    )
    path = "/etc/rackhand/credentials/agent_app/embeddings_key"
    unit, command = app.render(UNIT), app.render(COMMAND)
    assert f"LoadCredential=embeddings_key:{path}\n" in unit
    assert f"--property=LoadCredential=embeddings_key:{path} \\\n" in command
    assert command.rstrip().endswith('/opt/agent_app/current/bin/agent-app "$@"')
    for text in (unit, command, app.render(CONFIG)):
        assert EMBED_SECRET not in text
    (item,) = app.value("__agent_app_more_credentials")
    assert EMBED_SECRET in app.render("credential.j2", item=item)


def test_the_command_has_no_credential_of_the_owner() -> None:
    assert "owner" not in role().render(COMMAND)


def test_bounds_of_jobs_reach_the_app_and_are_such_as_it_takes() -> None:
    jobs = {"workers": 4, "webhook_hosts": ["*.example.com", "10.0.0.0/8"]}
    config = Config.model_validate(configuration(agent_app_jobs=jobs))
    assert config.jobs.workers == 4
    assert config.jobs.webhook_hosts == ("*.example.com", "10.0.0.0/8")
    assert Config.model_validate(configuration()).jobs == Jobs()


def test_the_webhook_secret_is_a_credential_where_there_is_one() -> None:
    line = "webhook_secret:/etc/rackhand/credentials/agent_app/webhook_secret"
    with_secret = role(agent_app_webhook_secret="hook-secret")
    assert {"name": "webhook_secret", "value": "hook-secret"} in with_secret.value(
        "__agent_app_more_credentials"
    )
    command = with_secret.render(COMMAND)
    assert f"--property=LoadCredential={line} \\\n" in command
    assert "hook-secret" not in command
    assert line not in role().render(COMMAND)
    assert role().value("__agent_app_more_credentials") == []


def test_credentials_of_mcp_servers_reach_the_unit_by_name_and_never_by_value() -> None:
    app = role(agent_app_tools_credentials={"tools_mcp_shop": "s3cret"})
    unit = app.render(UNIT)
    path = "/etc/rackhand/credentials/agent_app/tools_mcp_shop"
    assert f"LoadCredential=tools_mcp_shop:{path}\n" in unit
    assert "s3cret" not in unit
    assert app.value("__agent_app_more_credentials") == [
        {"name": "tools_mcp_shop", "value": "s3cret"}
    ]


def test_the_audits_secret_is_there_whatever_the_inventory_says() -> None:
    line = "LoadCredential=audit_secret:/etc/rackhand/credentials/agent_app/audit_secret"
    assert f"{line}\n" in role().render(UNIT)
    assert f"--property={line} \\\n" in role().render(COMMAND)


def test_the_configuration_carries_mcp_servers_and_the_rules_of_approval() -> None:
    server = {"url": "https://mcp.example/mcp", "headers": {"Authorization": "tools_mcp_shop"},
              "tools": ["refund"], "approval": ["refund"]}  # fmt: skip
    config = Config.model_validate(
        configuration(
            agent_app_tools={"mcp": {"shop": server}}, agent_app_approvals={"by": "scope"}
        )
    )
    assert config.tools.need_approval == {"shop__refund"}
    assert config.approvals.by == "scope"
