"""Where webhooks may go: every spelling of what is inside is refused, and the addresses that `ipaddress` gets wrong."""

from __future__ import annotations

import pytest

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.targets import AllowList, is_public, masked, parse_url, target_of

CLOSED = [
    # IPv4: what IANA lists as special, at its edges
    *("0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1"),
    *("127.255.255.255", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.8"),
    *("192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.168.255.255"),
    *("192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255"),
    # clouds
    *("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"),
    # IPv6: loopback, unspecified, mapped, compatible, translated, link-local, site-local, unique local, multicast
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1"),
    *("fc00::1", "fdff::1", "ff02::1", "ff0e::1", "4000::1", "5f00::1"),
    # within global unicast: Teredo, ORCHID, benchmarks, 6to4, documentation, AS112, 6bone
    *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "3fff:fff::1"),
    # what is no address at all
    *("", "localhost", "1.2.3", "0x7f.1", "2130706433", "1.2.3.4.5", "[::1]"),
]
OPEN = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255"),
    *("128.0.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.1", "192.0.1.1", "198.17.255.255", "198.20.0.1"),
    *("223.255.255.255", "168.63.129.15", "2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "2a00:1450::1"),
]


@pytest.mark.parametrize("address", CLOSED)
def test_an_address_that_leads_inside_is_closed(address: str) -> None:
    """Also in the disguises in which Python calls it global."""
    assert not is_public(address)


@pytest.mark.parametrize("address", OPEN)
def test_a_public_address_is_open(address: str) -> None:
    """Its neighbours on the list of special ones do not close it."""
    assert is_public(address)


