"""A hub between the workers of one machine, for topics; nothing has to be installed."""

from .client import HubClient
from .server import Hub

__all__ = ["Hub", "HubClient"]
