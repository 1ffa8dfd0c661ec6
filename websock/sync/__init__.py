"""Clients and servers for programs with threads."""

__all__: list[str] = []
