"""Each strategy on real vLLM, with the demo model, under light traffic.

Each test writes its part of docs/results/<date>-real-engine-upgrade.md.
"""

from collections.abc import Callable, Iterator

import pytest
from operators import Said, ops_told
from results import add_to_result
from revisions import Revisions, fact
from stack import Lab, Stack, run_site
from stand_in_stack import assert_site_changes_nothing
from traffic import Traffic, figures, traffic

from ops.demo.prepare import ensure_key
from ops.lab.fleet_plan import require_plan

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1200)]

CLIENTS, PAUSE = 2, 0.5
"""Light: on two cores whatever is answered takes from the engine that loads."""
QUIET = 30
HEADINGS = (
    "strategy", "while", "took", "of it loading", "requests", "failed", "cut", "abort",
    "first token, median", "first token, p99",
)  # fmt: skip
THERE = {
    "blue-green": ("--strategy", "blue-green", "--shift", "10,50,100", "--stage-seconds", "10"),
    "swap": ("--strategy", "swap"),
}
BACK = {"blue-green": (), "swap": ("--strategy", "swap")}


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    made = Stack(labs(1, "bookworm", purpose="real"))
    all_vars = made.lab.inventory / "group_vars/all.yml"
    before = all_vars.read_text()
    try:
        first = run_site(made.lab, "-e", "engine_accept_restart=true")
        assert first.status == 0, first.output[-6000:]
        made.key = ensure_key(made.fleet, require_plan(made.lab.name).paths.root / "test_key")
        made.wait_until_ready()
        yield made
    finally:
        all_vars.write_text(before)


@pytest.fixture(scope="module")
def revisions(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Revisions:
    return Revisions(stack, tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("way", THERE)
def test_upgrade_and_rollback_fail_no_request(stack: Stack, revisions: Revisions, way: str) -> None:
    before = fact(stack)
    took: dict[str, Said] = {}
    with traffic(stack, clients=CLIENTS, pause=PAUSE) as running:
        running.mark("before")
        running.wait_for(QUIET)
        running.mark("upgrade")
        took["upgrade"] = ops_told(stack, "model", "upgrade", *revisions.next(*THERE[way]))
        moved = fact(stack)
        running.mark("between")
        running.wait_for(QUIET)
        running.mark("rollback")
        took["rollback"] = ops_told(stack, "model", "rollback", "demo", "--yes", *BACK[way])
        running.mark("after")
        running.wait_for(QUIET)
    write(way, running, took)
    assert moved["revision"] != before["revision"]
    assert fact(stack)["revision"] == before["revision"]
    whole = figures(running.answers)
    assert (whole.failed, whole.cut, whole.aborted) == (0, 0, 0), running.told()
    assert_site_changes_nothing(stack)


def write(way: str, running: Traffic, took: dict[str, Said]) -> None:
    phases = {what: running.after(what) for _, what in running.marks}
    phases["all of it"] = running.answers
    rows = []
    for what, answers in phases.items():
        found, said = figures(answers), took.get(what)
        loading = said.seconds().get("engine.start", 0.0) if said else 0.0
        rows.append(
            (
                way,
                what,
                f"{said.took:.1f} s" if said else "",
                f"{loading:.1f} s" if said else "",
                str(found.requests),
                str(found.failed),
                str(found.cut),
                str(found.aborted),
                f"{found.median * 1000:.0f} ms",
                f"{found.p99 * 1000:.0f} ms",
            )
        )
    add_to_result(
        "real-engine-upgrade",
        "Models moved on real vLLM",
        HEADINGS,
        rows,
        f"vLLM on CPUs with the demo model, one host, {CLIENTS} clients through the edge, every "
        "other request streams. The rollback after blue-green finds its engine still running; the "
        "one after a swap is a swap as well. Two engines, clients "
        "and the operator share the cores, so that a load slows what serves beside it.",
    )
