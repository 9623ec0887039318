"""The server and the fetcher, as processes over real TLS: killed, cut, lied to, refused."""

import ast
import hashlib
import http.client
import os
import random
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from peers import ADDRESS, FILES, TOKEN, Pair, kill, last_line

from ops.weights.manifest import MANIFEST

LARGE = "model-00001.safetensors"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.fixture
def served(pair: Pair) -> Iterator[Pair]:
    with pair.server():
        yield pair


def get(pair: Pair, path: str, **headers: str) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(pair.root / "tls/ca.crt"))
    with closing(http.client.HTTPSConnection(ADDRESS, pair.port, context=context)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_a_revision_arrives_as_it_was_with_its_manifest(served: Pair) -> None:
    said = served.fetch()
    assert said["complete"]
    assert said["fetched"] == sum(map(len, FILES.values()))
    served.assert_arrived()
    assert served.fetch() == {"have": 0, "of": 0, "fetched": 0, "complete": True}


def test_what_an_earlier_run_brought_is_not_fetched_again(served: Pair) -> None:
    part = served.staging / LARGE
    part.parent.mkdir()
    part.write_bytes(FILES[LARGE][:1_000_000])
    shutil.copy(served.source / "model-00002.safetensors", served.staging)
    (served.staging / "left by another source").touch()
    said = served.fetch()
    assert said["fetched"] == sum(map(len, FILES.values())) - 4_000_000
    served.assert_arrived()


@pytest.mark.parametrize("size", [1_000, len(FILES[LARGE]), len(FILES[LARGE]) + 1])
def test_a_staged_file_that_is_wrong_comes_anew(served: Pair, size: int) -> None:
    served.staging.mkdir()
    (served.staging / LARGE).write_bytes(b"\xff" * size)
    assert served.fetch()["complete"]
    served.assert_arrived()


def test_a_fetcher_killed_at_any_instant_is_followed_by_another(pair: Pair) -> None:
    chance = random.Random(7)
    with pair.server():
        for _ in range(8):
            fetcher = pair.start_fetcher()
            time.sleep(chance.uniform(0.05, 0.4))
            kill(fetcher)
            assert not pair.target.exists() or not pair.staging.exists()
        assert pair.fetch()["complete"]
    pair.assert_arrived()


def test_a_server_killed_at_any_instant_and_started_again_only_delays(pair: Pair) -> None:
    chance = random.Random(7)
    fetcher = pair.start_fetcher(pause=0.3)
    for _ in range(4):
        server = pair.start_server()
        time.sleep(chance.uniform(0.0, 0.1))
        kill(server)
    with pair.server():
        said = last_line(fetcher)
    assert said["complete"], said
    pair.assert_arrived()


def test_a_line_that_is_cut_again_and_again_only_delays(pair: Pair) -> None:
    relay = Relay(pair, cut_after=700_000)
    with pair.server():
        said = pair.fetch(port=relay.port)
    assert said["complete"], said
    assert relay.connections > 10
    assert said["fetched"] == sum(map(len, FILES.values()))
    pair.assert_arrived()


def test_a_server_that_comes_back_is_gone_on_with(pair: Pair) -> None:
    fetcher = pair.start_fetcher(pause=1.0)
    time.sleep(0.5)
    with pair.server():
        said = last_line(fetcher)
    assert said["complete"], said


def test_a_server_that_stays_away_ends_it_within_a_bound(pair: Pair) -> None:
    assert "does not answer" in pair.fetch()["refused"]
    assert not pair.target.exists()


def test_a_wrong_token_gets_nothing_and_is_not_tried_again(served: Pair) -> None:
    said = served.fetch(token="b" * 64)
    assert "does not let us have" in said["refused"]
    assert not served.target.exists()
    for path in (f"/{MANIFEST}", f"//{MANIFEST}", f"/{'b' * 64}/{MANIFEST}", f"/{TOKEN}", "/"):
        assert get(served, path) == (404, b"")


@pytest.mark.parametrize("name", ["../../tls/ca.key", "..%2F..%2Ftls%2Fca.key", "/etc/passwd", "."])
def test_nothing_but_the_files_of_the_manifest_is_handed_out(served: Pair, name: str) -> None:
    assert get(served, f"/{TOKEN}/{name}") == (404, b"")


def test_the_rest_of_a_file_is_handed_out_from_any_place(served: Pair) -> None:
    status, rest = get(served, f"/{TOKEN}/{LARGE}", Range="bytes=9999999-")
    assert (status, rest) == (206, FILES[LARGE][9_999_999:])
    assert get(served, f"/{TOKEN}/{LARGE}", Range="bytes=99999999-")[0] == 416


def test_a_host_that_is_no_peer_is_not_even_greeted(pair: Pair) -> None:
    with pair.server(allowed=["10.0.0.9"]), pytest.raises((ssl.SSLError, OSError)):
        get(pair, f"/{TOKEN}/{MANIFEST}")


def test_a_server_of_another_fleet_is_not_trusted(served: Pair, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Pair(tmp_path / "other")
    said = served.fetch(ca_file=str(other.root / "tls/ca.crt"))
    assert "is not who it should be" in said["refused"]


def test_weights_that_are_corrupted_at_their_source_are_refused_by_name(served: Pair) -> None:
    path = served.source / LARGE
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(5_000_000)
        stream.write(b"XXXX")
    said = served.fetch()
    assert f"{LARGE} of {ADDRESS}:{served.port} is not what its manifest says" in said["refused"]
    assert not served.target.exists()
    path.write_bytes(FILES[LARGE])
    assert served.fetch()["complete"]
    served.assert_arrived()


@pytest.mark.parametrize("what", ["vanished", "truncated"])
def test_a_file_that_the_other_host_lost_ends_it_at_once(served: Pair, what: str) -> None:
    path = served.source / LARGE
    if what == "vanished":
        path.unlink()
    else:
        os.truncate(path, 1_000)
    began = time.monotonic()
    assert f"has lost {LARGE}" in served.fetch(pause=1.0)["refused"]
    assert time.monotonic() - began < 10


def test_a_manifest_other_than_the_one_told_over_ssh_is_refused(served: Pair) -> None:
    said = served.fetch(digest=hashlib.sha256(b"other").hexdigest())
    assert "another manifest than it told" in said["refused"]
    assert not any(served.staging.iterdir())


def test_an_operator_who_is_gone_ends_the_fetcher(pair: Pair) -> None:
    fetcher = pair.start_fetcher(pause=1.0)  # no server: it would try for a while
    assert fetcher.stdin is not None
    fetcher.stdin.close()
    assert fetcher.wait(10) == 3


def test_two_fetchers_of_one_revision_take_turns(served: Pair) -> None:
    both = [served.start_fetcher() for _ in range(2)]
    assert all(last_line(fetcher)["complete"] for fetcher in both)
    served.assert_arrived()


def test_a_server_that_nobody_asks_ends_by_itself(pair: Pair) -> None:
    assert pair.start_server(idle_seconds=0.5).wait(10) == 0
    assert pair.start_server(deadline=time.time() + 0.5).wait(10) == 0


def test_the_token_stands_in_no_list_of_arguments_and_in_no_log(pair: Pair) -> None:
    process = pair.start_server()
    fetcher = pair.start_fetcher()
    for one in (process, fetcher):
        assert TOKEN.encode() not in Path(f"/proc/{one.pid}/cmdline").read_bytes()
        assert TOKEN.encode() not in Path(f"/proc/{one.pid}/environ").read_bytes()
    assert last_line(fetcher)["complete"]
    get(pair, "/" + "c" * 64)
    kill(process)
    assert process.stdout is not None
    log = process.stdout.read()
    assert "127.0.0.1: 404" in log
    assert TOKEN not in log


def test_a_disk_that_the_rest_does_not_fit_on_is_refused_before_a_byte_moves(
    served: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops.weights import fetch_program

    values = {
        "host": ADDRESS, "port": served.port, "path": str(served.target), "token": TOKEN,
        "digest": served.digest, "ca_file": str(served.root / "tls/ca.crt"), "pause": 0.01,
    }  # fmt: skip
    monkeypatch.setattr(fetch_program, "SPARE_BYTES", 1 << 60)
    with pytest.raises(fetch_program.Refused, match="GiB free and what is missing takes"):
        fetch_program.Fetcher(values).run()
    assert not any(served.staging.iterdir())


class Relay:
    """A line that is cut after so many bytes, each time."""

    def __init__(self, pair: Pair, cut_after: int) -> None:
        self.pair, self.cut_after, self.connections = pair, cut_after, 0
        self.listener = socket.create_server((ADDRESS, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            near, _ = self.listener.accept()
            self.connections += 1
            far = socket.create_connection((ADDRESS, self.pair.port))
            threading.Thread(target=self.pump, args=(near, far, 1 << 40), daemon=True).start()
            threading.Thread(
                target=self.pump, args=(far, near, self.cut_after), daemon=True
            ).start()

    def pump(self, source: socket.socket, sink: socket.socket, left: int) -> None:
        try:
            while left > 0 and (data := source.recv(min(left, 1 << 16))):
                sink.sendall(data)
                left -= len(data)
        except OSError:
            pass
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def test_the_program_runs_on_the_oldest_python_that_hosts_have() -> None:
    """Ubuntu 22.04 has 3.10: nothing newer in what is sent there."""
    newest = ("file_digest", "datetime.UTC", "StrEnum", "tomllib", "except*")
    folder = Path(__file__).parents[3] / "ops/weights"
    for name in ("fetch_program.py", "serve_program.py", "shelf_program.py", "manifest.py"):
        text = (folder / name).read_text()
        assert not [word for word in newest if word in text]
        ast.parse(text, feature_version=(3, 10))
