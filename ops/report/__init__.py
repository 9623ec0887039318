"""One HTML page about a period of the fleet, from Prometheus, for people without Grafana."""
