"""Prove that a fleet is what its inventory says: testinfra checks over SSH."""

from ops.verify.report import Report, Result
from ops.verify.run import run_checks

__all__ = ["Report", "Result", "run_checks"]
