"""The fleet's secrets: what there is, and how each is replaced without a failed request."""
