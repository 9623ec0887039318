import re
from pathlib import Path

import yaml

import agent_app
from agent_app.config import (
    Cache,
    Cloud,
    Config,
    Knowledge,
    Limits,
    McpServer,
    Retention,
    Route,
    SemanticCache,
    Telemetry,
)

README = (Path(agent_app.__file__).parent / "README.md").read_text()


def test_the_readme_names_every_key_with_its_default() -> None:
    block = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert block is not None
    document = yaml.safe_load(block[1])
    config = Config.model_validate(document)
    assert config.limits == Limits()
    assert config.retention == Retention()
    assert config.knowledge == Knowledge()
    assert set(document) == set(Config.model_fields)
    assert config.telemetry == Telemetry()
    sections = ("database", "redis", "limits", "jobs", "cache", "embeddings", "retention")
    for name in (*sections, "knowledge", "telemetry"):
        assert set(document[name]) == set(type(getattr(config, name)).model_fields)
    assert set(document["models"]["demo"]) == set(type(config.models["demo"]).model_fields)
    assert set(document["cache"]["semantic"]) == set(SemanticCache.model_fields)
    assert config.cache.semantic == SemanticCache()
    assert config.cache.model_copy(update={"semantic": None}) == Cache()
    route = document["routes"]["demo"]
    assert set(route) == set(Route.model_fields)
    assert set(route["cloud"]) == set(Cloud.model_fields)
    assert set(document["tools"]) == set(type(config.tools).model_fields)
    for name in ("sql", "tickets"):
        section = type(getattr(config.tools, name))
        assert set(document["tools"][name]) == set(section.model_fields)
    servers = document["tools"]["mcp"].values()
    assert {key for server in servers for key in server} == set(McpServer.model_fields)
    assert set(document["approvals"]) == set(type(config.approvals).model_fields)
