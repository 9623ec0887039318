"""The agent itself: graph, engine client, tools and runs."""
