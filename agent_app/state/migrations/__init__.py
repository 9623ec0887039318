"""Database migrations, run by `agent-app migrate`."""
