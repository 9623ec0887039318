"""The agent app on a fleet: its instances, their release and configuration, moved one by one."""
