"""The server for Node in the documentation does what the one beside it does."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_pages import Folder
from interop.conftest import HERE
from test_docs_programs import run, see_rooms

pytestmark = [pytest.mark.interop, pytest.mark.source]


def test_server_of_node(node: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path, "docs/migrating/node.md")
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    command = (node, "server.mjs", str(folder.port))
    with folder.running(command=command, stop=9, status=-9, said="listening"):
        run(see_rooms(folder.port))
