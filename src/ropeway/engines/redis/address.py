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
from math import inf
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from ropeway.domain.errors import InvalidRequest

__all__ = ["MAX_PARTITIONS", "Address", "Node", "parse"]

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
_SECRETS = frozenset({"sentinel_password"})
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

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("masked", self.masked)]

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
    parts = _split(url)
    kind, _, topology_name = parts.scheme.partition("+")
    topology = _TOPOLOGIES.get(topology_name)
    if kind not in _SCHEMES or topology is None or (kind == "unix" and topology != "one"):
        raise _refusal(
            f"scheme {parts.scheme!r} is none of redis, rediss, valkey, valkeys (with +sentinel, +cluster), unix"
        )
    options = _options(parts)
    user, password, hosts = _userinfo(parts)
    path = [unquote(step) for step in parts.path.split("/") if step]
    nodes = _nodes(hosts, SENTINEL_PORT if topology == "sentinel" else PORT)
    if kind == "unix":
        nodes, path = (_socket(parts),), []
    service = path.pop(0) if topology == "sentinel" and path else ""
    settings: dict[str, object] = {
        "masked": _masked(parts),
        "topology": topology,
        "nodes": nodes,
        "service": service,
        "user": user,
        "password": password,
        "db": options.pop("db", None) or (path.pop(0) if path else "0"),
        "tls": _SCHEMES[kind] == "rediss",
        **options,
    }
    return _checked(settings, path)


def _split(url: str) -> SplitResult:
    """The URL's parts. Nothing of it is told when a password may stand where none can be hidden."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its text tells the host part, and what stands before it
        raise _refusal("the engine's URL cannot be read: look at its brackets and at signs in its password") from None
    if "@" not in parts.netloc and "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise _refusal("the engine's URL has an @ behind its host: in a password write / as %2F, ? as %3F, # as %23")
    if parts.fragment:
        raise _refusal("the engine's URL has a #: in a password write it as %23")
    return parts


def _options(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise _refusal(f"unknown option {', '.join(unknown)} in the engine's URL; known: {', '.join(sorted(_OPTIONS))}")
    if len(options) < len(pairs):
        raise _refusal("an option is given twice in the engine's URL")
    return options


def _checked(settings: dict[str, object], rest: list[str]) -> Address:
    try:
        address = msgspec.convert(settings, Address, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(f"the engine's URL: {error}") from None  # the cause holds the settings
    fault = _fault_of_place(address, rest) or _fault_of_options(address)
    if fault is not None:
        raise _refusal(fault)
    return address


def _fault_of_place(address: Address, rest: list[str]) -> str | None:
    if rest:
        return "the engine's URL has a path too long: after the host comes the number of a database"
    if address.topology == "one" and len(address.nodes) > 1:
        return "several hosts are for redis+sentinel:// and redis+cluster://"
    if address.topology == "sentinel" and not address.service:
        return "a sentinel URL names its service: redis+sentinel://host:26379/service"
    if address.topology == "cluster" and address.db:
        return "a cluster has no numbered databases"
    if not 1 <= address.partitions <= MAX_PARTITIONS or (address.partitions > 1 and address.topology != "cluster"):
        return f"partitions are for clusters, 1 to {MAX_PARTITIONS}"
    return None


def _fault_of_options(address: Address) -> str | None:
    if address.user is not None and address.password is None:
        return "a user comes with a password: redis://USER:PASSWORD@host, or redis://:PASSWORD@host for the default one"
    if (address.ca or address.cert or address.key) and not address.tls:
        return "ca, cert and key are for TLS: write rediss:// or valkeys://"
    if address.key and not address.cert:
        return "a key comes with its cert"
    if not address.prefix or not _PREFIX_CHARS.issuperset(address.prefix):
        return "a prefix has letters, digits and _ - . : only"
    if address.keep_bytes is not None and address.keep_bytes < 1:
        return "keep_bytes is above 0"
    if not (0 < address.timeout_s < inf and 0 < address.wait_timeout_s < inf):
        return "timeout_s and wait_timeout_s are seconds above 0"
    if address.wait_replicas < 0 or address.db < 0:
        return "wait_replicas and db are not below 0"
    return None


def _userinfo(parts: SplitResult) -> tuple[str | None, str | None, str]:
    info, at, hosts = parts.netloc.rpartition("@")
    if not at:
        return None, None, parts.netloc
    user, colon, password = info.partition(":")
    return unquote(user) or None, unquote(password) if colon else None, hosts


def _socket(parts: SplitResult) -> Node:
    if parts.netloc.rpartition("@")[2] or not parts.path.startswith("/"):
        raise _refusal("a socket is named by its whole path: unix:///run/valkey.sock")
    return Node(unquote(parts.path))


def _nodes(hosts: str, default_port: int) -> tuple[Node, ...]:
    nodes = []
    for text in hosts.split(","):
        host, colon, port = (text, "", "") if text.endswith("]") else _split_port(text)
        if colon and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise _refusal("what follows a host's colon is no port, 1 to 65535")
        if not host and "," in hosts:
            raise _refusal("a host between the commas of the engine's URL has no name")
        nodes.append(Node(host.strip("[]") or "127.0.0.1", int(port) if colon else default_port))
    return tuple(nodes)


def _split_port(text: str) -> tuple[str, str, str]:
    host, colon, port = text.rpartition(":")
    return (host, colon, port) if colon else (text, "", "")


def _masked(parts: SplitResult) -> str:
    info, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = info.partition(":")
    place = f"{user if colon else '***'}{':***' if colon else ''}{at}{hosts}" if at else hosts
    pairs = [pair if unquote(pair.partition("=")[0]) not in _SECRETS else _hidden(pair) for pair in _pairs(parts)]
    return f"{parts.scheme}://{place}{parts.path}" + ("?" + "&".join(pairs) if pairs else "")


def _pairs(parts: SplitResult) -> list[str]:
    return parts.query.split("&") if parts.query else []


def _hidden(pair: str) -> str:
    return f"{pair.partition('=')[0]}=***"


def _refusal(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, param="engine")
