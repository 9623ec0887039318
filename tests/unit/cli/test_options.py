import pytest

from ops.cli.options import parse_limit
from ops.errors import InputError


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ()), ("gpu1", ("gpu1",)), (" gpu1, gpu2,", ("gpu1", "gpu2"))],
)
def test_a_limit_names_hosts(text: str, names: tuple[str, ...]) -> None:
    assert parse_limit(text) == names


@pytest.mark.parametrize("text", [",", " ", " , ,"])
def test_a_limit_that_names_no_host_is_never_taken_for_all(text: str) -> None:
    with pytest.raises(InputError, match="names no host"):
        parse_limit(text)
