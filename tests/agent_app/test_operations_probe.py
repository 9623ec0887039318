"""What `ops app deploy` asks of an instance before it comes back, asked of a real one."""

import asyncio
import json
from pathlib import Path

import pytest
from app_process import AppProcess
from scripted_engine import ScriptedEngine, Status

from ops.app import instance_program


@pytest.fixture
def keyed(app: AppProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppProcess:
    """An app whose host has no key for probes yet; making one is the app's own command."""
    monkeypatch.setattr(instance_program, "KEY", tmp_path / "probe_key")

    def make_key() -> None:
        made = app.run("keys", "create", "--name", "ops-host", "--expires", "90d", "--json")
        instance_program.replace(tmp_path / "probe_key", json.loads(made)["key"] + "\n", 0o600)

    monkeypatch.setattr(instance_program, "make_key", make_key)
    return app


async def complete(app: AppProcess) -> None:
    await asyncio.to_thread(instance_program.complete, app.port, "127.0.0.1")


async def test_an_instance_that_serves_completes_a_request_with_a_key_of_ours(
    keyed: AppProcess, tmp_path: Path
) -> None:
    await complete(keyed)
    assert (tmp_path / "probe_key").stat().st_mode & 0o777 == 0o600
    await complete(keyed)


async def test_a_key_that_is_refused_is_made_anew(keyed: AppProcess, tmp_path: Path) -> None:
    (tmp_path / "probe_key").write_text("rk_nobody_knows_it\n")
    await complete(keyed)


async def test_an_instance_that_cannot_complete_a_request_says_how_it_ended(
    keyed: AppProcess, engine: ScriptedEngine
) -> None:
    engine.default = lambda _body: [Status(400)]
    with pytest.raises(SystemExit, match=r"a completion through agent_app@\d+ ended with 400"):
        await complete(keyed)


async def test_an_instance_says_that_it_is_ready_and_one_that_is_gone_does_not(
    app: AppProcess,
) -> None:
    ready = asyncio.to_thread(instance_program.why_not_ready, app.port, "127.0.0.1")
    assert await ready == ""
    await app.kill()
    assert "refused" in instance_program.why_not_ready(app.port, "127.0.0.1")
