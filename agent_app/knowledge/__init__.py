"""The knowledge base's way in: files become documents, documents become passages."""
