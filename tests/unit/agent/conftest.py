from remote_app import remote

__all__ = ["remote"]
