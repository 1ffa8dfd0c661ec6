"""Puts what ``python -m bench capacity`` prints into the page that explains it.

Under each command of the page stands what it prints.  ``python -m bench.capacity.page``
writes that anew after the figures have changed; a test holds the page against it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from pathlib import Path

from . import command

PAGE = Path(__file__).resolve().parents[2].joinpath("docs", "explanation", "scaling.md")
SHOWN = re.compile(
    r"(```console\n\$ python -m bench capacity ?(.*)\n```\n\n```text\n)[^`]*(```\n)"
)


def render(text: str) -> str:
    """Return a page with what its commands print now."""
    return SHOWN.sub(lambda found: found[1] + _output(found[2]) + found[3], text)


def _output(arguments: str) -> str:
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command.run(parser.parse_args(shlex.split(arguments)))
    return out.getvalue()


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
