"""Weights of keys: their shares of full engines."""

from alembic import op

revision = "0010"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; none stands for the configuration's."""
    op.execute(
        "ALTER TABLE app.api_keys ADD COLUMN weight integer CHECK (weight BETWEEN 1 AND 1000)"
    )


def downgrade() -> None:
    """Take it away: keys are equal again."""
    op.execute("ALTER TABLE app.api_keys DROP COLUMN weight")
