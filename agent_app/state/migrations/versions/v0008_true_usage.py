"""What a run used of engines, and up to which attempt that is counted."""

from alembic import op

revision = "0008"
down_revision = "0007"

UP = """
ALTER TABLE app.runs
    ADD COLUMN feature text NOT NULL DEFAULT '',
    ADD COLUMN engine_seconds double precision NOT NULL DEFAULT 0,
    ADD COLUMN counted_attempt integer NOT NULL DEFAULT 0;
"""


def upgrade() -> None:
    """Add the columns; the release before this one leaves them at their defaults."""
    op.execute(UP)


def downgrade() -> None:
    """Refuse: figures would be lost."""
    raise NotImplementedError("0008 holds usage figures; restore a backup instead")
