"""Backups of a fleet: what there is, to which moments it leads back, and the way there."""
