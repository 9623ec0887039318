"""Rolling restarts of engines and hosts, a few at a time, without a failed request."""
