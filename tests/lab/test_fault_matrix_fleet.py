"""Faults at moments on four hosts, two of them engines: no request fails that another can serve.

A cell is one test: `-k load-kill`, `-k upgrade` and the like choose some. Each writes its row of
docs/results/<date>-fault-matrix.md.
"""

from collections.abc import Callable, Iterator

import pytest
from cells import FOUR_HOSTS, Cell
from matrix import matrix_stack, run
from revisions import Revisions
from stack import Lab, Stack
from stand_in_stack import assert_site_changes_nothing

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with matrix_stack(labs, hosts=4) as made:
        yield made


@pytest.fixture(scope="module")
def revisions(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Revisions:
    return Revisions(stack, tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("cell", FOUR_HOSTS, ids=str)
def test_four_hosts_serve_on_where_a_second_instance_stands(
    stack: Stack, revisions: Revisions, cell: Cell
) -> None:
    run(stack, revisions, cell)


def test_the_inventory_and_the_hosts_agree_after_all_of_it(stack: Stack) -> None:
    assert_site_changes_nothing(stack)
