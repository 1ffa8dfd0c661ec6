"""Clients and servers for programs with threads."""

from . import client, router, server

__all__ = ["client", "router", "server"]
