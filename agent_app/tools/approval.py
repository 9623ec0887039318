"""Which calls a person must approve, and what became of each."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

import structlog

from agent_app.config import ApprovalRules
from agent_app.state.approvals import Approvals, Request
from agent_app.state.audit import Audit
from agent_app.tools.toolbox import CallContext, Prepared

log = structlog.get_logger(__name__)

NO_THREAD = (
    "error: this tool runs only when a person has approved the call, and this request keeps no"
    " thread in which to wait for one. Tell the user to ask within a thread."
)
CHANGED = (
    "error: the tool or the arguments are not those that were shown to a person, so the call was"
    " not made. Ask anew if it is still wanted."
)


@dataclass(frozen=True, slots=True)
class Granted:
    """The call may run."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not; the text tells the model."""

    text: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Nobody has decided yet."""

    arguments: str
    expires_at: datetime


Verdict = Granted | Refused | Pending


class ApprovalDesk:
    """Asks people, once per call, and says what they decided.

    Args:
        names: Tools whose calls need it.
        rules: Until when one may decide.
        approvals: Where requests and decisions are.
        audit: Told of every request and of every call that is not what was approved.
    """

    def __init__(
        self, names: frozenset[str], rules: ApprovalRules, approvals: Approvals, audit: Audit
    ) -> None:
        self._names = names
        self._rules = rules
        self._approvals = approvals
        self._audit = audit

    def needed(self, tool: str) -> bool:
        """Return whether a person must approve calls of the tool of this name."""
        return tool in self._names

    async def look(self, call: Prepared, context: CallContext) -> Verdict:
        """Return what was decided about a call; the first look writes the request down."""
        if not self.needed(call.tool.name):
            return Granted()
        if context.thread_id is None:
            return Refused(NO_THREAD)
        digest = make_digest(call)
        request, new = await self._approvals.ask(
            context.run_id,
            context.call_id,
            context.thread_id,
            tool=call.tool.name,
            arguments=call.text,
            digest=digest,
            expire_seconds=self._rules.expire_seconds,
        )
        if new:
            await self._note("approval.request", request)
        if request.status == "approved" and request.digest != digest:
            log.warning("approved_call_changed", tool=request.tool, call=request.call_id)
            await self._note("approval.mismatch", request)
            return Refused(CHANGED)
        return self._verdict(request)

    def _verdict(self, request: Request) -> Verdict:
        if request.status == "pending":
            return Pending(request.arguments, request.expires_at)
        if request.status == "approved":
            return Granted()
        if request.status == "denied":
            said = f" and said: {request.note}" if request.note else ""
            return Refused(f"error: a person denied this call{said}. Do not try it again.")
        return Refused(
            "error: nobody approved this call within"
            f" {self._rules.expire_seconds:g} s, so it was not made."
        )

    async def _note(self, kind: str, request: Request) -> None:
        await self._audit.record(
            kind,
            thread_id=request.thread_id,
            run_id=request.run_id,
            details={"tool": request.tool, "call": request.call_id, "digest": request.digest},
        )


def make_digest(call: Prepared) -> str:
    """Return a name for the call with all that a person judges it by: tool, schema, arguments."""
    whole = json.dumps([call.tool.name, call.tool.schema, call.text], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()
