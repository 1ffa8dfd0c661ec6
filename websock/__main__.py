"""``python -m websock``: what is installed, and commands.

A command is a module of ``commands`` with a function ``add_command()``, which adds a
parser whose default ``run`` is called with the parsed arguments.  It is imported only
when there is a command on the command line.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from .commands import NAMES
from .report import report


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse a command line that is not empty."""
    parser = argparse.ArgumentParser(
        prog="python -m websock",
        description="Without a command: say what is installed and what it runs on.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in NAMES:
        import_module(f"websock.commands.{name}").add_command(commands)
    return parser.parse_args(arguments)


def main() -> None:
    """Print the report, or carry out a command."""
    if len(sys.argv) > 1:
        arguments = parse(sys.argv[1:])
        arguments.run(arguments)
        return
    for name, value in report():
        print(f"{name:<8} {value}")


if __name__ == "__main__":
    main()
