"""Tickets, the outbox of their webhooks, and the sources of tool results."""

from alembic import op

revision = "0002"
down_revision = "0001"

UP = """
ALTER TABLE app.tool_effects ADD COLUMN sources jsonb NOT NULL DEFAULT '[]';

CREATE TABLE app.tickets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    tool_call_id text NOT NULL,
    thread_id uuid,
    title text NOT NULL,
    body text NOT NULL,
    priority text NOT NULL CHECK (priority IN ('low', 'normal', 'high')),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (run_id, tool_call_id)
);
CREATE INDEX tickets_thread ON app.tickets (thread_id);

CREATE TABLE app.webhook_outbox (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    ticket_id bigint NOT NULL UNIQUE REFERENCES app.tickets (id) ON DELETE CASCADE,
    body text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    delivered_at timestamptz,
    given_up_at timestamptz
);
CREATE INDEX webhook_outbox_due ON app.webhook_outbox (next_at)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;
"""


def upgrade() -> None:
    """Create the tables."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: tickets would be lost."""
    raise NotImplementedError("0002 holds tickets; restore a backup instead")
