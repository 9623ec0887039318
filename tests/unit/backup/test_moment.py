"""Moments as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ops.backup.moment import for_postgres, parse_moment
from ops.errors import InputError

EAST = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    "text",
    ["2026-03-01T14:05:00+01:00", "2026-03-01 13:05:00Z", "2026-03-01 14:05", "20260301T140500"],
)
def test_the_same_moment_is_read_however_it_is_written(text: str) -> None:
    assert parse_moment(text, EAST) == datetime(2026, 3, 1, 13, 5, tzinfo=UTC)


def test_one_without_a_zone_is_of_this_machine() -> None:
    moment = parse_moment("2026-03-01 14:05")
    assert moment.tzinfo is not None
    assert moment == datetime(2026, 3, 1, 14, 5).astimezone()


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01 00:00", "", "2026-03-01"])
def test_what_is_no_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_moment(text)
    assert "--to 2026-03-01T14:05" in refused.value.cure


def test_postgres_gets_the_offset_whatever_its_own_zone() -> None:
    moment = datetime(2026, 3, 1, 14, 5, 6, 789, tzinfo=EAST)
    assert for_postgres(moment) == "2026-03-01 14:05:06.000789+01:00"
