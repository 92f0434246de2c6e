"""Kubernetes' libraries of addresses and URLs: ip(), cidr() and url(), as strict as Go's parsers.

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-ip-address-library and the sections after it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote_plus

from webhook.core.cel.values import CelError, Function, Opaque, expect, no_overload

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PORT: Final = re.compile(r"(?::[0-9]*)?")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST: Final = re.compile(r"[A-Za-z0-9!$&'()*+,;=:\[\]<>\"_.~\-\x80-\U0010ffff]*")
_USER: Final = re.compile(r"[A-Za-z0-9._:~!$&'()*+,;=%@-]*")
_PREFIX: Final = re.compile(r"0|[1-9][0-9]{0,2}")
_PATH_SAFE: Final = "$&+,/:;=@!'()*[]"


class Ip(Opaque):
    """An IPv4 or IPv6 address."""

    type_name = "net.IP"
    __slots__ = ("address",)

    def __init__(self, address: _Address) -> None:
        self.address = address

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ip) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __str__(self) -> str:
        return str(self.address)


class Cidr(Opaque):
    """An address with the length of its network's prefix."""

    type_name = "net.CIDR"
    __slots__ = ("address", "network")

    def __init__(self, address: _Address, network: _Network) -> None:
        self.address = address
        self.network = network

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cidr) and (self.address, self.network) == (other.address, other.network)

    def __hash__(self) -> int:
        return hash(self.network)

    def __str__(self) -> str:
        return f"{self.address}/{self.network.prefixlen}"


class Url(Opaque):
    """A URL, taken apart."""

    type_name = "kubernetes.URL"
    __slots__ = ("host", "path", "query", "scheme", "text")

    def __init__(self, text: str, scheme: str, host: str, path: str, query: str) -> None:
        self.text = text
        self.scheme = scheme
        self.host = host
        self.path = path
        self.query = query

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def parse_ip(text: Any) -> Ip:
    """``ip(text)``."""
    expect("ip", str, text)
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise CelError(f"{text!r} is not an IP address") from error
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise CelError(f"{text!r}: zones and IPv4-mapped IPv6 addresses are not allowed")
    return Ip(address)


