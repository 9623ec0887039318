"""Evals: suites of questions with graders, run against an engine and held against a baseline."""
