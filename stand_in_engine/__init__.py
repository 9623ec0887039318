"""Stands in for vLLM where it is too slow: its API, metrics and shutdown, without a model."""
