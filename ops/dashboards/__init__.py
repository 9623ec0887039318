"""Dashboards as code: one definition of panels for Grafana and for `ops report`."""

from ops.dashboards.agent_app import AGENT_APP
from ops.dashboards.cost import COST
from ops.dashboards.edge import EDGE
from ops.dashboards.engine import ENGINE
from ops.dashboards.fleet import FLEET
from ops.dashboards.gpu import GPU_DASHBOARD
from ops.dashboards.panel import Dashboard, Panel

DASHBOARDS = (FLEET, GPU_DASHBOARD, ENGINE, AGENT_APP, EDGE, COST)

__all__ = ["DASHBOARDS", "Dashboard", "Panel"]