def parse_cidr(text: Any) -> Cidr:
    """``cidr(text)``."""
    expect("cidr", str, text)
    address, _, length = text.rpartition("/")
    if _PREFIX.fullmatch(length) is None:
        raise CelError(f"{text!r} is not a network address")
    host = parse_ip(address).address
    try:
        return Cidr(host, ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise CelError(f"{text!r} is not a network address") from error


def parse_url(text: Any) -> Url:
    """``url(text)``: absolute, or a path from the root."""
    expect("url", str, text)
    bad = CelError(f"{text[:100]!r} is not a URL")
    if not text or any(letter < " " or letter == "\x7f" for letter in text) or text.startswith(":"):
        raise bad
    body = text.partition("#")[0]
    match = _SCHEME.match(body)
    scheme = match.group(1).lower() if match else ""
    rest = body[match.end() :] if match else body
    rest, _, query = rest.partition("?")
    if not rest.startswith("/"):
        if not scheme:
            raise bad
        return Url(text, scheme, "", "", query)
    host = ""
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, slash, path = rest[2:].partition("/")
        host, rest = _host(authority, bad), slash + path
    if _BAD_ESCAPE.search(rest):
        raise bad
    return Url(text, scheme, host, rest, query)


def _host(authority: str, bad: CelError) -> str:
    user, _, host = authority.rpartition("@")
    name, _, port = host.rpartition("]")
    port = port if name else host[host.find(":") :] if ":" in host else ""
    if _USER.fullmatch(user) is None or _PORT.fullmatch(port) is None or _HOST.fullmatch(host) is None:
        raise bad
    if host.startswith("[") != bool(name):
        raise bad
    return host


def _is(parse: Function) -> Function:
    def test(text: Any) -> bool:
        expect(parse.__name__, str, text)
        try:
            parse(text)
        except CelError:
            return False
        return True

    return test


def _ip(value: Any) -> Ip:
    return Ip(value.address) if type(value) is Cidr else parse_ip(value)


def _is_canonical(text: Any) -> bool:
    return bool(str(parse_ip(text)) == text)


def _on_ip(name: str, test: Any) -> Function:
    def checked(value: Any) -> Any:
        if type(value) is not Ip:
            raise no_overload(name, value)
        return test(value.address)

    return checked


def _is_local_multicast(address: _Address) -> bool:
    if address.version == 4:
        return address.packed[:3] == b"\xe0\x00\x00"
    return address.packed[0] == 0xFF and address.packed[1] & 0x0F == 2


def _is_global(address: _Address) -> bool:
    special = address.is_unspecified or address.is_loopback or address.is_multicast or _is_link_local(address)
    return not special and str(address) != "255.255.255.255"


def _is_link_local(address: _Address) -> bool:
    return bool(address.is_link_local)


def _contains_ip(network: Any, address: Any) -> bool:
    one = parse_ip(address) if type(address) is str else address
    if type(network) is not Cidr or type(one) is not Ip:
        raise no_overload("containsIP", network, address)
    return one.address.version == network.network.version and one.address in network.network


def _contains_cidr(network: Any, other: Any) -> bool:
    inner = parse_cidr(other) if type(other) is str else other
    if type(network) is not Cidr or type(inner) is not Cidr:
        raise no_overload("containsCIDR", network, other)
    first, second = network.network, inner.network
    return first.version == second.version and first.overlaps(second) and first.prefixlen <= second.prefixlen


def _masked(value: Any) -> Cidr:
    if type(value) is not Cidr:
        raise no_overload("masked", value)
    return Cidr(value.network.network_address, value.network)


def _prefix_length(value: Any) -> int:
    if type(value) is not Cidr:
        raise no_overload("prefixLength", value)
    return int(value.network.prefixlen)


def _of_url(name: str, read: Any) -> Function:
    def checked(value: Any) -> Any:
        if type(value) is not Url:
            raise no_overload(name, value)
        return read(value)

    return checked


def _hostname(url: Url) -> str:
    if url.host.startswith("["):
        return url.host[1 : url.host.index("]")]
    return url.host.partition(":")[0]


def _port(url: Url) -> str:
    return url.host.rpartition("]")[2].partition(":")[2]


def _query(url: Url) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in url.query.split("&"):
        key, _, value = part.partition("=")
        if part and ";" not in part and not _BAD_ESCAPE.search(part):
            found.setdefault(unquote_plus(key), []).append(unquote_plus(value))
    return found


FUNCTIONS: Final[Mapping[str, Function]] = {
    "ip": _ip,
    "isIP": _is(parse_ip),
    "ip.isCanonical": _is_canonical,
    "family": _on_ip("family", lambda address: address.version),
    "isUnspecified": _on_ip("isUnspecified", lambda address: address.is_unspecified),
    "isLoopback": _on_ip("isLoopback", lambda address: address.is_loopback),
    "isLinkLocalMulticast": _on_ip("isLinkLocalMulticast", _is_local_multicast),
    "isLinkLocalUnicast": _on_ip("isLinkLocalUnicast", _is_link_local),
    "isGlobalUnicast": _on_ip("isGlobalUnicast", _is_global),
    "cidr": parse_cidr,
    "isCIDR": _is(parse_cidr),
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    "prefixLength": _prefix_length,
    "masked": _masked,
    "url": parse_url,
    "isURL": _is(parse_url),
    "getScheme": _of_url("getScheme", lambda url: url.scheme),
    "getHost": _of_url("getHost", lambda url: url.host),
    "getHostname": _of_url("getHostname", _hostname),
    "getPort": _of_url("getPort", _port),
    "getEscapedPath": _of_url("getEscapedPath", lambda url: quote(url.path, safe=_PATH_SAFE + "%~")),
    "getQuery": _of_url("getQuery", _query),
}
