"""`ops secrets` before a person: names and ages for all, a value only to who insists."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli.secrets import app
from ops.errors import InputError
from ops.secrets.vault import store_of

VALUE = "a-value-that-nobody-else-has"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    store = store_of(tmp_path)
    for name in ("redis_agent_app", "audit_secret", "tls/ca.crt", "from_a_later_checkout"):
        store.ensure(name, lambda: VALUE)
    return tmp_path


def test_a_list_names_all_and_shows_none(inventory: Path) -> None:
    said = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["list", "-i", str(inventory)])
    assert said.exit_code == 0
    for name in ("redis_agent_app", "audit_secret", "tls/ca.crt", "from_a_later_checkout"):
        assert name in said.output
    assert VALUE not in said.output
    rows = json.loads(CliRunner().invoke(app, ["list", "-i", str(inventory), "--json"]).output)
    assert [(row["name"], row["rotates"]) for row in rows] == [
        ("redis_agent_app", True), ("audit_secret", False), ("from_a_later_checkout", False),
        ("tls/ca.crt", False),
    ]  # fmt: skip


def test_a_secret_is_shown_to_a_terminal_or_to_who_insists(inventory: Path) -> None:
    refused = CliRunner().invoke(app, ["show", "-i", str(inventory), "redis_agent_app"])
    assert isinstance(refused.exception, InputError)
    assert VALUE not in refused.output
    shown = CliRunner().invoke(app, ["show", "-i", str(inventory), "redis_agent_app", "--yes"])
    assert shown.output == f"{VALUE}\n"
    unknown = CliRunner().invoke(app, ["show", "-i", str(inventory), "nonsense", "--yes"])
    assert isinstance(unknown.exception, InputError)
