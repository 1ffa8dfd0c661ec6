"""Lines typed at a terminal while messages arrive."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from .._compat import env_text

try:
    import readline
except ImportError:
    HAS_READLINE = False  # on Windows
else:
    HAS_READLINE = True

__all__ = ["Terminal", "history_path", "printable"]

PROMPT = "> "
HISTORY_LENGTH = 1000


def history_path() -> Path:
    """Return where lines that were typed are kept (XDG base directories)."""
    state = env_text("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "websock" / "history"


def printable(text: str, allowed: str = "") -> str:
    """Return text of a peer without what a terminal would obey.

    Args:
        text: The text.
        allowed: Control characters that stay, such as ends of lines.
    """
    return "".join(
        c if c.isprintable() or c in allowed else c.encode("unicode_escape").decode()
        for c in text
    )


class Terminal:
    """A prompt at the bottom of the terminal, and messages above it.

    Lines are read in a thread of their own, because reading a line cannot be waited
    for in an event loop everywhere.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_reading = False
        self._is_closed = False

    def show(self, text: str) -> None:
        """Print lines above the prompt; what is being typed stays."""
        if not self._is_reading:
            print(text, flush=True)
            return
        typed = readline.get_line_buffer() if HAS_READLINE else ""
        sys.stdout.write(f"\r\x1b[K{text}\n{PROMPT}{typed}")
        sys.stdout.flush()

    async def lines(self) -> AsyncIterator[str]:
        """Give the lines that are typed, until Ctrl-D."""
        threading.Thread(target=self._read, name="terminal", daemon=True).start()
        while True:
            line = await self._lines.get()
            if line is None:
                return
            yield line

    def _read(self) -> None:
        try:
            while not self._is_closed:
                self._is_reading = True
                line = input(PROMPT)
                self._is_reading = False
                self._put(line)
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self._is_reading = False
            self._put(None)

    def _put(self, line: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)

    def close(self) -> None:
        """Leave the prompt: nothing is read any more."""
        self._is_closed = True
        if self._is_reading:
            self._is_reading = False
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()

    @contextlib.contextmanager
    def history(self) -> Iterator[None]:
        """Load the history of former runs, and keep what is typed in this one."""
        path = history_path()
        if not HAS_READLINE:
            yield
            return
        with contextlib.suppress(OSError):
            readline.read_history_file(path)
        try:
            yield
        finally:
            _save_history(path)


def _save_history(path: Path) -> None:
    readline.set_history_length(HISTORY_LENGTH)
    try:
        # It may contain what nobody else should read.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.write_history_file(path)
    except OSError as exc:
        print(f"websock: history not saved: {exc}", file=sys.stderr)
