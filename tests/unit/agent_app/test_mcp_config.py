"""What of `tools.mcp` and `tools.approval` is refused before a server is reached."""

from typing import Any

import pytest
from pydantic import ValidationError

from agent_app.config import Tools


def tools(*guarded: str, **server: Any) -> Tools:
    return Tools.model_validate({"mcp": {"shop": server}, "approval": guarded})


def test_the_tools_that_need_approval_are_those_of_both_lists() -> None:
    found = tools("create_ticket", "shop__b", command=["x"], tools=["a.b", "b"], approval=["a.b"])
    assert found.need_approval == {"create_ticket", "shop__b", "shop__a_b"}


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ({"command": ["x"]}, "tools"),
        ({"command": ["x"], "tools": []}, "tools"),
        ({"tools": ["a"]}, "either command"),
        ({"command": ["x"], "url": "http://h/mcp", "tools": ["a"]}, "either command"),
        ({"command": ["x"], "headers": {"A": "tools_mcp_a"}, "tools": ["a"]}, "headers"),
        ({"url": "http://h/mcp", "env": {"A": "b"}, "tools": ["a"]}, "belong to a command"),
        ({"command": ["x"], "tools": ["a"], "approval": ["b"]}, "approval names"),
        ({"command": ["x"], "tools": ["a.b", "a_b"]}, "two tools"),
        ({"command": ["x"], "tools": ["a" * 60]}, "over 64"),
        ({"command": ["x"], "tools": ["a"], "credentials": {"P": "database_password"}}, "pattern"),
        ({"url": "http://h/mcp", "tools": ["a"], "headers": {"X": "key_secret"}}, "pattern"),
    ],
)
def test_a_server_that_could_not_work_or_would_leak_is_refused(server: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        tools(**server)


@pytest.mark.parametrize("slip", ["shop__refnd", "create_tickets", "refund"])
def test_a_slip_in_the_approval_list_is_refused_rather_than_leave_a_tool_unguarded(
    slip: str,
) -> None:
    with pytest.raises(ValidationError, match="no such tool"):
        tools(slip, command=["x"], tools=["refund"])


@pytest.mark.parametrize("name", ["Shop", "sh__op", "", "a" * 30, "-shop"])
def test_a_server_s_name_leaves_the_tool_names_unambiguous(name: str) -> None:
    with pytest.raises(ValidationError):
        Tools.model_validate({"mcp": {name: {"command": ["x"], "tools": ["a"]}}})
