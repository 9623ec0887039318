"""`ops driver`: what GPU drivers a fleet has, and moving them host by host."""
