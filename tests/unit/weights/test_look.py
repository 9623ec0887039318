"""How large a revision is at its source, and what the inventory and open operations name."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rendering import BOOKWORM, Role

from ops.errors import InputError
from ops.fleet.model import Fleet, Host, Model
from ops.operations import keeper
from ops.operations.journal import Operation
from ops.operations.plan import Plan, Step
from ops.weights import look, shelf_program

ENTRY = {"name": "demo", "source": "hf://org/name", "revision": "v2", "vllm": "0.33.0"}
HOST = Host(
    "gpu1", "192.0.2.1", frozenset({"gpu"}), "10.0.0.1",
    models=(Model("demo", "hf://org/name", "v2", 0),),
    variables={"models": [ENTRY], "engine_keep_revisions": 3},
)  # fmt: skip
FLEET = Fleet(Path("inventory"), "example.com", (HOST,))


def test_a_folder_of_this_machine_is_weighed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/model.safetensors").write_bytes(b"x" * 77)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/pack").write_bytes(b"x" * 1000)
    assert look.measure(FLEET, {**ENTRY, "source": f"file://{tmp_path}"}, [HOST]) == 77


@pytest.mark.parametrize("source", ["file:///nowhere", "peer", "s3://bucket/x"])
def test_a_source_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(InputError):
        look.measure(FLEET, {**ENTRY, "source": source}, [HOST])


def test_a_host_that_does_not_serve_the_model_cannot_be_named() -> None:
    assert look.serving(FLEET, "demo", ("gpu1",)) == [HOST]
    with pytest.raises(InputError, match="gpu9 does not serve demo"):
        look.serving(FLEET, "demo", ("gpu9",))


class Hub(BaseHTTPRequestHandler):
    asked: tuple[str, str] = ("", "")

    def do_GET(self) -> None:
        Hub.asked = (self.path, self.headers.get("Authorization", ""))
        body = json.dumps({"siblings": [{"rfilename": "a", "size": 7}, {"size": 5}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None: ...


@pytest.fixture
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_hub_or_its_mirror_tells_the_size_of_a_revision(hub: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    said = shelf_program.hub("org/name", "refs/pr/1", hub, str(tmp_path / "token"), "")
    assert said == {"size": 12}
    path = "/api/models/org/name/revision/refs%2Fpr%2F1?blobs=true"
    assert Hub.asked == (path, "Bearer secret")


def test_the_inventory_the_roles_default_and_open_operations_name_what_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"model": "demo", "entry": {"name": "demo", "revision": "v9", "vllm": "0.34.0"}}
    plan = Plan("model stage", "demo", (), (Step("weights.fetch", "", "", values),))
    ends = {"done": [{"event": "end"}], "open": [{"event": "taken"}]}
    monkeypatch.setattr(
        keeper, "summaries",
        lambda _: [{"id": n, "entries": e, "held": False} for n, e in ends.items()],
    )  # fmt: skip
    monkeypatch.setattr(keeper, "read", lambda _fleet, name: Operation(name, plan))
    named = look.named(FLEET)
    assert named.revisions == {
        ("demo", "v2"): "is wanted by the inventory",
        ("demo", "v9"): "is named by operation open",
    }
    assert set(named.versions) == {"0.32.0", "0.33.0", "0.34.0"}
    assert look.keeps(HOST) == 3
    assert look.keeps(Host("gpu2", "192.0.2.2", frozenset({"gpu"}), "10.0.0.2")) == 1


def test_the_role_stages_a_candidate_without_a_slot_of_its_own() -> None:
    actual = {"engine": {"models": {"demo": {"active": "green", "revision": "v1"}}}}
    role = Role(
        "engine", {**BOOKWORM, "ansible_local": actual}, engine_models=[ENTRY],
        engine_accelerator="cpu",
        engine_candidate={"name": "demo", "entry": ENTRY, "stage_only": True},
    )  # fmt: skip
    slots = role.value("__engine_slots")
    assert [(s["path"], s["home"]) for s in slots] == [
        ("/srv/models/demo/v2", "/opt/vllm/0.33.0-cpu")
    ]
    assert role.value("__engine_moved") == []
    assert not role.evaluate("not (engine_candidate.stage_only | default(false))")
