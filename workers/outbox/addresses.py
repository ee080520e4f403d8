"""Decides which addresses a webhook may go to, so that nobody makes this machine talk to its own network (SSRF).

https to public addresses only, unless the settings allow more. Names are checked when they are resolved: see `resolver`.
Source: OWASP's SSRF prevention cheat sheet; IANA's special-purpose address registries, through `ipaddress`.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

MAX_URL_CHARACTERS = 2000
_EMBEDS_IPV4 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("2002::/16"))
"""NAT64 and 6to4: the address behind them is another one."""


class ForbiddenTarget(Exception):
    """A webhook must not go there; the sentence says why and names no more than the host."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings allow beyond https to public addresses."""

    allow_http: bool = False
    allow_private: bool = False


def check_url(url: str, rules: Rules) -> None:
    """Refuse a URL that no webhook may go to; names are checked when they are resolved.

    Args:
        url: A target's URL.
        rules: What is allowed.

    Raises:
        ForbiddenTarget: With the rule.
    """
    if len(url) > MAX_URL_CHARACTERS or any(character <= " " or character == "\x7f" for character in url):
        raise ForbiddenTarget(f"a URL has at most {MAX_URL_CHARACTERS} characters and no blanks")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ForbiddenTarget(f"not a URL: {error}") from error
    if parts.scheme not in (("https", "http") if rules.allow_http else ("https",)):
        raise ForbiddenTarget("the URL must begin with https://")
    if not host:
        raise ForbiddenTarget("the URL names no host")
    if parts.username is not None or parts.password is not None:
        raise ForbiddenTarget("the URL must not carry a user or password")
    literal = literal_address(host)
    if literal is not None and not (rules.allow_private or is_public(literal)):
        raise ForbiddenTarget(f"{host} is not a public address")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is reachable from the internet at large, whatever it embeds.

    Args:
        address: As resolved.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.teredo is not None or any(address in network for network in _EMBEDS_IPV4):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def literal_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as a number; None for a name.

    Args:
        text: A host.
    """
    try:
        return ip_address(text)
    except ValueError:
        return None
