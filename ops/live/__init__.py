"""What is true on the hosts right now: asked over SSH, read, compared, drawn."""
