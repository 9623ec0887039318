from pathlib import Path

import pytest

from ops.errors import OpsError
from ops.fleet.desired import write_variables

ALL = """\
# What a person wrote.
---
domain: agent.example.com  # the edge's name
nvidia_driver_branch: "580"   # LTS
secret: !vault |
  $ANSIBLE_VAULT;1.1;AES256
  6162
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text(ALL)
    return tmp_path


def test_a_value_changes_where_it_stands_and_comments_stay(inventory: Path) -> None:
    changed = write_variables(inventory, "gpu", {"nvidia_driver_branch": "595"})
    assert changed == [inventory / "group_vars/all.yml"]
    assert changed[0].read_text() == ALL.replace('"580"', '"595"')


def test_a_new_variable_goes_into_the_groups_own_file(inventory: Path) -> None:
    changed = write_variables(inventory, "gpu", {"nvidia_driver_version": "595.91.07"})
    assert changed == [inventory / "group_vars/gpu.yml"]
    assert changed[0].read_text() == "---\nnvidia_driver_version: 595.91.07\n"
    assert (inventory / "group_vars/all.yml").read_text() == ALL


def test_what_is_already_wanted_changes_nothing(inventory: Path) -> None:
    assert write_variables(inventory, "gpu", {"nvidia_driver_branch": "580"}) == []


def test_a_variable_in_two_files_is_left_to_the_person(inventory: Path) -> None:
    (inventory / "host_vars").mkdir()
    (inventory / "host_vars/a.yml").write_text("nvidia_driver_branch: '570'\n")
    with pytest.raises(OpsError, match="several files") as problem:
        write_variables(inventory, "gpu", {"nvidia_driver_branch": "595"})
    assert "host_vars/a.yml" in problem.value.place
    assert (inventory / "group_vars/all.yml").read_text() == ALL
