"""The soak: hours of mixed load, with restarts, in which nothing may be lost.

``server.py`` serves, ``client.py`` keeps the accounts, ``run.py`` starts both, restarts
a server now and then and watches memory and descriptors, and ``report.py`` writes it
down.
"""

from .report import markdown
from .run import Plan, choose_seed, soaking

__all__ = ["Plan", "choose_seed", "markdown", "soaking"]
