"""Gathers evidence on a host; standard library only, because it runs on the host's own Python.

Every module is also sent to hosts over SSH (`ops/doctor/ask.py`), and may import nothing but the
standard library and its neighbours here.
"""
