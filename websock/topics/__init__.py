"""Topics: messages for everybody who has subscribed to what they are about.

    async with websock.serve(handler, port=8765, topics="memory://") as server:
        server.publish("prices.eur", "1.08")

and in the handler ``ws.subscribe("prices.*")``.  :class:`Topics` keeps who has
subscribed to what; a :class:`Backend` carries messages to other processes.
"""

from .backend import Backend, register_backend
from .errors import BrokerError, TopicLimitError
from .gaps import Gap
from .history import Position
from .pattern import check_pattern, check_topic
from .registry import Subscription, Topics

__all__ = [
    "Backend",
    "BrokerError",
    "Gap",
    "Position",
    "Subscription",
    "TopicLimitError",
    "Topics",
    "check_pattern",
    "check_topic",
    "register_backend",
]
