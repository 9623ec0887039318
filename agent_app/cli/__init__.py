"""The `agent-app` command; a module a group."""

from agent_app.cli.main import app, main

__all__ = ["app", "main"]
