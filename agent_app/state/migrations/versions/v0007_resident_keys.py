"""Keys and threads whose data stays here; the generation of a key's cached answers."""

from alembic import op

revision = "0007"
down_revision = "0006"

UP = """
ALTER TABLE app.api_keys
    ADD COLUMN resident boolean NOT NULL DEFAULT false,
    ADD COLUMN cache_generation integer NOT NULL DEFAULT 0;

ALTER TABLE app.threads ADD COLUMN resident boolean NOT NULL DEFAULT false;
"""


def upgrade() -> None:
    """Add the columns."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: which data must stay here would be forgotten."""
    raise NotImplementedError("0007 holds which data must stay here; restore a backup instead")
