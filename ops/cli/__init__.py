"""One module per command of `ops`; heavy imports stay inside the commands."""
