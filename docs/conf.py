"""How Sphinx builds the documentation; ``make docs`` does it.

The source directory is the root of the project, so that README.md, CHANGELOG.md,
CONTRIBUTING.md, SECURITY.md and the results of the benchmarks are pages too, and a link
between two files is the same here as in a browser of the source.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Docstrings and signatures are in the pure twins.
os.environ["WEBSOCK_PURE"] = "1"
os.environ.pop("WEBSOCK_REQUIRE_EXT", None)

from websock.version import version  # noqa: E402

project = "websock"
author = "the websock authors"
copyright = author
release = version

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**.md",
    "bench/README.md",
    "bench/results/*.md",
    "examples/README.md",
]
exclude_patterns = [".*", "build", "dist", "tests", "**/node_modules", "bench/.venv"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# Two classes may have the same name, one for asyncio and one for threads.
suppress_warnings = ["ref.python"]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
highlight_language = "python"

html_theme = "furo"
html_title = f"websock {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_additional_pages = {"index": "to-start.html"}
templates_path = ["_templates"]


def add_chart(app: Sphinx, name: str, source: list[str]) -> None:
    """Show the chart of a suite below the title of its results."""
    path = ROOT / f"{name}.svg"
    if name.startswith("bench/results/") and path.exists():
        title, _, rest = source[0].partition("\n")
        chart = f"![chart of the first tables on this page]({path.name})"
        source[0] = f"{title}\n\n{chart}\n{rest}"


def name_the_server(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None] | None:
    """Have the router for threads link to the server for threads."""
    if name.startswith("websock.sync.router.") and returned == "Server":
        return signature, "websock.sync.server.Server"
    return None


def setup(app: Sphinx) -> None:
    """Tell Sphinx what is done here beside its settings."""
    app.connect("source-read", add_chart)
    app.connect("autodoc-process-signature", name_the_server)
