import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from answers import FLEET, answer

from ops.errors import RemoteError
from ops.fleet.model import Host
from ops.live.watch import Watch, wanted


class Fake:
    """A line to a host; `speak` is asked each time."""

    def __init__(self, host: str, speak: Callable[[str], Any]) -> None:
        self.host = host
        self.speak = speak
        self.closed = False

    def ask(self, _request: Any = None) -> Any:
        return self.speak(self.host)

    def close(self) -> None:
        self.closed = True


@contextmanager
def watch(speak: Callable[[str], Any]) -> Iterator[tuple[Watch, list[Fake]]]:
    lines: list[Fake] = []

    def opened(host: Host) -> Fake:
        lines.append(Fake(host.name, speak))
        return lines[-1]

    found = Watch(FLEET, traffic=True, opened=opened)
    try:
        yield found, lines
    finally:
        found.close()


def test_all_hosts_are_asked_at_once_and_told_in_the_inventorys_order() -> None:
    together = threading.Barrier(len(FLEET.hosts), timeout=5)

    def speak(host: str) -> Any:
        together.wait()
        return answer(host)

    with watch(speak) as (looking, lines):
        look = looking.refresh()
        assert [state.host for state in look.hosts] == [host.name for host in FLEET.hosts]
        assert look.well
        assert look.operation is not None
        looking.refresh()
        assert len(lines) == len(FLEET.hosts), "connections stay open between refreshes"


def test_a_host_that_fails_is_a_row_and_is_asked_anew_over_a_new_line() -> None:
    broken = {"gpu1"}

    def speak(host: str) -> Any:
        if host in broken:
            raise RemoteError("gpu1 cannot be reached over SSH: refused")
        return answer(host)

    with watch(speak) as (looking, lines):
        look = looking.refresh()
        assert [state.problem for state in look.hosts if not state.well] == [
            "gpu1 cannot be reached over SSH: refused"
        ]
        assert [line.closed for line in lines if line.host == "gpu1"] == [True]
        broken.clear()
        deadline = time.monotonic() + 5
        while not looking.refresh().well:
            assert time.monotonic() < deadline


def test_a_host_that_hangs_holds_up_one_refresh_and_no_further_one() -> None:
    hangs = threading.Event()

    def speak(host: str) -> Any:
        if host == "gpu2":
            hangs.wait(5)
        return answer(host)

    with watch(speak) as (looking, _):
        began = time.monotonic()
        look = looking.refresh(patience=0.3)
        assert [state.host for state in look.hosts if state.problem] == ["gpu2"]
        assert look.hosts[2].problem.startswith("no answer for")
        looking.refresh(patience=3)
        assert time.monotonic() - began < 2
        hangs.set()
        deadline = time.monotonic() + 5
        while not looking.refresh().well:
            assert time.monotonic() < deadline


def test_an_answer_that_cannot_be_read_is_a_problem_of_that_host_alone() -> None:
    with watch(lambda host: {} if host == "edge1" else answer(host)) as (looking, _):
        look = looking.refresh()
        assert "cannot be read" in look.hosts[0].problem
        assert look.hosts[1].well


def test_the_first_host_of_data_is_asked_for_operations_and_engines_by_their_ports() -> None:
    asked = {host.name: wanted(FLEET, host, traffic=True, every=2.0) for host in FLEET.hosts}
    assert [name for name, words in asked.items() if words["keeper"]] == ["data1"]
    assert asked["gpu1"]["ports"] == {"assistant": {"blue": 8100, "green": 8101}}
    assert asked["edge1"]["address"] == "10.0.0.10"
    assert wanted(FLEET, FLEET.hosts[0], traffic=True, every=60.0)["silence_seconds"] == 180
