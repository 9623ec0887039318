"""The audit's chain: sealed, verified, exported, signed."""
