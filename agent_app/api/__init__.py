"""What clients meet: HTTP routes, streams and their schemas."""
