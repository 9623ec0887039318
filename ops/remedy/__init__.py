"""Remediation: from an alert to an operation, where the inventory's policy allows it."""
