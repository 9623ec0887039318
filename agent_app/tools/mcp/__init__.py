"""MCP servers as tools: sessions that are held, and everything a server says taken as hostile."""
