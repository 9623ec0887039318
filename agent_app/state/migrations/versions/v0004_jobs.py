"""Jobs, whose turn it is, and one outbox for the webhooks of tickets and jobs.

The tickets' outbox becomes the one for all by its name; under the old name stays a view, through
which processes of the release before go on until they are replaced.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

UP = """
CREATE TABLE app.jobs (
    id uuid PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    key_id uuid NOT NULL REFERENCES app.api_keys (id),
    thread_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'running', 'waiting', 'done', 'failed', 'cancelled')),
    model text NOT NULL,
    feature text NOT NULL,
    correlation_id text NOT NULL,
    message text NOT NULL,
    history jsonb NOT NULL,
    webhook_url text,
    idempotency_key text,
    request_sha256 text NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    strikes integer NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    owner text,
    lease_until timestamptz,
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempt_started_at timestamptz,
    run_seconds double precision NOT NULL DEFAULT 0,
    prompt_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    result jsonb,
    error jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    UNIQUE (key_id, idempotency_key)
);
CREATE INDEX jobs_key ON app.jobs (key_id, number DESC);
CREATE INDEX jobs_thread ON app.jobs (thread_id);
CREATE INDEX jobs_active ON app.jobs (status, next_at)
    WHERE status IN ('queued', 'waiting', 'running');

CREATE TABLE app.job_shares (
    key_id uuid PRIMARY KEY REFERENCES app.api_keys (id) ON DELETE CASCADE,
    tag bigint NOT NULL,
    served bigint NOT NULL,
    started_at timestamptz NOT NULL
);

ALTER TABLE app.webhook_outbox RENAME TO webhooks;
ALTER INDEX app.webhook_outbox_due RENAME TO webhooks_due;
ALTER TABLE app.webhooks
    ALTER COLUMN ticket_id DROP NOT NULL,
    ADD COLUMN job_id uuid UNIQUE REFERENCES app.jobs (id) ON DELETE CASCADE,
    ADD COLUMN kind text NOT NULL DEFAULT 'ticket.created',
    ADD COLUMN url text,
    ADD COLUMN owner text,
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD CONSTRAINT webhooks_of_one_thing CHECK (num_nonnulls(ticket_id, job_id) = 1),
    ADD CONSTRAINT webhooks_url CHECK (job_id IS NULL OR url IS NOT NULL);
CREATE INDEX webhooks_newest ON app.webhooks (created_at DESC);
CREATE VIEW app.webhook_outbox AS
    SELECT id, ticket_id, body, attempts, next_at, last_error, delivered_at, given_up_at
    FROM app.webhooks WHERE ticket_id IS NOT NULL;

CREATE TABLE app.webhook_receivers (
    receiver text PRIMARY KEY,
    failures integer NOT NULL,
    next_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    """Create the tables and move the outbox."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: jobs would be lost."""
    raise NotImplementedError("0004 holds jobs; restore a backup instead")
