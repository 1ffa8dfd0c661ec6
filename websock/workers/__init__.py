"""A server on all cores: worker processes, or threads, under a supervisor.

``websock.run()`` starts it; see also ``python -m websock serve --help``.
"""

from .plan import StartError
from .run import run

__all__ = ["StartError", "run"]
