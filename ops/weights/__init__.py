"""Weights on a fleet's hosts: fetched once, spread from host to host, pruned by policy.

`manifest.py` is the host collection's own, a link: there is one format and one way into place.
"""
