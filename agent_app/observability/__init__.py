"""Logs, metrics and the word to systemd."""
