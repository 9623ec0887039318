"""What ops writes on hosts and in inventories is what roles and people would have written."""

import json
from pathlib import Path
from typing import Any

import pytest
from rendering import ROOT, Role

from ops.engine import switch_program
from ops.engine.switchboard import MANAGED, upstream_text
from ops.errors import InputError
from ops.fleet.desired import read
from ops.models.inventory import wanted_entry, write_entry

ENTRY = {"name": "demo-1", "source": "file:///x", "revision": "v2", "max_model_len": 4096}
FACT = {
    "active": "green",
    "entry": ENTRY,
    "environment": "0.32.0-cpu",
    "path": "/srv/models/demo-1/v2",
    "port": 8103,
    "revision": "v2",
    "standby": {"name": "demo-1", "revision": "v1"},
    "traffic": {"blue": 99, "green": 1},
}
OTHER = {"name": "other", "source": "file:///y", "revision": "a"}


def facts(fact: dict[str, Any]) -> dict[str, Any]:
    local = {"engine": {"models": {"demo-1": fact}}}
    return {"ansible_local": local, "distribution": "Debian"}


@pytest.mark.parametrize("traffic", [{"blue": 99, "green": 1}, {"green": 100}, {"blue": 100}])
def test_an_upstream_that_ops_writes_is_the_one_that_the_role_renders(
    traffic: dict[str, int],
) -> None:
    role = Role("engine_proxy", facts({**FACT, "traffic": traffic}), ansible_managed=MANAGED,
                engine_proxy_models=[OTHER, ENTRY])  # fmt: skip
    item = role.value("__engine_proxy_sites")[1]
    template = "host/etc/nginx/engine_proxy.d/upstream.conf.j2"
    ports = {"blue": 8102, "green": 8103}
    ours = upstream_text("demo-1", tuple((s, ports[s], w) for s, w in sorted(traffic.items())))
    assert role.render(template, item=item).rstrip() == ours.rstrip()
    tree = ROOT / "collections/ansible_collections/rackhand/host/plugins/action/tree.py"
    assert MANAGED in tree.read_text()


def test_a_fact_file_that_ops_writes_is_the_one_that_the_role_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine.fact"
    monkeypatch.setattr(switch_program, "FACT", path)
    switch_program.write_fact({"models": {"demo-1": FACT}})
    role = Role("engine", facts(FACT), engine_models=[OTHER, ENTRY], engine_accelerator="cpu")
    rendered = role.render("host/etc/ansible/facts.d/engine.fact.j2")
    ours, theirs = (json.loads(text)["models"]["demo-1"] for text in (path.read_text(), rendered))
    assert ours == {**theirs, "environment": "0.32.0-cpu"}
    assert json.dumps(json.loads(rendered), indent=4, sort_keys=True) == rendered.rstrip()


def test_what_runs_otherwise_than_wanted_is_named_by_key() -> None:
    wanted = {**ENTRY, "revision": "v3", "max_model_len": 8192, "source": "file:///elsewhere"}
    role = Role("engine", facts(FACT), engine_models=[wanted], engine_accelerator="cpu")
    moved = role.value("__engine_moved")
    assert len(moved) == 2
    assert "max_model_len 4096" in moved[0]
    assert "the inventory wants v3" in moved[1]
    assert (
        Role("engine", facts(FACT), engine_models=[ENTRY], engine_accelerator="cpu").value(
            "__engine_moved"
        )
        == []
    )


def test_a_fact_of_an_older_release_is_held_against_its_revision_alone() -> None:
    old = {"active": "blue", "revision": "v2", "port": 8100}
    for revision, count in (("v2", 0), ("v3", 1)):
        role = Role("engine", facts(old), engine_models=[{**ENTRY, "revision": revision}],
                    engine_accelerator="cpu")  # fmt: skip
        assert len(role.value("__engine_moved")) == count


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text(
        "# the head\n---\ndomain: a.example.com  # ours\nmodels:\n"
        "  - name: demo-1   # the one for chat\n    source: file:///x\n    revision: v1\n"
        '    extra_args: ["--a"]  # because\n  - name: other\n    source: file:///y\n'
        "    revision: a\n"
    )
    return tmp_path


def test_an_entry_is_written_back_with_comments_and_neighbours_kept(inventory: Path) -> None:
    entry = {**wanted_entry(inventory, "demo-1"), "revision": "v2", "vllm": "0.33.0"}
    path = write_entry(inventory, "demo-1", entry)
    assert path is not None
    text = path.read_text()
    for words in ("# the head", "# ours", "# the one for chat", "# because", "vllm: 0.33.0"):
        assert words in text
    assert read(path)["models"][0]["revision"] == "v2"
    assert read(path)["models"][1] == OTHER
    assert write_entry(inventory, "demo-1", entry) is None


def test_a_key_that_is_wanted_no_more_goes(inventory: Path) -> None:
    entry = wanted_entry(inventory, "demo-1")
    del entry["extra_args"]
    write_entry(inventory, "demo-1", entry)
    assert wanted_entry(inventory, "demo-1") == entry


def test_a_model_that_the_inventory_does_not_have_is_named(inventory: Path) -> None:
    with pytest.raises(InputError, match="no entry named nobody"):
        wanted_entry(inventory, "nobody")
