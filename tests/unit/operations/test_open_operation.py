"""What `site.yml` takes for an operation under way, from the keeper's own files."""

import json
from pathlib import Path

import pytest
import rendering  # noqa: F401 - makes the collection's modules importable, as Ansible does
from ansible_collections.rackhand.host.plugins.modules.survey import open_operation

OPEN = {"id": "one", "who": "ada"}
BEGIN, END = (json.dumps({"event": event}) + "\n" for event in ("begin", "end"))


@pytest.mark.parametrize(
    ("journal", "is_open"),
    [("", True), (BEGIN, True), (BEGIN + '{"event": "e', True), (BEGIN + END, False)],
    ids=["just begun", "under way", "cut by a power loss", "ended as the power went"],
)
def test_an_operation_is_open_until_its_journal_ends(
    tmp_path: Path, journal: str, is_open: bool
) -> None:
    (tmp_path / "open.json").write_text(json.dumps(OPEN))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "journal.jsonl").write_text(journal)
    assert open_operation(str(tmp_path)) == (OPEN if is_open else {})


def test_a_host_without_operations_has_none_open(tmp_path: Path) -> None:
    assert open_operation(str(tmp_path)) == {}
