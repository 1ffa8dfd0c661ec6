"""The page about a million connections: its figures are those that were measured."""

from __future__ import annotations

import inspect
import re
import sys

import pytest
from doc_pages import DOCS, ROOT

import websock
from websock.admission import RETRY_AFTER
from websock.client import backoff
from websock.topics import Topics

sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench.capacity import figures, model, page

pytestmark = pytest.mark.source

TEXT = (DOCS / "explanation" / "scaling.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
# What Linux, Redis, NATS and nginx have by default, and what follows from it.
OF_OTHERS = {
    "1,024": "open files of a process",
    "1,048,576": "fs.nr_open",
    "4,096": "net.core.somaxconn",
    "4096": "the same, for backlog",
    "262,144": "buckets of nf_conntrack at most",
    "32768": "first port of a client",
    "60999": "last port of a client",
    "28,000": "those between, about",
    "10,000": "maxclients of Redis; connections that were measured",
    "5,000": "half of it: a worker has two connections",
    "32": "client-output-buffer-limit pubsub of Redis, hard, MiB",
    "8": "the same, soft",
    "60": "the same, seconds",
    "64": "max_pending of NATS, MiB",
    "512": "worker_connections of nginx",
}
# What stands in the prose because it was asked for, or is counted there.
OF_THE_TEXT = {"50", "100", "300", "0.6", "1", "4"}  # 1 - 1/w; level 4


def prose() -> str:
    """Return the page without its commands, what they print, links and lists' numbers."""
    text = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"^\d\. |ipv4", "", text, flags=re.M)


def test_what_commands_print() -> None:
    assert len(page.SHOWN.findall(TEXT)) == TEXT.count("python -m bench capacity") - 1
    assert page.render(TEXT) == TEXT, "write it anew: python -m bench.capacity.page"


def test_no_number_of_its_own() -> None:
    """Numbers in sentences are defaults, or of what is asked for; none is a result."""
    assert inspect.signature(backoff).parameters["initial_delay"].default == 5
    topics = inspect.signature(Topics).parameters
    options = inspect.signature(websock.serve).parameters
    of_the_library = {
        f"{topics['max_topics'].default:,}",
        f"{options['ping_interval'].default}",
        f"{model.Machine().headroom:.0%}".rstrip("%"),
        RETRY_AFTER,
        str(int(websock.CloseCode.SERVICE_RESTART)),
        "503",
        f"{inspect.signature(backoff).parameters['max_delay'].default:g}",
    }
    said = {text.rstrip(",") for text in NUMBER.findall(prose())}
    known = of_the_library | set(OF_OTHERS) | OF_THE_TEXT
    assert said == known, (said - known, known - said)


def test_what_is_said_of_figures() -> None:
    redis, nats = figures.load(broker="redis"), figures.load(broker="nats")
    million = model.plan(model.Load(published=0), model.Machine(), redis)
    assert (million.machines, million.bound) == (1, "memory")
    # One copy is more than a delivery.
    assert min(redis.receive, nats.receive) > 1.15 * redis.delivery
    # NATS does less for a message.
    assert nats.broker_message < redis.broker_message
    # Workers are full before the broker: a handful with Redis, dozens with NATS.
    for broker, few, many in ((redis, 3, 10), (nats, 24, 60)):
        assert broker.receive > broker.broker_message + few * broker.broker_copy
        assert broker.receive < broker.broker_message + many * broker.broker_copy
    # Compression: several times the memory.
    assert redis.compressed > 4 * (redis.memory + redis.kernel)
    # A core: tens of thousands of connections, a hundred thousand deliveries.
    assert 1e6 / redis.delivery > 100_000


def test_what_is_said_of_the_examples() -> None:
    """The reasons that the page gives for its advice."""
    chat = model.Load(published=1e5, audience=50, received=0.1)
    measured = figures.load()
    whole = model.plan(chat, model.Machine(), measured)
    assert whole.copies > 0.7 * chat.audience
    copies = whole.sums["copies from the broker"].cores
    assert copies == pytest.approx(whole.sums["deliveries"].cores, rel=0.1)
    assert copies > 0.45 * whole.cores
    assert whole.brokers > 1
    shards = model.plan(chat, model.Machine(), measured, 12)
    assert shards.cores < 0.7 * whole.cores
    ticker = model.plan(
        model.Load(published=20, audience=1_000_000), model.Machine(), measured
    )
    assert ticker.sums["deliveries"].cores > 0.95 * ticker.cores
    assert ticker.broker < 0.01
    users = model.Load(published=1e4, audience=1.5)
    few = model.plan(users, model.Machine(), measured)
    assert (few.machines, few.safe, few.bound) == (1, 2, "memory")
    many = model.plan(
        model.Load(published=2e5, audience=1.5), model.Machine(), measured
    )
    assert many.broker > 1
    assert many.copies == pytest.approx(1.5, rel=0.05)
