"""Faults on purpose, in the rehearsal fleet of `ops lab` and nowhere else."""
