"""Keys, threads, runs, tool effects and knowledge."""

from alembic import op

revision = "0001"
down_revision = None

UP = """
CREATE TABLE app.api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    prefix text NOT NULL,
    digest text NOT NULL UNIQUE,
    scopes text[] NOT NULL DEFAULT '{chat}',
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);
CREATE UNIQUE INDEX api_keys_live_name ON app.api_keys (name) WHERE revoked_at IS NULL;

CREATE TABLE app.threads (
    id uuid PRIMARY KEY,
    key_id uuid NOT NULL REFERENCES app.api_keys (id),
    tokens bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX threads_key ON app.threads (key_id);

CREATE TABLE app.runs (
    id uuid PRIMARY KEY,
    thread_id uuid NOT NULL REFERENCES app.threads (id) ON DELETE CASCADE,
    number bigint GENERATED ALWAYS AS IDENTITY,
    correlation_id text NOT NULL,
    model text NOT NULL,
    message text NOT NULL,
    status text NOT NULL
        CHECK (status IN ('running', 'interrupted', 'done', 'failed', 'abandoned')),
    owner text NOT NULL,
    attempt integer NOT NULL DEFAULT 1,
    lease_until timestamptz NOT NULL,
    prompt_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    error text,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX runs_thread ON app.runs (thread_id, number DESC);
CREATE UNIQUE INDEX runs_one_at_a_time ON app.runs (thread_id) WHERE status = 'running';
CREATE INDEX runs_owner ON app.runs (owner) WHERE status = 'running';

CREATE TABLE app.tool_effects (
    run_id uuid NOT NULL,
    tool_call_id text NOT NULL,
    thread_id uuid,
    tool text NOT NULL,
    arguments jsonb NOT NULL,
    result text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, tool_call_id)
);
CREATE INDEX tool_effects_thread ON app.tool_effects (thread_id);

CREATE TABLE app.knowledge_documents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    path text NOT NULL UNIQUE,
    title text NOT NULL,
    sha256 text NOT NULL,
    ingested_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE app.knowledge_chunks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id bigint NOT NULL REFERENCES app.knowledge_documents (id) ON DELETE CASCADE,
    position integer NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    words tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('english', title), 'A') || to_tsvector('english', body)
    ) STORED,
    UNIQUE (document_id, position)
);
CREATE INDEX knowledge_chunks_words ON app.knowledge_chunks USING gin (words);
"""


def upgrade() -> None:
    """Create the first tables."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: data would be lost."""
    raise NotImplementedError("0001 holds all data; restore a backup instead")
