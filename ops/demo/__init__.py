"""The demonstration: from an empty machine to a streamed answer with its tool call."""
