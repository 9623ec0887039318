"""Evidence to findings, a module per layer; pure.

Each module holds `CASES`, its part of the catalogue, and `judge(host, evidence)`.
"""
