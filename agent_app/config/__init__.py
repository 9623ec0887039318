"""Configuration: one YAML file, checked whole, and secrets as files beside it.

A module a section; a new section is a module, a field of `Config` and a line of the README.
"""

from agent_app.config.approvals import ApprovalRules
from agent_app.config.cache import Cache, SemanticCache
from agent_app.config.credentials import read_other, read_secret
from agent_app.config.data import Database, RedisUrls
from agent_app.config.embeddings import Embeddings
from agent_app.config.file import Config, load_config
from agent_app.config.jobs import Jobs
from agent_app.config.knowledge import Knowledge
from agent_app.config.limits import Limits
from agent_app.config.mcp import McpServer
from agent_app.config.models import Model
from agent_app.config.retention import Retention
from agent_app.config.routes import Cloud, Route
from agent_app.config.telemetry import Telemetry
from agent_app.config.tools import SqlTool, TicketTool, Tools

__all__ = [
    "ApprovalRules",
    "Cache",
    "Cloud",
    "Config",
    "Database",
    "Embeddings",
    "Jobs",
    "Knowledge",
    "Limits",
    "McpServer",
    "Model",
    "RedisUrls",
    "Retention",
    "Route",
    "SemanticCache",
    "SqlTool",
    "Telemetry",
    "TicketTool",
    "Tools",
    "load_config",
    "read_other",
    "read_secret",
]
