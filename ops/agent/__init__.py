"""The agent app's own commands, run on one of its hosts from here."""
