"""Operations as `ops history` tells them."""

from ops.cli.operations import table


def test_an_id_stays_whole_and_a_reason_has_a_line_of_its_own() -> None:
    row = {"status": "rolled back", "by": "root@control", "seconds": 12.4, "why": ""}
    long = "20261127-120911-model-upgrade-some-long-model-name-of-forty"
    lines = table(
        [{**row, "id": long, "why": "the old one is slow"}, {**row, "id": "x", "seconds": None}]
    )
    assert lines == [
        f"{long}  rolled back     12 s  root@control",
        "    the old one is slow",
        f"{'x':<{len(long)}}  rolled back        -  root@control",
    ]
