"""The demo model's trainer; it runs with the engine environment's Python."""
