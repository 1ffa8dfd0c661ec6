"""The hub of a machine's workers, in a process of its own, for ``bench brokers``."""

from __future__ import annotations

import asyncio

import common

from websock.hub import Hub

SECRET = "bench"

options = common.parse_arguments()


async def main() -> None:
    async with Hub(f"local://:{SECRET}@127.0.0.1:{options.port}"):
        common.announce_websock(options)
        await asyncio.Event().wait()


common.run(options, main())
