"""Faults at moments, on one host and on four: what clients lose, and that all heals by itself.

On four hosts, two of them engines, no request fails that another can serve. A cell is one test:
`-k one_host`, `-k load-kill`, `-k upgrade` and the like choose some. Each writes its row of
docs/results/<date>-fault-matrix.md.
"""

from collections.abc import Callable, Iterator

import pytest
from cells import FOUR_HOSTS, ONE_HOST, Cell
from matrix import matrix_stack, run
from revisions import Revisions
from stack import Lab, Stack
from stand_in_stack import assert_site_changes_nothing

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

SIZES = {1: "one_host", 4: "four_hosts"}


@pytest.fixture(scope="module", params=SIZES, ids=SIZES.values())
def stack(labs: Callable[..., Lab], request: pytest.FixtureRequest) -> Iterator[Stack]:
    with matrix_stack(labs, hosts=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def revisions(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Revisions:
    return Revisions(stack, tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize(
    ("stack", "cell"),
    [
        pytest.param(size, cell, id=f"{SIZES[size]}-{cell}")
        for size, cells in ((1, ONE_HOST), (4, FOUR_HOSTS))
        for cell in cells
    ],
    indirect=["stack"],
    scope="module",
)
def test_all_heals_and_what_was_acknowledged_is_kept(
    stack: Stack, revisions: Revisions, cell: Cell
) -> None:
    run(stack, revisions, cell)


def test_the_inventory_and_the_hosts_agree_after_all_of_it(stack: Stack) -> None:
    assert_site_changes_nothing(stack)
