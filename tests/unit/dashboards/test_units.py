"""How values are written for people."""

import math

import pytest

from ops.dashboards import unit


@pytest.mark.parametrize(
    ("one", "value", "text"),
    [
        (unit.SHARE, 0.0, "0 %"),
        (unit.SHARE, 0.00001, "< 0.01 %"),
        (unit.SHARE, 0.99999, "> 99.99 %"),
        (unit.SHARE, 1.0, "100 %"),
        (unit.SHARE, 0.123, "12.3 %"),
        (unit.BYTES, 80 * 2**30, "80 GiB"),
        (unit.BYTES, 0.0, "0 B"),
        (unit.BYTES_PER_SECOND, 1536.0, "1.5 KiB/s"),
        (unit.SECONDS, 0.0, "0 s"),
        (unit.SECONDS, 0.0042, "4.2 ms"),
        (unit.SECONDS, 0.00002, "20 µs"),
        (unit.SECONDS, 5400.0, "1.5 h"),
        (unit.SECONDS, 59.0, "59 s"),
        (unit.HERTZ, 1.98e9, "1.98 GHz"),
        (unit.WATTS, 690.0, "690 W"),
        (unit.COUNT, 471238.9, "471k"),
        (unit.COUNT, 999.6, "1000"),
        (unit.COUNT, 0.05, "0.05"),
        (unit.MONEY, 1234.5, "1,234.50"),
        (unit.UP, 0.0, "down"),
        (unit.COUNT, math.nan, "-"),
        (unit.COUNT, None, "-"),
    ],
)
def test_a_value_is_written_with_its_unit(one: unit.Unit, value: float | None, text: str) -> None:
    assert one.text(value) == text
