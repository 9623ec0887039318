"""Engines at run time: who serves, how much is under way, drain and readiness."""
