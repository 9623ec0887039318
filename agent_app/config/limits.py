"""Bounds."""

from pydantic import Field

from agent_app.config.section import Section


class Limits(Section):
    """Bounds on what one turn, one session and one process may use."""

    steps: int = Field(default=8, ge=1)
    """Calls of the model in one turn."""
    identical_calls: int = Field(default=2, ge=1)
    """Calls of one tool with the same arguments in one turn."""
    calls_per_step: int = Field(default=8, ge=1)
    """Tool calls in one answer of the model."""
    turn_seconds: float = Field(default=300, gt=0)
    """Wall clock of one turn, waiting for an engine included."""
    turn_engine_seconds: float = Field(default=240, gt=0)
    """Wall clock of one turn's requests in engines, over all its steps and attempts."""
    turn_tokens: int = Field(default=32_000, ge=1)
    """Prompt and answer tokens of one turn, over all its steps."""
    session_tokens: int = Field(default=400_000, ge=1)
    """Prompt and answer tokens of one thread, over all its turns."""
    tool_seconds: float = Field(default=15, gt=0)
    """Wall clock of one tool call."""
    engine_wait_seconds: float = Field(default=120, ge=0)
    """How long one step holds on while engines fail or restart."""
    queue_seconds: float = Field(default=60, gt=0)
    """How long one step waits for its turn while the engines are full.

    Far below turn_seconds, so that an answer has time left, and below what a client waits for.
    """
    queue_length: int = Field(default=512, ge=0)
    """Most steps that wait for one model, over all processes.

    About what 128 places serve in queue_seconds where an answer takes 15 s: who comes later
    would wait in vain.
    """
    engine_attempts: int = Field(default=12, ge=1)
    """Attempts of one step that an engine took on and failed (5xx, abort, cut)."""
    engine_silence_seconds: float = Field(default=60, gt=0)
    """Longest silence of an engine within an answer before it counts as failed."""
    retractions: int = Field(default=3, ge=0)
    """Partial answers withdrawn, or gone on with elsewhere, in one step before it is given up."""
    reconnect_seconds: float = Field(default=0.5, ge=0, le=60)
    """How long a run whose stream broke waits for its client before it is stopped."""
    runs: int = Field(default=256, ge=1)
    """Runs held by one process at a time."""
    drain_seconds: float = Field(default=30, ge=0)
    """How long SIGTERM lets streams finish before it says goodbye to them."""
    lease_seconds: float = Field(default=15, gt=1)
    """A run whose process gave no sign for so long counts as interrupted."""
    body_bytes: int = Field(default=1_000_000, ge=1024)
    """Largest request body."""
    key_requests_per_minute: int = Field(default=0, ge=0)
    """Of a key without a limit of its own; 0 is none. So are the next five."""
    key_tokens_per_minute: int = Field(default=0, ge=0)
    key_concurrent_runs: int = Field(default=0, ge=0)
    key_budget_soft: int = Field(default=0, ge=0)
    """Tokens of a calendar month, in UTC; beyond it the log and a metric say so."""
    key_budget_medium: int = Field(default=0, ge=0)
    """Beyond it answers carry X-Budget too."""
    key_budget_hard: int = Field(default=0, ge=0)
    """Beyond it runs are refused."""
    key_queued_jobs: int = Field(default=100, ge=0)
    """Jobs of one key that wait for their turn; 0 is no bound."""
    key_weight: int = Field(default=1, ge=1, le=1000)
    """A key's share of full engines, beside those of others."""
    ready_probe_seconds: float = Field(default=10, gt=0)
    """/ready asks an engine for a real token at most this often."""
