"""Engine URLs: what each form leads to, how a wrong one is refused, and that no password is ever told."""

from __future__ import annotations

import msgspec
import pytest

from ropeway.domain.errors import InvalidRequest
from ropeway.engines.connect import connect
from ropeway.engines.redis.address import Address, Node, parse

CANARY = "c4naryS3cret"


@pytest.mark.parametrize(
    ("url", "nodes", "facts"),
    [
        ("redis://", (Node("127.0.0.1", 6379),), {}),
        ("redis://queue.example", (Node("queue.example", 6379),), {}),
        ("redis://queue.example:7001/3", (Node("queue.example", 7001),), {"db": 3}),
        ("valkey://h?db=4", (Node("h", 6379),), {"db": 4}),
        ("redis://[::1]:7001", (Node("::1", 7001),), {}),
        ("redis://[::1]", (Node("::1", 6379),), {}),
        ("redis://:secret@h", (Node("h", 6379),), {"user": None, "password": "secret"}),
        ("redis://ann:p%40ss%2F%3F%23@h", (Node("h", 6379),), {"user": "ann", "password": "p@ss/?#"}),
        ("redis://ann:p@ss@h", (Node("h", 6379),), {"user": "ann", "password": "p@ss"}),
        ("redis://ann:a:b@h", (Node("h", 6379),), {"user": "ann", "password": "a:b"}),
        ("rediss://h", (Node("h", 6379),), {"tls": True}),
        ("valkeys://h?ca=/a.pem&cert=/b.pem&key=/c.pem", (Node("h", 6379),), {"ca": "/a.pem", "key": "/c.pem"}),
        ("unix:///run/valkey.sock", (Node("/run/valkey.sock"),), {"tls": False}),
        ("unix://ann:pw@/run/v.sock?db=2", (Node("/run/v.sock"),), {"user": "ann", "password": "pw", "db": 2}),
        ("unix:///run/a%20b.sock", (Node("/run/a b.sock"),), {}),
        (
            "redis+sentinel://a,b:7000/main/2?sentinel_user=s&sentinel_password=x",
            (Node("a", 26379), Node("b", 7000)),
            {"topology": "sentinel", "service": "main", "db": 2, "sentinel_user": "s", "sentinel_password": "x"},
        ),
        ("rediss+sentinel://a/main", (Node("a", 26379),), {"topology": "sentinel", "tls": True}),
        (
            "valkey+cluster://a:7000,b:7001?partitions=6",
            (Node("a", 7000), Node("b", 7001)),
            {"topology": "cluster", "partitions": 6},
        ),
        ("redis://h?prefix=team-a.jobs", (Node("h", 6379),), {"prefix": "team-a.jobs"}),
        ("redis://h?durability=disk&wait_replicas=1", (Node("h", 6379),), {"durability": "disk", "wait_replicas": 1}),
        ("redis://h?timeout_s=0.5&wait_timeout_s=2", (Node("h", 6379),), {"timeout_s": 0.5, "wait_timeout_s": 2.0}),
        ("redis://h?keep_bytes=1000000", (Node("h", 6379),), {"keep_bytes": 1_000_000}),
    ],
)
def test_a_url_leads_to_its_servers(url: str, nodes: tuple[Node, ...], facts: dict[str, object]) -> None:
    """Every form that the documentation names, and what it is taken for."""
    address = parse(url)
    assert address.nodes == nodes
    assert {name: getattr(address, name) for name in facts} == facts


