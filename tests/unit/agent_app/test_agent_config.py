from pathlib import Path

import pytest
import yaml

from agent_app.config import load_config, read_secret
from agent_app.errors import ConfigError

GOOD = {
    "database": {"host": "127.0.0.1"},
    "models": {"demo": {"endpoints": ["http://127.0.0.1:8000"]}},
    "default_model": "demo",
}


def load(tmp_path: Path, document: object) -> None:
    path = tmp_path / "config.yml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    load_config(path)


def test_little_is_enough(tmp_path: Path) -> None:
    load(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"surprise": 1}, "surprise: unknown key"),
        ({"limits": {"stepps": 1}}, "limits.stepps: unknown key"),
        ({"limits": {"steps": 0}}, "limits.steps: "),
        ({"default_model": "other"}, "'other' is not one of models: demo"),
        ({"models": {}}, "models: "),
        ({"models": {"demo": {"endpoints": []}}}, "models.demo.endpoints: "),
        ({"models": {"demo": {"endpoints": ["nonsense"]}}}, "models.demo.endpoints.0: "),
        (
            {"models": {"demo": {"endpoints": ["http://e"], "max_output_tokens": 9000}}},
            "models.demo: max_output_tokens must be less than context_length",
        ),
    ],
)
def test_a_wrong_key_is_named_with_the_file(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, {**GOOD, **change})
    assert words in str(refused.value)
    assert "config.yml" in str(refused.value)
    assert "Cure: " in str(refused.value)


@pytest.mark.parametrize("text", ["", "a: [", "- list"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, text)


def test_an_absent_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="--config"):
        load_config(Path("/nonexistent/config.yml"))


def test_an_empty_secret_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_APP_CREDENTIALS_DIR", str(tmp_path))
    (tmp_path / "key_secret").write_text("\n")
    with pytest.raises(ConfigError, match="missing or empty"):
        read_secret("key_secret")
    assert read_secret("redis_password", required=False) == ""


def test_without_a_credentials_directory_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENT_APP_CREDENTIALS_DIR", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match="LoadCredential=key_secret"):
        read_secret("key_secret")
