"""Where a webhook may go: the form of its URL, and the addresses that are nobody's to reach.

1. The list of addresses is our own. Python's `ipaddress` calls some of them global that lead inside (`64:ff9b::/96`,
   `2002::/16`, `::127.0.0.1`, `fec0::/10`, multicast; 100.64.0.0/10 is not "private" to it), and its answers changed
   between versions (CVE-2024-4032). Of IPv6 only global unicast, 2000::/3, is let through at all.
2. A URL is read by one rule of our own and not by a library's, so that nobody reads another host in it than who
   connects: no user, no fragment, no character that some reader drops, and a host that looks like a number is written
   as the address that it is.
3. What a name resolves to is for who connects to check (`is_public`), each time, and of every address that it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from ropeway.domain.errors import InvalidRequest

__all__ = ["NOTHING_ALLOWED", "AllowList", "Target", "is_public", "masked", "parse_url", "target_of"]

URL_LIMIT = 2048
HTTPS_PORTS = (443, 8443)
DEFAULT_PORTS = {"https": 443, "http": 80}

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>/[^#]*|\?[^#]*)?"
)
_ORIGIN = re.compile(r"https?://[^/?]+")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

# IANA's special-purpose registries (RFC 6890 and after), and a few addresses that clouds answer on.
_CLOSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; some clouds' metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform, from within
        "169.254.0.0/16",  # link-local: metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_OPEN_V6 = IPv6Network("2000::/3")
_CLOSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # the old 6bone
        "3fff::/20",  # documentation
    )
)


class Target(NamedTuple):
    """A webhook's URL, taken apart. `host` is lower case, without brackets; `path` is what a request asks for."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_https(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The Host header of a request to it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def address(self) -> Address | None:
        """The address, when the URL names one instead of a host."""
        return _address(self.host)


class AllowList:
    """What an operator lets webhooks reach beside the public network: hosts, addresses and networks, each with a port
    or with any.

    AllowList(["127.0.0.1:9000", "hooks.internal", "10.1.0.0/16"])

    A host that is named here may be reached over plain http, on any port, wherever it is. A network lets its
    addresses through, whatever host leads to them. Raises InvalidRequest for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._hosts: set[tuple[str, int | None]] = set()
        self._networks: list[tuple[_Network, int | None]] = []
        for entry in entries:
            self._add(entry.strip().lower())

    def _add(self, entry: str) -> None:
        text, port = _split_port(entry)
        bare = text.removeprefix("[").removesuffix("]")
        try:
            self._networks.append((ip_network(bare), port))
        except ValueError:
            if "/" in text or not _is_name(text):
                raise InvalidRequest(
                    f"{entry!r} is no webhook target to allow: give a host, an address or a network, with :port if "
                    "only that one"
                ) from None
            self._hosts.add((text, port))

    def names(self, target: Target) -> bool:
        """Whether this very host, or the address that the URL names, is allowed on this port."""
        if (target.host, None) in self._hosts or (target.host, target.port) in self._hosts:
            return True
        address = target.address
        return address is not None and self._holds(address, target.port)

    def lets_reach(self, target: Target, address: str) -> bool:
        """Whether a connection for `target` may go to this address."""
        return is_public(address) or self.names(target) or self._holds(_plain(address), target.port)

    def _holds(self, address: Address | None, port: int) -> bool:
        return address is not None and any(
            address.version == network.version and address in network and only in (None, port)
            for network, only in self._networks
        )


NOTHING_ALLOWED = AllowList()
"""The public network over https, and nothing else."""


def parse_url(url: str) -> Target:
    """The URL of a webhook, if it has the form of one; where it leads is not judged.

    Raises InvalidRequest, telling what is wrong with it.
    """
    found = _URL.fullmatch(url)
    if len(url) > URL_LIMIT or not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise _refused(
            f"it has at most {URL_LIMIT} characters, all visible ASCII: encode others with %, hosts as xn--…"
        )
    if found is None:
        raise _refused(_complaint(url))
    scheme, path = found["scheme"], found["target"] or "/"
    port = int(found["port"]) if found["port"] else DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise _refused(f"{port} is no port")
    host = _checked_host(found["host"].lower())
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")


def masked(url: str) -> str:
    """A webhook's URL for whoever may see the job: whose it is, and nothing of the path, where its secret may be."""
    origin = _ORIGIN.match(url)
    if origin is None:
        return "…"
    return url if url[origin.end() :] in ("", "/") else f"{origin[0]}/…"


def target_of(url: str, allowed: AllowList = NOTHING_ALLOWED) -> Target:
    """The URL of a webhook that may be sent there, as far as the URL itself can tell.

    Raises InvalidRequest for one that is malformed, is not https on port 443 or 8443, or names an address that is not
    public, unless it is allowed.
    """
    target = parse_url(url)
    if allowed.names(target):
        return target
    if not target.is_https:
        raise _refused("https only (an operator can allow single hosts)")
    if target.port not in HTTPS_PORTS:
        raise _refused("port 443 or 8443 only (an operator can allow single hosts)")
    if target.address is not None and not is_public(target.host):
        raise _refused("the address is not a public one (an operator can allow single hosts)")
    return target


def is_public(address: str) -> bool:
    """Whether this is the address of one machine on the public network. False for what is no address."""
    parsed = _plain(address)
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _CLOSED_V4)
    if isinstance(parsed, IPv6Address):
        return parsed in _OPEN_V6 and not any(parsed in network for network in _CLOSED_V6)
    return False


def _plain(address: str) -> Address | None:
    """The address; None for what is none, and for one with a zone, which is never public."""
    return None if "%" in address else _address(address)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _checked_host(host: str) -> str:
    if host.startswith("["):
        address = _address(host[1:-1])
        if not isinstance(address, IPv6Address):
            raise _refused(f"{host} is no IPv6 address")
        return str(address)
    if _NUMBER.fullmatch(host.rpartition(".")[2]):  # 127.1, 2130706433, 0x7f.1: each reader takes them for another
        if not isinstance(_address(host), IPv4Address):
            raise _refused(f"{host[:60]!r} is no address: write four numbers, or a name")
        return host
    if not _is_name(host):
        raise _refused(f"{host[:60]!r} is no host name")
    return host


def _is_name(host: str) -> bool:
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))


def _split_port(entry: str) -> tuple[str, int | None]:
    """An entry of an allow-list, and its port. An IPv6 address with a port has brackets."""
    text, colon, port = entry.rpartition(":")
    is_apart = colon and port.isdigit() and (":" not in text or text.endswith("]") or text.startswith("["))
    return (text, int(port)) if is_apart else (entry, None)


def _complaint(url: str) -> str:
    if not url.lower().startswith(("https://", "http://")):
        return "it begins with https://"
    if "#" in url:
        return "it has no #fragment"
    if "@" in url.split("/")[2]:
        return "it names no user: put a secret into the path, or trust the signature"
    return f"{url[:80]!r} is no URL"


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"webhook url: {why}", param="webhook")
