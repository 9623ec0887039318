"""What a repository can bring back, read from pgBackRest's own answer."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ops.backup.listing import Listing, stated
from ops.errors import InputError, OpsError

INFO: list[dict[str, Any]] = json.loads((Path(__file__).parent / "info.json").read_text())
NOW = datetime(2026, 11, 26, 20, 0, tzinfo=UTC)


def listing() -> Listing:
    return Listing.parse(INFO)


def test_backups_are_read_oldest_first_without_those_that_failed() -> None:
    found = listing()
    assert [(one.kind, one.label) for one in found.backups] == [
        ("full", "20261126-192244F"),
        ("diff", "20261126-192244F_20261126-193100D"),
    ]
    assert found.backups[0].cluster_bytes == 37563249
    assert found.backups[0].system == 7712562553943787821
    assert found.archived == "000000010000000000000003"


def test_no_stanza_and_no_backup_are_an_empty_listing_that_says_so() -> None:
    for answer in ([], [{"backup": [], "archive": [], "db": []}]):
        with pytest.raises(OpsError, match="has no backup"):
            assert Listing.parse(answer).earliest


def test_a_moment_begins_at_the_newest_backup_that_ended_before_it() -> None:
    found = listing()
    between = found.backups[0].ended + timedelta(seconds=1)
    assert found.before(between, NOW) == found.backups[0]
    assert found.before(NOW, NOW) == found.backups[1]


HISTORY = "1\t0/3000200\tbefore 2026-11-26\n\n2\t0/5000000\tno recovery target specified\n"


def test_the_newest_backup_that_leads_on_is_taken_not_one_of_a_cluster_that_was_given_up() -> None:
    """The second of them ended at 0/6000100, after timeline 3 had left timeline 1."""
    info = json.loads(json.dumps(INFO))
    info[0]["backup"][1]["lsn"] = {"stop": "0/6000100"}
    found = Listing.parse(info, 3, HISTORY)
    assert [found.leads_to_now(one) for one in found.backups] == [True, False]
    assert found.newest() == found.backups[0]
    assert found.before(NOW, NOW) == found.backups[0]


def test_a_backup_of_a_timeline_that_no_history_knows_leads_nowhere() -> None:
    info = json.loads(json.dumps(INFO))
    for entry in info[0]["backup"]:
        entry["archive"]["stop"] = "0000000400000000000000AA"
    with pytest.raises(OpsError, match="given up again") as refused:
        Listing.parse(info, 5, HISTORY).newest()
    assert "--backup LABEL" in refused.value.cure


def test_without_positions_the_end_of_a_backup_is_known_by_its_segment() -> None:
    info = json.loads(json.dumps(INFO))
    for entry in info[0]["backup"]:
        entry.pop("lsn", None)
        entry["archive"]["stop"] = "00000001000000020000000A"
    assert Listing.parse(info).backups[0].end == (2 << 32) + (10 << 24)


def test_a_moment_in_another_zone_is_the_same_moment() -> None:
    found = listing()
    moment = found.backups[1].ended.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert found.before(moment, NOW) == found.backups[1]


def test_a_moment_before_the_oldest_backup_is_refused_with_the_window() -> None:
    found = listing()
    with pytest.raises(InputError, match="before the end of the oldest backup") as refused:
        found.before(found.earliest - timedelta(seconds=1), NOW)
    assert stated(found.earliest) in refused.value.cure
    assert stated(NOW) in refused.value.cure


def test_a_moment_in_the_future_is_refused_with_the_window() -> None:
    with pytest.raises(InputError, match="lies in the future") as refused:
        listing().before(NOW + timedelta(seconds=1), NOW)
    assert "2026-11-26 20:00:00 UTC" in refused.value.cure


def test_an_unknown_backup_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="there is no backup X") as refused:
        listing().backup("X")
    assert "20261126-192244F" in refused.value.cure


def test_a_moment_is_told_with_its_zone() -> None:
    east = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert stated(east) == "2026-01-02 03:04:05 +0200"
