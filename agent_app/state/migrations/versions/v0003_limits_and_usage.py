"""Limits, budgets and rotation of keys; usage per key, day, model and feature."""

from alembic import op

revision = "0003"
down_revision = "0002"

UP = """
ALTER TABLE app.api_keys
    ADD COLUMN requests_per_minute integer CHECK (requests_per_minute >= 0),
    ADD COLUMN tokens_per_minute integer CHECK (tokens_per_minute >= 0),
    ADD COLUMN concurrent_runs integer CHECK (concurrent_runs >= 0),
    ADD COLUMN budget_soft bigint CHECK (budget_soft >= 0),
    ADD COLUMN budget_medium bigint CHECK (budget_medium >= 0),
    ADD COLUMN budget_hard bigint CHECK (budget_hard >= 0),
    ADD COLUMN previous_digest text UNIQUE,
    ADD COLUMN previous_until timestamptz;

ALTER TABLE app.runs ADD COLUMN counted boolean NOT NULL DEFAULT false;

CREATE TABLE app.usage (
    key_id uuid NOT NULL REFERENCES app.api_keys (id),
    day date NOT NULL,
    model text NOT NULL,
    feature text NOT NULL,
    requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    engine_seconds double precision NOT NULL,
    PRIMARY KEY (key_id, day, model, feature)
);
"""


def upgrade() -> None:
    """Add what counts and what bounds."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: data would be lost."""
    raise NotImplementedError("0003 holds usage figures; restore a backup instead")
