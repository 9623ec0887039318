"""Approval of tool calls by a person, and what a call was about to do before it did it."""

from alembic import op

revision = "0006"
down_revision = "0005"

UP = """
ALTER TABLE app.runs DROP CONSTRAINT runs_status_check;

ALTER TABLE app.runs ADD CONSTRAINT runs_status_check CHECK (
    status IN ('running', 'interrupted', 'waiting', 'done', 'failed', 'abandoned'));

ALTER TABLE app.tool_effects
    ALTER COLUMN result DROP NOT NULL,
    ADD COLUMN ok boolean NOT NULL DEFAULT true;

CREATE TABLE app.approvals (
    run_id uuid NOT NULL REFERENCES app.runs (id) ON DELETE CASCADE,
    call_id text NOT NULL,
    thread_id uuid NOT NULL REFERENCES app.threads (id) ON DELETE CASCADE,
    tool text NOT NULL,
    arguments text NOT NULL,
    digest text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    decision text CHECK (decision IN ('approve', 'deny')),
    note text NOT NULL DEFAULT '',
    decided_by uuid REFERENCES app.api_keys (id) ON DELETE SET NULL,
    decided_at timestamptz,
    PRIMARY KEY (run_id, call_id)
);
CREATE INDEX approvals_thread ON app.approvals (thread_id, requested_at);
CREATE INDEX approvals_open ON app.approvals (requested_at) WHERE decision IS NULL;
"""


def upgrade() -> None:
    """Create the table, the status and the column."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: decisions would be lost."""
    raise NotImplementedError("0006 holds decisions of people; restore a backup instead")
