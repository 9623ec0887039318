"""Alerts of the fleet: what fires, what is silenced, and whether anybody would be told."""
