"""What lasts: PostgreSQL, Redis, checkpoints, knowledge and migrations."""
