import re
from pathlib import Path

import yaml

import agent_app
from agent_app.config import Config, Limits

README = (Path(agent_app.__file__).parent / "README.md").read_text()


def test_the_readme_names_every_key_with_its_default() -> None:
    block = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert block is not None
    document = yaml.safe_load(block[1])
    config = Config.model_validate(document)
    assert config.limits == Limits()
    assert set(document) == set(Config.model_fields)
    for name in ("database", "redis", "limits"):
        assert set(document[name]) == set(type(getattr(config, name)).model_fields)
    assert set(document["models"]["demo"]) == set(type(config.models["demo"]).model_fields)
    assert set(document["tools"]) == set(type(config.tools).model_fields)
    for name, section in document["tools"].items():
        assert set(section) == set(type(getattr(config.tools, name)).model_fields)
