"""What can go wrong with topics, apart from wrong names, which are ``ValueError``."""

__all__ = ["BrokerError", "TopicLimitError"]


class BrokerError(ConnectionError):
    """The broker cannot be reached, or does not take what it is told."""


class TopicLimitError(RuntimeError):
    """There are too many subscriptions."""
