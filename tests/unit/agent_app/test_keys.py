import pytest

from agent_app.access.keys import Digester, make_key
from agent_app.api.middleware import is_correlation_id
from agent_app.errors import ConfigError


def test_keys_are_random_and_digests_depend_on_the_secret() -> None:
    key = make_key()
    assert key.startswith("rh_")
    assert key != make_key()
    one, other = Digester("a" * 16), Digester("b" * 16)
    assert one.digest(key) == one.digest(key) != other.digest(key)
    with pytest.raises(ConfigError, match="key_secret"):
        Digester("short")


@pytest.mark.parametrize(
    ("text", "good"),
    [("0123456789abcdef", True), ("edge-1.2_3", True), ("short", False), ("a" * 65, False),
     ("bad id with spaces", False), ("new\nline-here", False), ("ünïcödé-id", False)],
)  # fmt: skip
def test_request_ids_are_checked(text: str, good: bool) -> None:
    assert is_correlation_id(text) is good
