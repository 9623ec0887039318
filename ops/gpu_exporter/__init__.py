"""Prometheus metrics of a host's NVIDIA GPUs: `ops gpu-exporter`, and a service on GPU hosts.

On a host it is a wheel of its own (pyproject.toml beside this file) with two requirements and not
the whole of `ops`: what watches a GPU host at 3 AM should have nothing else to break. It therefore
imports nothing of the rest of `ops`.
"""

VERSION = "0.1.0"
