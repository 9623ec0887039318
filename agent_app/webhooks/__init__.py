"""Webhooks: signed, posted to where they may go, until they arrive."""
