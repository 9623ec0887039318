"""Approval of tool calls by a person."""

from typing import Literal

from pydantic import Field

from agent_app.config.section import Section


class ApprovalRules(Section):
    """Who may approve a call, and until when."""

    by: Literal["key", "scope"] = "key"
    """`key`: the thread's own key, or any key with the scope `approve`; `scope`: only the latter,
    so that an agent's own key cannot approve what that agent asks for."""
    expire_seconds: float = Field(default=86_400, gt=0)
    """A call that nobody decided on for so long counts as denied."""
