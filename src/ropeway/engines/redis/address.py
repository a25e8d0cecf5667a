"""Where the servers are, out of an engine URL: hosts, credentials, TLS, and what this engine is asked to hold to.

    redis://[user:password@]host[:port][/db]        valkey:// is the same
    rediss://…  valkeys://…                         TLS: ?ca=, ?cert= and ?key= name PEM files
    unix:///run/valkey.sock                         ?db=
    redis+sentinel://host:26379,host:26379/service[/db]     the server is asked of the sentinels (rediss+sentinel: TLS)
    redis+cluster://host:7000,host:7001             ?partitions=3 spreads the jobs over its nodes

Options, for all: `prefix` of every key (ropeway) · `durability`, the least that will do: disk, window (the default) or
memory · `wait_replicas`, that each submit waits for, at most `wait_timeout_s` (1) · `timeout_s` (5) for one reply ·
`keep_bytes`, the most that ended jobs with a retention may come to (half of the server's maxmemory, if it has one).
"""

from __future__ import annotations

import ssl
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from ropeway.domain.errors import InvalidRequest

__all__ = ["Address", "Node", "parse"]

Topology = Literal["one", "sentinel", "cluster"]

PORT = 6379
SENTINEL_PORT = 26379
MAX_PARTITIONS = 256

_SCHEMES = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss", "unix": "unix"}
_TOPOLOGIES: dict[str, Topology] = {"": "one", "sentinel": "sentinel", "cluster": "cluster"}
_OPTIONS = frozenset(
    {
        "ca",
        "cert",
        "db",
        "durability",
        "keep_bytes",
        "key",
        "partitions",
        "prefix",
        "sentinel_password",
        "sentinel_user",
        "timeout_s",
        "wait_replicas",
        "wait_timeout_s",
    }
)
_PREFIX_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:")


class Node(msgspec.Struct, frozen=True):
    """One server: a host and a port, or the path of a Unix socket."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return self.host if self.host.startswith("/") else f"{self.host}:{self.port}"


class Address(msgspec.Struct, frozen=True):
    """A parsed URL. `masked` is the URL with its passwords hidden: the only form that is ever printed."""

    masked: str
    topology: Topology
    nodes: tuple[Node, ...]
    service: str = ""
    user: str | None = None
    password: str | None = None
    sentinel_user: str | None = None
    sentinel_password: str | None = None
    db: int = 0
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    prefix: str = "ropeway"
    partitions: int = 1
    durability: Literal["disk", "window", "memory"] = "window"
    wait_replicas: int = 0
    wait_timeout_s: float = 1.0
    timeout_s: float = 5.0
    keep_bytes: int | None = None

    def __repr__(self) -> str:
        return f"Address({self.masked})"  # a struct's own would tell the password

    def ssl_context(self) -> ssl.SSLContext | None:
        """What TLS connections are made with; None without TLS. Raises InvalidRequest: a file is missing or no PEM."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:
            files = ", ".join(name for name in (self.ca, self.cert, self.key) if name)
            raise _refusal(f"the TLS files ({files}) cannot be used: {error}") from error
        return context


def parse(url: str) -> Address:
    """The address in a URL. Raises InvalidRequest, never telling a password, for what cannot be one."""
    parts = urlsplit(url)
    kind, _, topology_name = parts.scheme.partition("+")
    topology = _TOPOLOGIES.get(topology_name)
    if kind not in _SCHEMES or topology is None or (kind == "unix" and topology != "one"):
        raise _refusal(f"scheme {parts.scheme!r} is none of redis, rediss, valkey, valkeys (with +sentinel, +cluster)")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown or parts.fragment:
        raise _refusal(f"unknown option {', '.join(unknown) or '#'} in the engine's URL; known: {_known()}")
    user, password, hosts = _userinfo(parts)
    path = [unquote(step) for step in parts.path.split("/") if step]
    nodes = _nodes(hosts, SENTINEL_PORT if topology == "sentinel" else PORT)
    if kind == "unix":
        nodes, path = (Node(unquote(parts.path)),), []
    service = ""
    if topology == "sentinel":
        if not path:
            raise _refusal("a sentinel URL names its service: redis+sentinel://host:26379/service")
        service = path.pop(0)
    settings: dict[str, object] = {
        "masked": _masked(url, parts, options),
        "topology": topology,
        "nodes": nodes,
        "service": service,
        "user": user,
        "password": password,
        "db": options.get("db", path.pop(0) if path else "0"),
        "tls": _SCHEMES[kind] == "rediss",
        **{name: value for name, value in options.items() if name != "db"},
    }
    return _checked(settings, path)


def _checked(settings: dict[str, object], rest: list[str]) -> Address:
    try:
        address = msgspec.convert(settings, Address, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(f"the engine's URL: {error}") from error
    if rest:
        raise _refusal(f"the engine's URL has a path too long: {'/'.join(rest)}")
    if address.topology == "cluster" and address.db:
        raise _refusal("a cluster has no numbered databases")
    if not 1 <= address.partitions <= MAX_PARTITIONS or (address.partitions > 1 and address.topology != "cluster"):
        raise _refusal(f"partitions are for clusters, 1 to {MAX_PARTITIONS}")
    if not address.prefix or not _PREFIX_CHARS.issuperset(address.prefix):
        raise _refusal("a prefix has letters, digits and _ - . : only")
    if address.keep_bytes is not None and address.keep_bytes < 1:
        raise _refusal("keep_bytes is above 0")
    if min(address.timeout_s, address.wait_timeout_s) <= 0 or address.wait_replicas < 0 or address.db < 0:
        raise _refusal("timeouts are above 0, wait_replicas and db not below it")
    return address


def _userinfo(parts: SplitResult) -> tuple[str | None, str | None, str]:
    info, at, hosts = parts.netloc.rpartition("@")
    if not at:
        return None, None, parts.netloc
    user, colon, password = info.partition(":")
    return unquote(user) or None, unquote(password) if colon else None, hosts


def _nodes(hosts: str, default_port: int) -> tuple[Node, ...]:
    nodes = []
    for text in hosts.split(","):
        host, colon, port = (text, "", "") if text.endswith("]") else _split_port(text)
        host = host.strip("[]") or "127.0.0.1"
        if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise _refusal(f"{port[:20]!r} is no port")
        nodes.append(Node(host, int(port) if colon else default_port))
    return tuple(nodes)


def _split_port(text: str) -> tuple[str, str, str]:
    host, colon, port = text.rpartition(":")
    return (host, colon, port) if colon else (text, "", "")


def _masked(url: str, parts: SplitResult, options: dict[str, str]) -> str:
    info, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = info.partition(":")
    shown = parts._replace(netloc=f"{user}{':***' if colon else ''}{at}{hosts}").geturl() if at else url
    for name in ("sentinel_password",):
        if options.get(name):
            head, _, query = shown.partition("?")
            kept = [f"{name}=***" if pair.startswith(f"{name}=") else pair for pair in query.split("&")]
            shown = f"{head}?{'&'.join(kept)}"
    return shown


def _known() -> str:
    return ", ".join(sorted(_OPTIONS))


def _refusal(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, param="engine")
