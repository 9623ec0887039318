"""What ops writes on agent hosts and edges is what roles would have written."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import BOOKWORM, ROOT, Role

from ops.app import instance_program
from ops.app.config import Bounds, with_bounds
from ops.app.release import release_of, source_of
from ops.engine import switch_program
from ops.engine.switchboard import MANAGED
from ops.errors import InputError, OpsError

UPSTREAM = "host/etc/nginx/edge.d/agent_app.upstream.conf.j2"
BACKENDS = ["10.0.0.1:8200", "10.0.0.1:8201", "10.0.0.11:8200"]


def upstream() -> str:
    role = Role("nginx", BOOKWORM, nginx_backends=BACKENDS, ansible_managed=MANAGED)
    return role.render(UPSTREAM) + "\n"


def config(*, cache: dict[str, Any] | None = None, **entries: dict[str, Any]) -> str:
    engines = {
        name: {"endpoints": [f"http://127.0.0.1:800{n}"], "model": {"name": name, **entry}}
        for n, (name, entry) in enumerate(entries.items())
    }
    role = Role(
        "agent_app", {}, agent_app_engines=engines, agent_app_default_model=next(iter(engines)),
        agent_app_cache=cache or {}, agent_app_limits={"runs": 8}, ansible_managed=MANAGED,
    )  # fmt: skip
    return role.render("host/etc/agent_app/config.yml.j2")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_instance_put_back_leaves_the_upstream_as_the_role_renders_it(backend: str) -> None:
    before = upstream()
    out, count = switch_program.mark(before, backend, True)
    assert count == 1
    assert f"    server {backend} max_fails=2 fail_timeout=1s down;" in out.splitlines()
    assert out.count(" down;") == 1
    assert switch_program.mark(out, backend, True) == (out, 1)
    assert switch_program.mark(out, backend, False) == (before, 1)
    assert switch_program.mark(before, backend, False) == (before, 1)


def test_an_edge_that_knows_no_such_instance_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent_app.upstream.conf"
    path.write_text(upstream())
    monkeypatch.setattr(switch_program, "EDGE_UPSTREAM", path)
    monkeypatch.setattr(switch_program, "LOCK", tmp_path / "new/switch.lock")
    with pytest.raises(SystemExit, match=r"no server 10\.0\.0\.9:8200"):
        switch_program.set_out("10.0.0.9:8200", True)


def test_an_instance_is_out_when_nginx_has_taken_it_and_the_answer_names_all_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reloads = tmp_path / "agent_app.upstream.conf", []
    path.write_text(upstream())
    monkeypatch.setattr(switch_program, "EDGE_UPSTREAM", path)
    monkeypatch.setattr(switch_program, "LOCK", tmp_path / "switch.lock")
    monkeypatch.setattr(switch_program, "write_upstream", lambda p, text: p.write_text(text))
    monkeypatch.setattr(switch_program, "reload_nginx", lambda: reloads.append(path.read_text()))
    assert switch_program.set_out(BACKENDS[0], True) == {"out": [BACKENDS[0]]}
    assert switch_program.set_out(BACKENDS[1], True) == {"out": BACKENDS[:2]}
    for backend in BACKENDS[:2]:
        switch_program.set_out(backend, False)
    assert path.read_text() == reloads[-1] == upstream()


@pytest.mark.parametrize("change", [{"max_model_len": 4096}, {"max_output_tokens": 256}, {},
                                    {"max_model_len": 512}])  # fmt: skip
def test_a_configuration_with_other_bounds_is_the_one_that_the_role_renders(
    change: dict[str, Any],
) -> None:
    others = {"a-first": {"max_model_len": 2048}, "z-last": {}}
    before = config(**{"a-first": others["a-first"], "demo-1": {}, "z-last": {}})
    after = config(**{"a-first": others["a-first"], "demo-1": change, "z-last": {}})
    assert with_bounds(before, "demo-1", Bounds.of(change)) == after
    assert with_bounds(after, "demo-1", Bounds.of({})) == before
    known = yaml.safe_load(after)["models"]["demo-1"]
    assert Bounds(known["context_length"], known["max_output_tokens"]) == Bounds.of(change)


def test_a_model_whose_name_yaml_quotes_is_found_as_well() -> None:
    after = config(**{"7": {"max_model_len": 4096}, "on": {}})
    assert with_bounds(config(**{"7": {}, "on": {}}), "7", Bounds(4096, 1024)) == after


@pytest.mark.parametrize("revision", ["9f1c2e7", "v2", "12e7", "0123456", "release: 7"])
def test_a_configuration_with_a_cache_has_the_revision_as_the_role_renders_it(
    revision: str,
) -> None:
    cache, old, new = {"seconds": 600}, {"revision": "v1"}, {"revision": revision}
    before, after = config(cache=cache, demo=old), config(cache=cache, demo=new)
    assert with_bounds(before, "demo", Bounds.of(new, revision=True)) == after
    assert with_bounds(after, "demo", Bounds.of(old, revision=True)) == before
    assert yaml.safe_load(after)["models"]["demo"]["revision"] == revision
    # Where the app has no cache there is no such line, and none comes.
    assert with_bounds(config(demo=old), "demo", Bounds.of(new, revision=True)) == config(demo=new)


def test_a_configuration_without_the_model_is_named() -> None:
    with pytest.raises(OpsError, match="no model nobody"):
        with_bounds(config(demo={}), "nobody", Bounds(1, 1))


def test_a_release_has_the_name_that_the_build_gives_it() -> None:
    import hashlib

    from ansible_collections.rackhand.host.plugins.action import (
        python_environment as action,
    )

    source = source_of(ROOT)
    lock = (source / "requirements.lock").read_bytes()
    digest = hashlib.sha256(lock)
    digest.update(action.source_digest(source).encode())
    assert release_of(source) == f"{action.project_version(source)}-{digest.hexdigest()[:8]}"


def test_a_folder_without_the_app_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no agent app"):
        source_of(tmp_path)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for release in ("r1", "r2"):
        (tmp_path / "releases" / release).mkdir(parents=True)
        (tmp_path / "releases" / release / ".complete").write_text("digest\n")
    (tmp_path / "releases/half").mkdir()
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances/8200").symlink_to(tmp_path / "releases/r1")
    (tmp_path / "current").symlink_to(tmp_path / "releases/r1")
    (tmp_path / "releases/current").symlink_to(tmp_path / "current")
    (tmp_path / "config.yml").write_text("a: 1\n")
    (tmp_path / "config.yml").chmod(0o640)
    monkeypatch.setattr(instance_program, "HOME", tmp_path)
    monkeypatch.setattr(instance_program, "FACT", tmp_path / "facts.d/agent_app.fact")
    monkeypatch.setattr(instance_program, "CONFIG", tmp_path / "config.yml")
    return tmp_path


def test_a_host_tells_its_releases_and_what_each_instance_runs(host: Path) -> None:
    found = instance_program.survey([8200, 8201])
    assert found["current"] == "r1"
    assert found["instances"] == {"8200": "r1", "8201": ""}
    assert found["releases"] == ["r1", "r2"]
    assert found["fact"] == {}


def test_an_instance_is_pointed_at_a_complete_release_as_the_role_does_it(host: Path) -> None:
    instance_program.set_release(8200, "r2")
    assert (host / "instances/8200").readlink() == host / "releases/r2"
    before = (host / "instances/8200").lstat().st_mtime_ns
    instance_program.set_release(8200, "r2")
    assert (host / "instances/8200").lstat().st_mtime_ns == before, "site.yml would restart it"
    with pytest.raises(SystemExit, match="not complete"):
        instance_program.set_release(8200, "half")
    tasks = (ROOT / "roles/agent_app/tasks/main.yml").read_text()
    assert "path: /opt/agent_app/instances/{port}" in tasks
    assert "path: /opt/agent_app/releases/{version}" in tasks


def test_what_an_operation_put_there_is_told_and_taken_back(host: Path) -> None:
    fact = {"release": "r2", "previous": "r1", "operation": "x"}
    instance_program.set_current("r2", fact)
    assert instance_program.survey([])["fact"] == fact
    assert json.loads((host / "facts.d/agent_app.fact").read_text()) == fact
    instance_program.set_current("r1", {})
    found = instance_program.survey([])
    assert (found["current"], found["fact"]) == ("r1", {})


def test_a_configuration_that_somebody_changed_meanwhile_is_left_alone(host: Path) -> None:
    instance_program.set_config("a: 1\n", "a: 2\n")
    instance_program.set_config("a: 1\n", "a: 2\n")
    assert (host / "config.yml").read_text() == "a: 2\n"
    assert (host / "config.yml").stat().st_mode & 0o777 == 0o640
    with pytest.raises(SystemExit, match="changed meanwhile"):
        instance_program.set_config("a: 3\n", "a: 4\n")


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:2008 00000000:0000 0A 00000000:00000000 00:00000000 00000000   0 0 1
   1: 0100007F:2008 0100007F:A0F2 01 00000000:00000000 00:00000000 00000000   0 0 2
   2: 0100007F:A0F2 0100007F:2008 01 00000000:00000000 00:00000000 00000000   0 0 3
   3: 0100007F:2009 0100007F:A0F4 01 00000000:00000000 00:00000000 00000000   0 0 4
   4: 0100007F:2008 0100007F:A0F6 06 00000000:00000000 00:00000000 00000000   0 0 5
"""


