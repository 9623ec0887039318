"""The program that looks at a host, over files and commands that stand for the host's."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ops.live import look_program
from ops.live.look_program import Gpus, Log, Looker
from ops.live.watch import PROGRAM
from ops.places import ROOT

VLLM = (ROOT / "tests/contract/recorded/vllm-0.32-metrics.txt").read_text()
APP = """# HELP agent_app_runs_in_flight Runs under way in this process.
# TYPE agent_app_runs_in_flight gauge
agent_app_runs_in_flight 3.0
agent_app_queue_length{model="demo"} 2.0
agent_app_requests_total{method="POST",route="/chat",status="200"} 40.0
agent_app_requests_total{method="POST",route="/chat",status="503"} 2.0
"""
UNITS = [
    ("engine@demo-blue.service", "loaded", "active", "running"),
    ("engine@demo-green.service", "loaded", "failed", "failed"),
    ("agent_app@8200.service", "loaded", "active", "running"),
    ("redis-server@state.service", "loaded", "inactive", "dead"),
    ("postgresql@17-main.service", "not-found", "inactive", "dead"),
    ("logrotate.service", "loaded", "failed", "failed"),
    ("cron.service", "loaded", "active", "running"),
]
TIMERS = [{"next": 1795250000000000, "unit": "engine-retires-demo-green.timer"}]
SYSTEMCTL = """#!/bin/sh
case "$1" in
  list-units) cat '{folder}/units.json' ;;
  list-timers) cat '{folder}/timers.json' ;;
