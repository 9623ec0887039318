"""Models on a fleet: what serves, what an upgrade or a rollback means, and its steps."""