def test_what_is_not_said_has_a_default() -> None:
    """A plain URL: one server, no TLS, nobody's password, class `window` at least."""
    expected = Address("redis://h", "one", (Node("h", 6379),))
    assert parse("redis://h") == expected
    assert (expected.prefix, expected.durability, expected.timeout_s) == ("ropeway", "window", 5.0)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http+cluster://h", "scheme"),
        ("redis+ring://h", "scheme 'redis+ring'"),
        ("unix+cluster:///run/v.sock", "scheme"),
        ("unix://run/v.sock", "whole path"),
        ("unix://", "whole path"),
        ("redis://h:port", "port"),
        ("redis://h:0", "port"),
        ("redis://h:65536", "port"),
        ("redis://h:", "port"),
        ("redis://a,b", "several hosts"),
        ("redis+cluster://a,,b", "between the commas"),
        ("redis://h/one", "db"),
        ("redis://h/-1", "db"),
        ("redis://h/1/2", "path too long"),
        ("redis+cluster://h/1", "numbered databases"),
        ("redis+sentinel://h", "names its service"),
        ("redis://h?partitions=2", "for clusters"),
        ("redis+cluster://h?partitions=0", "for clusters"),
        ("redis+cluster://h?partitions=257", "for clusters"),
        ("redis://h?prefix=", "prefix"),
        ("redis://h?prefix=a%20b", "prefix"),
        ("redis://h?prefix={x}", "prefix"),
        ("redis://h?durability=stone", "durability"),
        ("redis://h?timeout_s=0", "timeout_s"),
        ("redis://h?timeout_s=soon", "timeout_s"),
        ("redis://h?timeout_s=nan", "timeout_s"),
        ("redis://h?wait_timeout_s=inf", "wait_timeout_s"),
        ("redis://h?wait_replicas=-1", "wait_replicas"),
        ("redis://h?ssl=true", "unknown option ssl"),
        ("redis://h?db=1&db=2", "given twice"),
        ("redis://h?ca=/a.pem", "rediss://"),
        ("rediss://h?key=/a.pem", "comes with its cert"),
        ("rediss://h?ca=/nowhere/ca.pem", "cannot be used"),
    ],
)
def test_a_wrong_url_is_refused_with_the_fault(url: str, told: str) -> None:
    """The refusal names what is wrong, before anything is connected to."""
    with pytest.raises(InvalidRequest) as refusal:
        parse(url).ssl_context()
    assert told in refusal.value.detail
    assert refusal.value.param == "engine"


@pytest.mark.parametrize(
    "url",
    [
        f"redi://ann:{CANARY}@h",
        f"http://ann:{CANARY}@h",
        f"redis+ring://ann:{CANARY}@h",
        f"redis://ann:{CANARY}/x@h",
        f"redis://ann:x/{CANARY}@h",
        f"redis://ann:{CANARY}?x@h",
        f"redis://ann:x?{CANARY}@h",
        f"redis://ann:{CANARY}#x@h",
        f"redis://ann:x#{CANARY}@h",
        f"redis://ann:[{CANARY}@h",
        f"redis://ann:{CANARY}\u2100@h",
        f"redis://{CANARY}@h",
        f"redis://ann:{CANARY}@h:99999",
        f"redis://ann:{CANARY}@h/one",
        f"redis://ann:{CANARY}@h/1/2",
        f"redis://ann:{CANARY}@h?timeout_s=0",
        f"redis://ann:{CANARY}@h?nothing=1",
        f"redis+sentinel://h?sentinel_password={CANARY}",
        f"redis+sentinel://h/s?sentinel%5Fpassword={CANARY}&timeout_s=0",
        f"sqlite://ann:{CANARY}@h/jobs.db",
        f"postgres://ann:{CANARY}@h",
    ],
)
def test_no_refusal_tells_a_password(url: str) -> None:
    """Not in its text, nor in what caused it: a traceback may be logged."""
    with pytest.raises(InvalidRequest) as refusal:
        connect(url)
    error: BaseException | None = refusal.value
    while error is not None:
        assert CANARY not in f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{CANARY}@h:1/2", "redis://:***@h:1/2"),
        (f"redis://ann:{CANARY}@h", "redis://ann:***@h"),
        (f"redis://ann:{CANARY}@{CANARY}@h", "redis://ann:***@h"),
        (f"unix://ann:{CANARY}@/run/v.sock", "unix://ann:***@/run/v.sock"),
        (
            f"redis+sentinel://h/s?sentinel_password={CANARY}&db=1",
            "redis+sentinel://h/s?sentinel_password=***&db=1",
        ),
        (f"redis+sentinel://h/s?sentinel%5Fpassword={CANARY}", "redis+sentinel://h/s?sentinel%5Fpassword=***"),
        ("redis://h?prefix=a", "redis://h?prefix=a"),
        ("unix:///run/v.sock?db=1", "unix:///run/v.sock?db=1"),
    ],
)
def test_an_address_shows_itself_masked(url: str, shown: str) -> None:
    """However it is written out, only the masked URL is seen."""
    address = parse(url)
    assert address.masked == shown
    assert connect(url).info.url == shown
    for text in (repr(address), str(address), f"{address}", str(address.__rich_repr__())):
        assert CANARY not in text
    assert msgspec.structs.replace(address, db=5).masked == shown