def test_only_open_connections_to_the_instance_itself_count() -> None:
    assert instance_program.count(TABLE, 8200) == 1
    assert instance_program.count(TABLE, 8201) == 1
    assert instance_program.count(TABLE, 8202) == 0


def line(upstream: str, status: str) -> bytes:
    entry = {"upstream": upstream, "upstream_status": status}
    return json.dumps(entry).encode() + b"\n"


def test_the_edges_log_tells_what_the_watched_instance_did_and_what_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(line("a:1", "500"))
    monkeypatch.setattr(switch_program, "EDGE_LOG", log)
    place = switch_program.read_edge_log("a:1", -1)["offset"]
    with log.open("ab") as stream:
        stream.write(line("a:1", "200") + line("b:1", "200") + line("a:1, b:1", "502, 200"))
        stream.write(line("agent_app", "502") + line("", "") + b"no json\n" + b'{"half')
    found = switch_program.read_edge_log("a:1", place)
    assert {k: found["watched"][k] for k in ("requests", "failed")} == {"requests": 2, "failed": 1}
    assert {k: found["others"][k] for k in ("requests", "failed")} == {"requests": 2, "failed": 0}
    assert switch_program.read_edge_log("a:1", found["offset"])["watched"]["requests"] == 0


@pytest.mark.parametrize(
    ("fact", "moved"),
    [({}, False), ({"release": "v1", "operation": "x"}, False), ({"release": "v2"}, True)],
)
def test_site_yml_stops_only_where_an_operation_put_another_release(
    fact: dict[str, str], moved: bool
) -> None:
    facts: dict[str, Any] = {"ansible_local": {"agent_app": fact} if fact else {}}
    role = Role("agent_app", facts, __agent_app_release={"version": "v1"})
    assert role.value("__agent_app_moved") is moved
