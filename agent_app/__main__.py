"""`python -m agent_app`, the same as the `agent-app` command."""

from agent_app.cli import main

main()
