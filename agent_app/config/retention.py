"""How long data is kept."""

from pydantic import Field, field_validator

from agent_app.config.section import Section

LEAST_AUDIT_DAYS = 30
"""The database itself refuses to remove younger entries of the audit."""


class Retention(Section):
    """Ages beyond which `agent-app retention run` deletes; 0 keeps for ever."""

    threads_days: int = Field(default=0, ge=0)
    """Since a thread's last run. 0, as only the operator knows how long customers' talk is due."""
    runs_days: int = Field(default=90, ge=0)
    """Of finished runs between a thread's first and last: their messages are in the thread."""
    effects_days: int = Field(default=30, ge=0)
    """Of tool results whose run cannot be resumed any more: nothing reads them."""
    webhooks_days: int = Field(default=30, ge=0)
    """Of deliveries that arrived or were given up."""
    usage_months: int = Field(default=25, ge=0)
    """Two years to compare, and the month under way."""
    audit_days: int = Field(default=400, ge=0)
    """A year, and a month to look into it."""

    @field_validator("audit_days")
    @classmethod
    def _long_enough(cls, days: int) -> int:
        if 0 < days < LEAST_AUDIT_DAYS:
            raise ValueError(f"must be 0 or at least {LEAST_AUDIT_DAYS}")
        return days