esac
"""
FACT = {"models": {"demo": {"active": "blue", "traffic": {"blue": 99, "green": 1}}}}
WANTED = {
    "units": ["engine@*.service", "agent_app@*.service", "redis-server@*.service",
              "postgresql@*.service"],
    "ports": {"demo": {"blue": 0, "green": 1}},
    "address": "127.0.0.1",
    "keeper": True,
    "traffic": False,
    "silence_seconds": 20,
}  # fmt: skip


def line(server: str = "127.0.0.1:8100", status: int = 200) -> str:
    return json.dumps({"server": server, "status": status, "first_byte": "0.010"}) + "\n"


def command(folder: Path, name: str, text: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a host's own files, and its systemctl."""
    names = ("FACT", "SETTINGS", "INSTANCES", "CERTIFICATE", "LOG", "DRAINED", "HELD", "OPERATIONS")
    for name in names:
        monkeypatch.setattr(look_program, name, tmp_path / name.lower())
    keys = ("unit", "load", "active", "sub")
    units = [dict(zip(keys, unit, strict=True)) for unit in UNITS]
    (tmp_path / "units.json").write_text(json.dumps(units))
    (tmp_path / "timers.json").write_text(json.dumps(TIMERS))
    command(tmp_path, "systemctl", SYSTEMCTL.format(folder=tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def pages() -> Iterator[dict[str, str]]:
    """A server of metrics pages, by path; `port` is where."""
    served: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served["page"].encode())

        def log_message(self, *_words: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    served["port"] = str(server.server_port)
    yield served
    server.shutdown()


def look(**changes: Any) -> dict[str, Any]:
    return Looker({**WANTED, **changes}).look()


def test_a_bare_host_has_nothing_and_complains_of_nothing(host: Path) -> None:
    (host / "units.json").write_text("[]")
    found = look()
    assert found["complaints"] == []
    assert (found["models"], found["instances"], found["operation"]) == ({}, {}, None)
    assert found["certificate"] is None
    assert found["memory"]["total"] > found["memory"]["used"] > 0
    assert found["disks"]["/"]["total"] > found["disks"]["/"]["used"] > 0


def test_units_are_those_that_are_wanted_and_all_that_failed(host: Path) -> None:
    assert {name: about["active"] for name, about in look()["units"].items()} == {
        "engine@demo-blue.service": "active",
        "engine@demo-green.service": "failed",
        "agent_app@8200.service": "active",
        "redis-server@state.service": "inactive",
        "logrotate.service": "failed",
    }


def test_both_slots_of_a_model_are_told_with_what_they_are_started_with(host: Path) -> None:
    (host / "fact").write_text(json.dumps(FACT))
    (host / "settings").mkdir()
    (host / "settings/demo-green.env").write_text(
        "ENGINE_COMMAND=/opt/vllm/0.33.0-cuda/bin/vllm\nENGINE_PORT=8101\n"
        'ENGINE_ARGS="serve /srv/models/demo/9f1c2e7 --served-model-name demo"\n'
    )
    model = look()["models"]["demo"]
    assert model["active"] == "blue"
    assert model["slots"]["blue"]["share"] == 99
    assert model["slots"]["green"] == {
        "unit": "engine@demo-green.service",
        "state": "failed",
        "share": 1,
        "revision": "9f1c2e7",
        "environment": "0.33.0-cuda",
        "kept_until": 1795250000.0,
    }


def test_why_a_host_is_drained_and_a_model_held_is_told(host: Path) -> None:
    (host / "drained").write_text("ops driver upgrade by ada\n")
    (host / "held").mkdir()
    (host / "held/demo").write_text("operation 7\n")
    (host / "held/.demo.new").write_text("half written")
    found = look()
    assert found["drained"] == "ops driver upgrade by ada"
    assert found["held"] == {"demo": "operation 7"}


def test_what_is_sick_is_a_complaint_and_hides_nothing_else(host: Path) -> None:
    command(host, "systemctl", "#!/bin/sh\nexit 3\n")
    (host / "fact").write_text("{broken")
    found = look()
    assert [words.partition(":")[0] for words in found["complaints"]] == ["systemd", "engine.fact"]
    assert found["load"]


def test_metrics_of_a_real_engine_and_of_the_app_are_read(
    host: Path, pages: dict[str, str]
) -> None:
    (host / "fact").write_text(json.dumps(FACT))
    ports = {"demo": {"blue": int(pages["port"]), "green": 1}}
    pages["page"] = VLLM
    slots = look(traffic=True, ports=ports)["models"]["demo"]["slots"]
    metrics = slots["blue"]["metrics"]
    assert (metrics["running"], metrics["waiting"]) == (0.0, 0.0)
    assert metrics["generation_tokens"] > 0
    assert metrics["first_token"]["0.02"] == 10.0
    assert metrics["first_token"]["+Inf"] == 14.0
    assert "metrics" not in slots["green"], "it has failed, so nobody asks it"

    (host / "instances").mkdir()
    (host / "instances/8200.env").write_text(f"METRICS_PORT={pages['port']}\n")
    pages["page"] = APP
    assert look(traffic=True)["instances"]["8200"]["metrics"] == {
        "in_flight": 3.0, "queued": 2.0, "requests": 42.0, "failed": 2.0
    }  # fmt: skip


def test_an_engine_that_is_silent_has_no_metrics_and_holds_up_nothing(host: Path) -> None:
    (host / "fact").write_text(json.dumps(FACT))
    slots = look(traffic=True, ports={"demo": {"blue": 9, "green": 1}})["models"]["demo"]["slots"]
    assert slots["blue"]["metrics"] is None
    assert slots["blue"]["log"] == {"requests": 0, "failed": 0}


def test_the_proxys_log_is_counted_from_the_first_look_on_and_through_a_rotation(
    tmp_path: Path,
) -> None:
    path = tmp_path / "engine_proxy.log"
    path.write_text(line() * 5)
    log = Log(path)
    log.read()
    assert log.counts == {}
    with path.open("a") as stream:
        stream.write(line() + line(status=502) + line("127.0.0.1:8101") + line("", 503))
        stream.write(line()[:20])
    log.read()
    assert log.counts["127.0.0.1:8100"] == {"requests": 2, "failed": 1}
    assert log.counts["127.0.0.1:8101"] == {"requests": 1, "failed": 0}
    assert log.refused == 1
    with path.open("a") as stream:
        stream.write(line()[20:])
    log.read()
    assert log.counts["127.0.0.1:8100"]["requests"] == 3
    path.rename(tmp_path / "engine_proxy.log.1")
    path.write_text(line() * 2 + "not json\n")
    log.read()
    assert log.counts["127.0.0.1:8100"]["requests"] == 5


def test_gpus_are_told_and_one_that_hangs_holds_up_nothing(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = "0, NVIDIA H100 80GB HBM3, GPU-1, 81559, 70000, 61, 93, 580.178.04"
    command(host, "nvidia-smi", f"#!/bin/sh\necho '{row}'\n")
    found = look()["gpus"]
    assert found["listed"][0]["name"] == "NVIDIA H100 80GB HBM3"
    assert found["listed"][0]["temperature.gpu"] == "61"
    assert found["complaint"] == ""

    monkeypatch.setattr(look_program, "GPU_LOOK_SECONDS", 0.3)
    command(host, "nvidia-smi", "#!/bin/sh\nexec sleep 5\n")
    gpus = Gpus()
    gpus.ask()
    assert gpus.tell()["complaint"] == "nvidia-smi has not answered for 0 s"

    command(host, "nvidia-smi", "#!/bin/sh\necho 'No devices were found'; exit 6\n")
    assert look()["gpus"] == {"listed": [], "complaint": "No devices were found"}


def test_the_certificates_end_is_told_and_follows_its_renewal(host: Path) -> None:
    def issue(days: int) -> None:
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-subj", "/CN=x", "-days", str(days), "-keyout", str(host / "key"),
                 "-out", str(host / "certificate")]  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)
        os.utime(host / "certificate", (days, days))

    issue(20)
    looker = Looker(WANTED)
    for days in (20, 90):
        issue(days)
        left = looker.look()["certificate"]["expires"] - time.time()
        assert left / 86400 == pytest.approx(days, abs=0.1)


def test_the_operation_that_is_open_is_told_with_whether_somebody_works_on_it(host: Path) -> None:
    folder = host / "operations" / "7"
    folder.mkdir(parents=True)
    about = {"id": "7", "who": "ada", "machine": "desk"}
    (host / "operations/open.json").write_text(json.dumps(about))
    (host / "operations/owner.json").write_text(json.dumps(about))
    (host / "operations/lock").touch()
    (folder / "plan.json").write_text('{"format": 1}')
    (folder / "journal.jsonl").write_text('{"event": "taken"}\n{"event": "beg')
    hold = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(host / "operations/lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout and holder.stdout.readline()
        found = look()["operation"]
        holder.kill()
    assert (found["id"], found["held"], found["owner"]["who"]) == ("7", True, "ada")
    assert found["entries"] == [{"event": "taken"}]
    assert look()["operation"]["held"] is False
    assert look(keeper=False)["operation"] is None


def test_it_answers_line_by_line_and_ends_with_its_input() -> None:
    words = [sys.executable, "-c", PROGRAM.read_text(), json.dumps(WANTED)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        first, second = (ask(process) for _ in range(2))
        assert second["monotonic"] > first["monotonic"]
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def test_it_ends_when_nobody_asks_any_more() -> None:
    words = [
        sys.executable,
        "-c",
        PROGRAM.read_text(),
        json.dumps({**WANTED, "silence_seconds": 0.2}),
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(timeout=10) == 0


def ask(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdin and process.stdout
    process.stdin.write(b"null\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found
