"""The agent app: chat over SSE and the OpenAI API, on LangGraph, PostgreSQL and vLLM."""

__version__ = "0.1.0"
