"""Brokers over TLS: real ones, with certificates of authorities that tests make."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from brokers.running import (
    KINDS,
    SECURE,
    Authority,
    Broker,
    go,
    in_thread,
    running,
    topics_on,
    with_nats,
    with_redis,
)  # fmt: skip
from scripted import LOOPBACK
from subscribers import Relay, served, until

from websock.topics import BrokerError, Topics

pytestmark = pytest.mark.usefixtures("all_is_logged")

PASSWORD = "p@ss-w0rd"
IN_URL = "p%40ss-w0rd"


@pytest.fixture
def all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Have every logger write everything: also the client libraries'."""
    caplog.set_level(logging.DEBUG)


def with_password(kind: str) -> tuple[str, ...]:
    if kind == "nats":
        return ("--user", "default", "--pass", PASSWORD)
    return ("--requirepass", PASSWORD)


def url_of(broker: Broker, password: str = IN_URL) -> str:
    return f"{broker.scheme}://default:{password}@{LOOPBACK}:{broker.port}"


async def refusal(topics: Topics) -> str:
    """Start topics, which fails; return everything that is shown of it."""
    with pytest.raises(BrokerError) as caught:
        await topics.start()
    assert caught.value.__cause__ is None
    return f"{caught.value} {caught.value!r} {topics.backend!r}"


@pytest.mark.parametrize("kind", KINDS)
def test_over_tls(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two servers; the broker is killed and comes back; no log has the password."""
    shown: list[str] = []
    authority = Authority(tmp_path)

    async def main(broker: Broker) -> None:
        options = {"ssl": authority.client(), "timeout": 3, "prefix": "t"}
        one, two = (topics_on(url_of(broker), **options) for _ in range(2))
        async with served(topics=one) as (first, a), served(topics=two) as (second, b):
            for client in (a, b):
                await client.ask("t.*")
            first.publish("t.x", "1")
            second.publish("t.x", "2")
            assert sorted(await a.get(2)) == sorted(await b.get(2)) == ["1", "2"]
            backends: list[Any] = [one.backend, two.backend]
            shown.extend(map(repr, backends))
            await in_thread(broker.kill)
            await until(lambda: not any(each.is_connected for each in backends))
            await until(lambda: "still away" in caplog.text)
            await in_thread(broker.start)
            await until(lambda: all(each.is_connected for each in backends))
            first.publish("t.x", "3")
            assert await a.get() == await b.get() == "3"
        wrong = topics_on(url_of(broker, "wr0ng-one"), ssl=authority.client())
        shown.append(await refusal(wrong))

    arguments = with_password(kind)
    with running(kind, tmp_path, *arguments, authority=authority) as broker:
        go(main(broker))
    text = "\n".join([*shown, caplog.text])
    assert "is back after" in text
    assert f"{SECURE[kind]}://{LOOPBACK}:{broker.port}, connected" in text
    for secret in (PASSWORD, IN_URL, "wr0ng-one"):
        assert secret not in text


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_that_are_refused(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an authority that is not trusted, and for another name."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
    authority, stranger = Authority(folders[0]), Authority(folders[1])
    elsewhere = Authority(folders[2], "broker.example")

    async def unknown(broker: Broker) -> None:
        for options in ({"ssl": stranger.client()}, {}):
            text = await refusal(topics_on(url_of(broker), **options))
            assert text.startswith(
                f"cannot reach the broker at {SECURE[kind]}://{LOOPBACK}:{broker.port}: "
                "its certificate is refused: "
            )
            assert "self-signed" in text or "unable to get local issuer" in text
            assert PASSWORD not in text
            assert IN_URL not in text

    async def misnamed(broker: Broker) -> None:
        text = await refusal(topics_on(url_of(broker), ssl=elsewhere.client()))
        assert "its certificate is refused: IP address mismatch" in text

    arguments = with_password(kind)
    with running(kind, folders[0], *arguments, authority=authority) as broker:
        go(unknown(broker))
    with running(kind, folders[2], *arguments, authority=elsewhere) as broker:
        go(misnamed(broker))
    for secret in (PASSWORD, IN_URL):
        assert secret not in caplog.text


class Tap(Relay):
    """A line to a broker; what the client said stays."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.heard = b""

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        feed = reader.feed_data

        def listen(data: bytes) -> None:
            self.heard += data
            feed(data)

        reader.feed_data = listen  # type: ignore[method-assign]
        await super()._accept(reader, writer)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_said_without_tls(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker without TLS, or somebody between who takes it away, learns nothing."""

    async def main(broker: Broker) -> None:
        async with Tap(broker.port) as line:
            for user in (f"default:{IN_URL}", IN_URL):
                url = f"{SECURE[kind]}://{user}@{LOOPBACK}:{line.port}"
                # Redis waits for the end of a line.
                text = await refusal(topics_on(url, timeout=0.5))
                if kind == "nats":
                    assert "it does not speak TLS, as its URL says" in text
                assert PASSWORD not in text
                assert IN_URL not in text
            heard = line.heard
            for word in (PASSWORD, IN_URL, "default", "SUB", "PUB"):
                assert word.encode() not in heard
            # The same line hears it when the URL allows it.
            topics = topics_on(f"{kind}://default:{IN_URL}@{LOOPBACK}:{line.port}")
            async with served(topics=topics) as (server, a):
                await a.ask("t")
                server.publish("t", "x")
                assert await a.get() == "x"
            assert PASSWORD.encode() in line.heard

    with running(kind, tmp_path, *with_password(kind)) as broker:
        go(main(broker))
    for secret in (PASSWORD, IN_URL):
        assert secret not in caplog.text


@with_nats
def test_no_tls_and_no_password(tmp_path: Path) -> None:
    """Messages are no more for the open line than passwords are."""

    async def main(broker: Broker) -> None:
        text = await refusal(topics_on(f"tls://{LOOPBACK}:{broker.port}"))
        assert "it does not speak TLS, as its URL says" in text

    with running("nats", tmp_path) as broker:
        go(main(broker))


@with_redis
def test_authority_in_the_url_of_redis(tmp_path: Path) -> None:
    """What the client library takes from a URL stays as it is, and is not shown."""
    authority = Authority(tmp_path)

    async def main(broker: Broker) -> None:
        url = f"{broker.url}?ssl_ca_certs={authority.authority}"
        topics = topics_on(url)
        assert "authority" not in repr(topics.backend)
        async with served(topics=topics) as (server, a):
            await a.ask("t")
            server.publish("t", "x")
            assert await a.get() == "x"

    with running("redis", tmp_path, authority=authority) as broker:
        go(main(broker))


@pytest.mark.parametrize("kind", KINDS)
def test_context_without_tls(kind: str) -> None:
    context = ssl.create_default_context()
    with pytest.raises(
        ValueError, match=rf"ssl is for {SECURE[kind]}://, but .* {kind}"
    ):
        Topics(f"{kind}://ann:secret7@h", ssl=context)