SPELLINGS = [
    # loopback as a number, short, octal or hexadecimal: one reader's name is another's address
    *("https://127.1/", "https://127.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/"),
    *("https://0177.0.0.1/", "https://127.0.0.01/", "https://0/", "https://1.2.3.4.5/", "https://a.0x1/"),
    # addresses that are not public
    *("https://127.0.0.1/", "https://10.1.2.3/x", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://0.0.0.0/"),
    *("https://[fe80::1]/", "https://[64:ff9b::7f00:1]/", "https://[0:0:0:0:0:0:0:1]/", "https://169.254.169.254/"),
    # other schemes, ports, users, fragments
    *("http://hooks.example/", "ftp://hooks.example/", "file:///etc/passwd", "//hooks.example/", "hooks.example"),
    *("https://hooks.example:80/", "https://hooks.example:22/", "https://hooks.example:0/", "https://a.example:99999/"),
    *("https://user@hooks.example/", "https://user:pass@hooks.example/", "https://good.example@127.0.0.1/"),
    *("https://hooks.example/#part", "https://127.0.0.1#@hooks.example/", "https://hooks.example#"),
    # what some reader drops, folds or takes for something else
    *("https://hooks.example\\@127.0.0.1/", "https://127.0.0.1\\.hooks.example/", "https://hooks.example/a b"),
    *("https://hooks.example/\r\nHost: x", "https://ho\toks.example/", " https://hooks.example/", "https:///x"),
    *("https://hooks.example/\x00", "https://1\uff127.0.0.1/", "https://ⓛocalhost/", "https://hooks。example/"),
    *("https://hooks.example./", "https://.example/", "https://a..b/", "https://-a.example/", "https://%31/"),
    *("https://[::1%25eth0]/", "https://[::1/", "https://[]/", "https://[127.0.0.1]/", "https://hooks.example:/"),
    *("https://" + "a" * 64 + ".example/", "https://hooks.example/" + "x" * 2048, ""),
]


@pytest.mark.parametrize("url", SPELLINGS)
def test_a_url_that_somebody_could_misread_is_refused(url: str) -> None:
    """With the field's name, and words about the URL."""
    with pytest.raises(InvalidRequest, match=r"^webhook url: ") as refusal:
        target_of(url)
    assert refusal.value.param == "webhook"


def test_a_plain_url_is_taken_apart() -> None:
    """Case of the host, ports and paths; what goes into the request is what stands in the URL."""
    for url, parts in {
        "https://Hooks.Example": ("hooks.example", 443, "/", "hooks.example"),
        "https://hooks.example:443/a": ("hooks.example", 443, "/a", "hooks.example"),
        "https://hooks.example:8443/a?b=c&d=%23": ("hooks.example", 8443, "/a?b=c&d=%23", "hooks.example:8443"),
        "https://hooks.example?x=1": ("hooks.example", 443, "/?x=1", "hooks.example"),
        "https://8.8.8.8/x": ("8.8.8.8", 443, "/x", "8.8.8.8"),
        "https://[2606:4700:0::1111]:8443/": ("2606:4700::1111", 8443, "/", "[2606:4700::1111]:8443"),
        "https://xn--gre-6ka8m.example/": ("xn--gre-6ka8m.example", 443, "/", "xn--gre-6ka8m.example"),
    }.items():
        target = target_of(url)
        assert (target.host, target.port, target.path, target.authority) == parts


def test_an_allowed_host_may_be_told_over_plain_http() -> None:
    """By its name, its address, or a network; with a port only there. Nothing else is thereby allowed."""
    allowed = AllowList(["hooks.internal", "127.0.0.1:9000", "10.1.0.0/16", "[fd00::1]:8080", "fd01::/16", "fd02::5"])
    for url in (
        "http://hooks.internal/",
        "http://HOOKS.internal:8080/",
        "https://hooks.internal:1/",
        "http://127.0.0.1:9000/x",
        "http://10.1.200.3:81/",
        "http://[fd00::1]:8080/",
        "http://[fd01::9]/",
        "http://[fd02::5]:99/",
    ):
        assert target_of(url, allowed) == parse_url(url)
    for url in (
        "http://127.0.0.1:9001/",
        "http://127.0.0.1/",
        "http://10.2.0.1/",
        "http://[fd00::1]:81/",
        "http://x.hooks.internal/",
        "http://internal/",
        "https://other.internal:1/",
    ):
        with pytest.raises(InvalidRequest):
            target_of(url, allowed)


def test_what_a_name_leads_to_is_judged_by_address_unless_the_name_is_allowed() -> None:
    """A network lets its addresses through for any name; a named host may be anywhere."""
    allowed = AllowList(["hooks.internal", "10.1.0.0/16", "192.168.0.9:8443"])
    public, named = parse_url("https://hooks.example/"), parse_url("http://hooks.internal/")
    assert allowed.lets_reach(public, "8.8.8.8")
    assert allowed.lets_reach(public, "10.1.2.3")
    assert not allowed.lets_reach(public, "10.2.2.3")
    assert not allowed.lets_reach(public, "192.168.0.9")
    assert allowed.lets_reach(parse_url("https://hooks.example:8443/"), "192.168.0.9")
    assert not allowed.lets_reach(public, "::ffff:10.1.2.3")
    assert allowed.lets_reach(named, "127.0.0.1")
    assert not AllowList().lets_reach(named, "127.0.0.1")


@pytest.mark.parametrize(
    "entry", ["", "http://x", "a b", "10.0.0.1/8", "10.0.0.0/33", "*.example", "host/8", "a:b:c:x"]
)
def test_an_entry_that_allows_nothing_is_refused(entry: str) -> None:
    """Rather than kept and never matched."""
    with pytest.raises(InvalidRequest, match="no webhook target"):
        AllowList([entry])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.com", "https://hooks.example.com"),
        ("https://hooks.example.com/", "https://hooks.example.com/"),
        ("https://hooks.example.com/services/T0/secret", "https://hooks.example.com/…"),
        ("https://hooks.example.com?token=secret", "https://hooks.example.com/…"),
        ("https://hooks.example.com:8443/?token=secret", "https://hooks.example.com:8443/…"),
        ("http://[::1]:9000/secret?a=b", "http://[::1]:9000/…"),
        ("no url at all", "…"),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_secret(url: str, shown: str) -> None:
    """Services put theirs into the path, or the query: whose it is, is all that a job tells."""
    assert masked(url) == shown
