"""No memory, at any allocation: an error, and never what was not written.

CPython's test module has the next allocation fail, or one after it, so each is tried
in turn.  What was read before is gone or complete; nothing is read after it.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("_testcapi", reason="this Python comes without its test module")

PROGRAM = """
    import _testcapi
    from websock._codec import FrameReader

    PIECE = bytes(range(256)) * 300

    def frame(opcode, data, fin):
        head = bytes([opcode | 0x80 * fin, 127]) + len(data).to_bytes(8, "big")
        return head + data

    def whole(data):
        return frame(2, data, True) + frame(1, b"a" * 70000, True)

    INPUTS = {
        "whole": [whole(PIECE)],
        "text": [frame(1, "\\u00e9".encode() * 40000, True)],
        "cut": [whole(PIECE)[:1000], whole(PIECE)[1000:60000], whole(PIECE)[60000:]],
        "fragments": [
            frame(2, PIECE, False), frame(0, PIECE, False), frame(0, PIECE, True)
        ],
        "the beginning": [frame(2, PIECE, False), frame(0, PIECE, True)[:5000]],
        "control": [frame(2, PIECE, False), b"\\x89\\x05hello"],
        "close": [b"\\x88\\x07\\x03\\xe8hello"],
    }

    def failing(number, call):
        # The one after `number` others fails.
        _testcapi.set_nomemory(number, number + 1)
        try:
            return call()
        except MemoryError:
            return None
        finally:
            _testcapi.remove_mem_hooks()

    def check(name, number):
        reader = FrameReader(expect_mask=False)
        data = INPUTS[name]
        sent = b"".join(data)
        events = []
        for piece in data[:-1]:
            events += reader.feed(piece)
        events += failing(number, lambda: reader.feed(data[-1])) or []
        taken = failing(number, reader.take_fragments) or []
        taken += reader.take_fragments()
        for part in taken:
            assert part in (PIECE, b""), (name, number, len(part))
        for opcode, payload, extra in events:
            if isinstance(payload, str):
                payload = payload.encode()
            assert payload in sent or payload == PIECE * 3, (name, number)
        if reader.error is not None:
            assert type(reader.error) is MemoryError, reader.error
            assert reader.feed(b"\\x81\\x01x") == []
            assert not reader.in_message
            return True
        return False

    for name in INPUTS:
        numbers = [number for number in range(80) if check(name, number)]
        assert not check(name, 10_000)
        print(name, len(numbers))
    print("all done")
"""


def test_frames() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.endswith("all done\n"), done.stdout + done.stderr
    assert done.returncode == 0
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines()[:-1])
    assert all(int(count) > 0 for count in found.values()), found
